package signature_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/signature"
)

func parseKeys(t testing.TB, letters string) []signature.KeyID {
	t.Helper()
	var keys []signature.KeyID
	for _, letter := range letters {
		id, err := signature.ParseKeyID("ocid1.key.oc1.iad.b5r7bu4kaaeug." + strings.Repeat(string(letter), 60))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, id)
	}
	return keys
}

func TestKeySet(t *testing.T) {
	for listed, want := range map[string]string{
		"": "", "a": "a", "ab": "ab", "ba": "ab", "aab": "ab", "edcba": "abcde", "edcbaedcba": "abcde",
	} {
		s, err := signature.NewKeySet(parseKeys(t, listed)...)
		if err != nil {
			t.Fatalf("%q: %v", listed, err)
		}
		keys := parseKeys(t, want)
		if !slices.Equal(s.Keys(), keys) || s.Len() != len(keys) {
			t.Errorf("%q: got %s", listed, s)
		}
		// The text of a set parses to the same set.
		var again []signature.KeyID
		for ocid := range strings.FieldsSeq(s.String()) {
			id, err := signature.ParseKeyID(ocid)
			if err != nil {
				t.Fatal(err)
			}
			again = append(again, id)
		}
		slices.Reverse(again)
		if same, err := signature.NewKeySet(again...); err != nil || same != s {
			t.Errorf("%q: %s comes back as %s, %v", listed, s, same, err)
		}
		for _, letter := range "abcdef" {
			if id := parseKeys(t, string(letter))[0]; s.Contains(id) != strings.ContainsRune(want, letter) {
				t.Errorf("%q: contains %c: %t", listed, letter, s.Contains(id))
			}
		}
		if s.Contains(signature.KeyID{}) {
			t.Errorf("%q contains the id of no key", listed)
		}
		if (s == signature.KeySet{}) != (want == "") {
			t.Errorf("%q is the zero value, or should be", listed)
		}
	}
	for n, ok := range map[int]bool{-1: false, 0: false, 1: true, 2: true, 3: true, 4: false} {
		s, err := signature.NewKeySet(parseKeys(t, "abc")...)
		if err != nil || s.AtLeast() != 1 {
			t.Fatal(s.AtLeast(), err)
		}
		got, err := s.WithAtLeast(n)
		switch {
		case !ok && (err == nil || got != (signature.KeySet{})):
			t.Errorf("at least %d of three: got %s, %v", n, got, err)
		case ok && (err != nil || got.AtLeast() != n || got.String() != s.String() || (got == s) != (n == 1)):
			t.Errorf("at least %d of three: got %d of %s, %v", n, got.AtLeast(), got, err)
		}
	}
	if none := (signature.KeySet{}); none.AtLeast() != 1 {
		t.Errorf("no key allows %d", none.AtLeast())
	}
	for _, keys := range [][]signature.KeyID{parseKeys(t, "abcdef"), {{}}, append(parseKeys(t, "a"), signature.KeyID{})} {
		if s, err := signature.NewKeySet(keys...); err == nil || s != (signature.KeySet{}) {
			t.Errorf("%v: got %s, %v", keys, s, err)
		}
	}
}
