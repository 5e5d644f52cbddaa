# Reads the answers of a provider. The provider is not trusted: it may be down, slow, of
# another version or hostile. A null, missing, malformed or repeated answer counts as no
# answer.
package lib.answers

import data.lib.message

# by_question maps each question to its answer. It leaves out questions that also have an
# error. It is undefined if any question has two answers.
by_question(answer) := {question: value |
	count(answer.responses) == count({question | some [question, _] in answer.responses})
	failed := {question | some [question, _] in answer.errors}
	some [question, value] in answer.responses
	not question in failed
}

# valid_reason holds for a reason that is safe to print.
valid_reason(reason) if regex.match(`^[a-z]+(-[a-z]+)*$`, reason)

# errors_by_question maps each question to the set of its error texts.
errors_by_question(answer) := object.union_n([{question: {text: true}} | some [question, text] in answer.errors])

# error_detail explains why a question has no valid answer. The caller computes values and
# errors once from the answer, so that the cost does not grow with the number of images.
default error_detail(_, _, _, _) := "no answer"

error_detail(answer, values, errors, question) := message.printable(object.keys(errors[question]), 400) if {
	errors[question]
} else := sprintf("not an answer: %s", [message.printable(values[question], 120)]) if {
	values[question]
} else := sprintf("Gatekeeper has no Provider of that name: %s", [answer.system_error]) if {
	answer.system_error == "key is not found in provider cache" # Gatekeeper's message
} else := replace(answer.system_error, "\n", "; ") if {
	answer.system_error != ""
} else := sprintf("no answer about this image (HTTP status %v)", [answer.status_code])
