# Writes the message of a violation. kubectl prints it, the audit cuts it at 256 bytes, and
# logs store it. Place and reason come first. Text from a manifest or a provider can neither
# break the line nor imitate the policy's own words.
package lib.message

# longest is the maximum length of each part of a message. Place, reason, two colons and two
# spaces fill at most the first 80 bytes, so that a message cut there still shows both. The
# longest reason of the policies and the provider has 16 letters (TestReasonsFitIntoMessages).
longest := {"place": 60, "reason": 16, "detail": 480, "subject": 480}

# violation is defined for every input: with an undefined message there would be no
# violation.
violation(place, reason, detail, subject) := {
	"msg": sprintf("%s: %s: %s: %s", [
		printable(place, longest.place),
		printable(reason, longest.reason),
		printable(detail, longest.detail),
		printable(subject, longest.subject),
	]),
	"details": {"place": place, "reason": reason, "subject": subject},
}

# printable is x as one line of ASCII with at most length characters.
default printable(_, _) := "?"

printable(x, length) := "(none)" if {
	x in {null, ""}
} else := truncated(x, length) if {
	regex.match(`^[ -~]+$`, x)
} else := truncated(regex.replace(json.marshal(x), `[^ -~]`, "?"), length)

truncated(text, length) := text if {
	count(text) <= length
} else := concat("", [substring(text, 0, length - 2), ".."])
