# Answers from the running provider, through Gatekeeper: the questions that it
# does not remember go out in one request.
package lib.fetch

answers(provider, questions) := external_data({"provider": provider, "keys": questions})
