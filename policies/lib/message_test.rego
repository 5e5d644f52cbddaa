package lib.message_test

import data.lib.message

hostile := [
	"", "a\nb", "\u202egnp", "…", null, 1, 1.5, true, [], {}, {"a"}, ["x\ny"], {"k": {"deep": [null]}},
	concat("", [c | some _ in numbers.range(1, 5000); c := "long"]),
]

test_a_violation_is_always_one_line_of_bounded_length if {
	every x in hostile {
		got := message.violation(x, x, x, x)
		regex.match(`^[ -~]+$`, got.msg)
		count(got.msg) <= 1042
	}
}

test_the_reason_is_within_the_first_80_bytes if {
	place := concat("", [c | some _ in numbers.range(1, 100); c := "p"])
	got := message.violation(place, "key-not-allowed", "d", "s").msg
	contains(substring(got, 0, 80), ": key-not-allowed: ")
}

test_ascii_text_is_unchanged if {
	message.violation("containers/web", "unsigned", "no signature", "iad.ocir.io/ns/repo").msg == "containers/web: unsigned: no signature: iad.ocir.io/ns/repo"
}
