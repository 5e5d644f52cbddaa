# Gets answers from the running provider, through Gatekeeper. Gatekeeper sends the questions
# that are not in its cache in one request.
package lib.externaldata

answers(provider, questions) := external_data({"provider": provider, "keys": questions})
