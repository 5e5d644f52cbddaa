# What the answers of a provider are worth. The provider may be down, slow, of
# another version or a liar: null, missing, odd and doubled answers are no answer.
package lib.answers

import data.lib.message

# values are the answers that count, by question: the one answer to exactly the
# question asked, without an error beside it.
values(answer) := {question: value |
	count(answer.responses) == count({question | some [question, _] in answer.responses})
	failed := {question | some [question, _] in answer.errors}
	some [question, value] in answer.responses
	not question in failed
}

# word holds for a reason that is fit to be shown.
word(reason) if regex.match(`^[a-z]+(-[a-z]+)*$`, reason)

# errors are what the provider said about questions instead of an answer: the texts of
# each question.
errors(answer) := object.union_n([{question: {text: true}} | some [question, text] in answer.errors])

# cause says in words why a question has no answer that counts. What counts and the
# errors are made once of the answer, and not for each question.
default cause(_, _, _, _) := "no answer"

cause(answer, plain, told, question) := message.printable(object.keys(told[question]), 400) if {
	told[question]
} else := sprintf("not an answer: %s", [message.printable(plain[question], 120)]) if {
	plain[question]
} else := sprintf("Gatekeeper has no Provider of that name: %s", [answer.system_error]) if {
	answer.system_error == "key is not found in provider cache" # in Gatekeeper's own words
} else := replace(answer.system_error, "\n", "; ") if {
	answer.system_error != ""
} else := sprintf("no answer about this image (HTTP status %v)", [answer.status_code])
