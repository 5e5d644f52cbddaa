package verdict_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// A question can ask for several different keys. Each counts once, and only while it is
// enabled. Fewer are a denial that names them, and an unknown key is no answer.
func TestDecideByCount(t *testing.T) {
	keys := map[string]signature.KeyID{}
	present := map[signature.KeyID]verdict.Key{}
	v1 := versionID(t, "v1")
	for _, letter := range []string{"a", "b", "c", "x"} {
		keys[letter] = keyID(t, letter)
		present[keys[letter]] = verdict.Key{ID: keys[letter], State: verdict.Enabled, Algorithm: "RSA",
			Versions: map[signature.KeyVersionID]string{v1: verdict.Enabled}}
	}
	disabled := present[keys["c"]]
	disabled.State = "DISABLED"
	present[keys["c"]] = disabled
	delete(present, keys["x"]) // its state is not known

	for name, test := range map[string]struct {
		proofs  string // the keys of the proofs, newest first; "!" is a failure of key a
		allowed string
		atLeast int
		reason  verdict.Reason // empty: no answer
		by      string
		detail  string
	}{
		"two of two":                        {"ab", "ab", 2, verdict.Signed, "ab", ""},
		"two of three":                      {"ba", "abc", 2, verdict.Signed, "ba", ""},
		"two, and a failure before":         {"!ba", "abc", 2, verdict.Signed, "ba", ""},
		"one key twice":                     {"aa", "ab", 2, verdict.TooFewKeys, "a", "signed by …aaaaaaaaaa; 1 of …bbbbbbbbbb must sign as well"},
		"one key twice, and another":        {"aab", "ab", 2, verdict.Signed, "ab", ""},
		"one of three":                      {"b", "abc", 2, verdict.TooFewKeys, "b", "signed by …bbbbbbbbbb; 1 of …aaaaaaaaaa, …cccccccccc must sign as well"},
		"two of three, if three must":       {"ba", "abc", 3, verdict.TooFewKeys, "ba", "signed by …aaaaaaaaaa, …bbbbbbbbbb; 1 of …cccccccccc must sign as well"},
		"a disabled key does not count":     {"ac", "abc", 2, verdict.TooFewKeys, "a", "signed by …aaaaaaaaaa; 1 of …bbbbbbbbbb, …cccccccccc must sign as well; key …cccccccccc is DISABLED"},
		"only a disabled key":               {"c", "abc", 2, verdict.KeyUnusable, "", "key …cccccccccc is DISABLED"},
		"a key that is not allowed":         {"ab", "ac", 2, verdict.TooFewKeys, "a", "signed by …aaaaaaaaaa; 1 of …cccccccccc must sign as well; key …bbbbbbbbbb is not allowed"},
		"an unknown key could be the other": {"ax", "abx", 2, "", "", ""},
		"an unknown key, and two others":    {"xab", "abx", 2, verdict.Signed, "ab", ""},
		"failures only":                     {"!", "ab", 2, verdict.WrongImage, "", "because"},
		"no signature":                      {"", "ab", 2, verdict.Unsigned, "", "no signature"},
		"one is enough":                     {"ab", "ab", 1, verdict.Signed, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var ev verdict.Evidence
			for _, letter := range test.proofs {
				f := verdict.Finding{Reason: verdict.Signed, Key: keys[string(letter)], Version: v1, Signature: "of " + string(letter), Algorithm: "SHA_256_RSA_PKCS_PSS"}
				if letter == '!' {
					f = verdict.Finding{Reason: verdict.WrongImage, Detail: "because", Key: keys["a"]}
				}
				ev.Findings, ev.Records = append(ev.Findings, f), ev.Records+1
			}
			var list []signature.KeyID
			for _, letter := range test.allowed {
				list = append(list, keys[string(letter)])
			}
			allowed, err := set(t, list...).WithAtLeast(test.atLeast)
			if err != nil {
				t.Fatal(err)
			}
			got, err := verdict.Decide(ev, allowed, states(present))
			if test.reason == "" {
				if !errors.Is(err, errUnknown) || !reflect.ValueOf(got).IsZero() {
					t.Errorf("got %+v, %v; want no answer", got, err)
				}
				return
			}
			want := verdict.Verdict{Reason: test.reason, Detail: test.detail}
			for _, letter := range test.by {
				want.By = append(want.By, verdict.Proof{Key: keys[string(letter)].String(), KeyVersion: v1.String(), Signature: "of?" + string(letter), Algorithm: "SHA_256_RSA_PKCS_PSS"})
			}
			if test.reason == verdict.Signed {
				first := verdict.Proof{Key: keys["a"].String(), KeyVersion: v1.String(), Signature: "of?a", Algorithm: "SHA_256_RSA_PKCS_PSS"}
				if want.By != nil {
					first = want.By[0]
				}
				want.Key, want.KeyVersion, want.Signature, want.Algorithm = first.Key, first.KeyVersion, first.Signature, first.Algorithm
			}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Error(err, diff)
			}
		})
	}
}
