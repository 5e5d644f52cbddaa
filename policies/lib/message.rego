# What a violation says. It is read in kubectl, in an audit that cuts it at 256
# bytes, and in logs: place and reason come first, and nothing that a manifest or
# a provider wrote can break the line or pass for our own words.
package lib.message

# longest is how long each part of a message may be. Two colons and two spaces make
# the first 80 bytes full with a place and a reason, so that both are read even where
# a message is cut short. The longest reason of the policies and the provider has 16
# letters (TestReasonsFitIntoMessages).
longest := {"place": 60, "reason": 16, "detail": 480, "subject": 480}

# violation never fails, whatever it is given: with an undefined message there
# would be no violation.
violation(place, reason, detail, subject) := {
	"msg": sprintf("%s: %s: %s: %s", [
		printable(place, longest.place),
		printable(reason, longest.reason),
		printable(detail, longest.detail),
		printable(subject, longest.subject),
	]),
	"details": {"place": place, "reason": reason, "subject": subject},
}

# printable is x in one line of ASCII, cut at length.
default printable(_, _) := "?"

printable(x, length) := "(none)" if {
	x in {null, ""}
} else := cut(x, length) if {
	regex.match(`^[ -~]+$`, x)
} else := cut(regex.replace(json.marshal(x), `[^ -~]`, "?"), length)

cut(text, length) := text if {
	count(text) <= length
} else := concat("", [substring(text, 0, length - 2), ".."])
