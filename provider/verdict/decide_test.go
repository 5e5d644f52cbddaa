package verdict_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

func keyID(t testing.TB, letter string) signature.KeyID {
	t.Helper()
	id, err := signature.ParseKeyID("ocid1.key.oc1.iad.b5q4c5lnaahik." + strings.Repeat(letter, 60))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func versionID(t testing.TB, name string) signature.KeyVersionID {
	t.Helper()
	id, err := signature.ParseKeyVersionID("ocid1.keyversion.oc1.iad." + name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestDecide(t *testing.T) {
	a, b := keyID(t, "a"), keyID(t, "b")
	v1, v2 := versionID(t, "v1"), versionID(t, "v2")
	good := func(id signature.KeyID) verdict.Key {
		return verdict.Key{ID: id, State: verdict.Enabled, Algorithm: "RSA",
			Versions: map[signature.KeyVersionID]string{v1: verdict.Enabled}}
	}
	both := map[signature.KeyID]verdict.Key{a: good(a), b: good(b)}
	with := func(change func(*verdict.Key)) map[signature.KeyID]verdict.Key {
		k := good(a)
		change(&k)
		return map[signature.KeyID]verdict.Key{a: k}
	}
	proof := verdict.Finding{Reason: verdict.Signed, Key: a, Version: v1, Signature: "ocid1.containerimagesignature.oc1.iad.0.ns.grtdobwfza",
		Algorithm: "SHA_256_RSA_PKCS_PSS", SignedAt: time.Date(2021, 12, 21, 7, 2, 58, 383e6, time.UTC)}
	failed := func(r verdict.Reason) verdict.Finding {
		return verdict.Finding{Reason: r, Detail: "because", Key: a, Version: v1, Signature: "ocid1.containerimagesignature.grtdobwfza"}
	}
	yes := verdict.Verdict{Reason: verdict.Signed, Key: a.String(), KeyVersion: v1.String(), Signature: proof.Signature,
		Algorithm: "SHA_256_RSA_PKCS_PSS", SignedAt: "2021-12-21T07:02:58Z"}
	no := func(r verdict.Reason, detail string) verdict.Verdict {
		return verdict.Verdict{Reason: r, Detail: detail}
	}
	because := "because"
	findings := func(f ...verdict.Finding) verdict.Evidence {
		return verdict.Evidence{Records: len(f), Findings: f}
	}

	for name, test := range map[string]struct {
		ev      verdict.Evidence
		allowed []signature.KeyID
		keys    map[signature.KeyID]verdict.Key
		want    verdict.Verdict
	}{
		"a proof":                          {findings(proof), []signature.KeyID{a}, both, yes},
		"a proof after failures":           {findings(failed(verdict.WrongImage), failed(verdict.BadSignature), proof), []signature.KeyID{b, a}, both, yes},
		"a proof before failures":          {findings(proof, failed(verdict.WrongImage)), []signature.KeyID{a}, both, yes},
		"nothing known":                    {verdict.Evidence{}, []signature.KeyID{a}, both, no(verdict.Unsigned, "no signature")},
		"no image":                         {verdict.Evidence{Missing: true}, []signature.KeyID{a}, both, no(verdict.ImageNotFound, "no such image, or this identity may not read it")},
		"deleted records only":             {verdict.Evidence{Unusable: 2}, []signature.KeyID{a}, both, no(verdict.Unsigned, "no signature; 2 records not available")},
		"a proof by a key not allowed":     {findings(proof), []signature.KeyID{b}, both, no(verdict.KeyNotAllowed, "key …aaaaaaaaaa is not allowed")},
		"no key is allowed":                {findings(proof), nil, both, no(verdict.KeyNotAllowed, "key …aaaaaaaaaa is not allowed")},
		"the key is disabled":              {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.State = "DISABLED" }), no(verdict.KeyUnusable, "key …aaaaaaaaaa is DISABLED")},
		"the key has no state":             {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.State = "" }), no(verdict.KeyUnusable, "key …aaaaaaaaaa is unknown")},
		"the key is gone":                  {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.State = verdict.NotFound }), no(verdict.KeyUnusable, "OCI Vault does not find key …aaaaaaaaaa, or this identity may not read it")},
		"the key is not an RSA key":        {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.Algorithm = "AES" }), no(verdict.KeyUnusable, "key …aaaaaaaaaa is an AES key, and images are signed with RSA keys")},
		"the version is not listed":        {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.Versions = nil }), no(verdict.KeyUnusable, "version …oc1.iad.v1 is not one of key …aaaaaaaaaa")},
		"another version is listed":        {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.Versions = map[signature.KeyVersionID]string{v2: verdict.Enabled} }), no(verdict.KeyUnusable, "version …oc1.iad.v1 is not one of key …aaaaaaaaaa")},
		"the version is pending deletion":  {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.Versions[v1] = "PENDING_DELETION" }), no(verdict.KeyUnusable, "version …oc1.iad.v1 of key …aaaaaaaaaa is PENDING_DELETION")},
		"a hostile state":                  {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.State = "a\x1b[2J\n" }), no(verdict.KeyUnusable, "key …aaaaaaaaaa is a?[2J?")},
		"wrong image outranks the rest":    {findings(failed(verdict.BadSignature), failed(verdict.WrongKey), failed(verdict.WrongImage)), []signature.KeyID{a}, both, no(verdict.WrongImage, because)},
		"wrong key outranks bad":           {findings(failed(verdict.BadSignature), failed(verdict.WrongKey)), []signature.KeyID{a}, both, no(verdict.WrongKey, because)},
		"bad outranks unusable":            {findings(failed(verdict.KeyUnusable), failed(verdict.BadSignature)), []signature.KeyID{a}, both, no(verdict.BadSignature, because)},
		"unusable outranks not allowed":    {verdict.Evidence{Records: 2, OtherKeys: "key …x", Findings: []verdict.Finding{failed(verdict.KeyUnusable)}}, []signature.KeyID{a}, both, no(verdict.KeyUnusable, "because")},
		"an unknown reason":                {findings(failed("yes")), []signature.KeyID{a}, both, no("yes", because)},
		"one other key":                    {verdict.Evidence{Records: 1, OtherKeys: "key …v3t6jcf64a"}, []signature.KeyID{a}, both, no(verdict.KeyNotAllowed, "1 signature, by key …v3t6jcf64a; allowed: …aaaaaaaaaa")},
		"other keys":                       {verdict.Evidence{Records: 3, OtherKeys: "keys …1 and …2"}, []signature.KeyID{b, a}, both, no(verdict.KeyNotAllowed, "3 signatures, by keys …1 and …2; allowed: …aaaaaaaaaa, …bbbbbbbbbb")},
		"other keys, and none allowed":     {verdict.Evidence{Records: 3, OtherKeys: "keys …1 and …2"}, nil, both, no(verdict.KeyNotAllowed, "3 signatures, by keys …1 and …2; allowed: none")},
		"more records than were looked at": {verdict.Evidence{Unusable: 250, Truncated: true}, []signature.KeyID{a}, both, no(verdict.Unsigned, "no signature; 250 records not available; the image has more records than are looked at")},
		"a proof among more records":       {verdict.Evidence{Findings: []verdict.Finding{proof}, Records: 250, Truncated: true}, []signature.KeyID{a}, both, yes},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := verdict.Decide(test.ev, set(t, test.allowed...), states(test.keys))
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Error(err, diff)
			}
		})
	}
}

// states returns the states of these keys. Other keys return an error.
func states(keys map[signature.KeyID]verdict.Key) func(signature.KeyID) (verdict.Key, error) {
	return func(id signature.KeyID) (verdict.Key, error) {
		if k, ok := keys[id]; ok {
			return k, nil
		}
		return verdict.Key{}, errUnknown
	}
}

var errUnknown = errors.New("not known")

func set(t testing.TB, keys ...signature.KeyID) signature.KeySet {
	t.Helper()
	s, err := signature.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Without the state of a key, the answer is neither a denial nor a yes.
func TestDecideWithoutTheStateOfAKey(t *testing.T) {
	a, b := keyID(t, "a"), keyID(t, "b")
	version := versionID(t, "v1")
	proof := func(id signature.KeyID) verdict.Finding {
		return verdict.Finding{Reason: verdict.Signed, Key: id, Version: version}
	}
	failed := verdict.Finding{Reason: verdict.WrongImage, Key: b, Version: version}
	good := verdict.Key{ID: b, State: verdict.Enabled, Algorithm: "RSA", Versions: map[signature.KeyVersionID]string{version: verdict.Enabled}}
	disabled := good
	disabled.State = "DISABLED"
	for name, test := range map[string]struct {
		findings []verdict.Finding
		key      verdict.Key // b's state; a's state is unknown
		signed   bool
		asked    int
	}{
		"no other proof":                 {[]verdict.Finding{proof(a)}, good, false, 1},
		"two proofs by one key":          {[]verdict.Finding{proof(a), proof(a)}, good, false, 1},
		"the other record fails":         {[]verdict.Finding{proof(a), failed}, good, false, 1},
		"the other key is disabled":      {[]verdict.Finding{proof(a), proof(b)}, disabled, false, 2},
		"the other key proves":           {[]verdict.Finding{proof(a), proof(b)}, good, true, 2},
		"the other key has proven first": {[]verdict.Finding{proof(b), proof(a)}, good, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			state := states(map[signature.KeyID]verdict.Key{b: test.key})
			got, err := verdict.Decide(verdict.Evidence{Findings: test.findings, Records: 2}, set(t, a, b), func(id signature.KeyID) (verdict.Key, error) {
				asked++
				return state(id)
			})
			switch {
			case asked != test.asked:
				t.Errorf("asked for %d states, want %d", asked, test.asked)
			case test.signed:
				if err != nil || !got.Signed() || got.Key != b.String() {
					t.Errorf("got %+v, %v", got, err)
				}
			case !errors.Is(err, errUnknown) || !reflect.ValueOf(got).IsZero():
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestZeroVerdictSaysNo(t *testing.T) {
	text, err := json.Marshal(verdict.Verdict{})
	if got, want := string(text), `{"signed":false,"reason":""}`; err != nil || got != want || (verdict.Verdict{}).Signed() {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

// A verdict is written the same way alone and among other fields. Escaping is the
// encoder's work.
func TestVerdictJSON(t *testing.T) {
	v := verdict.Verdict{Reason: verdict.Signed, Key: "k", KeyVersion: "v", Signature: "<s>", Algorithm: "a", SignedAt: "t"}
	const members = `"signed":true,"reason":"signed","key":"k","keyVersion":"v","signature":"<s>","algorithm":"a","signedAt":"t"}`
	for want, value := range map[string]any{
		`{` + members: v,
		`{"image":"i",` + members: struct {
			Image string `json:"image"`
			verdict.Members
		}{"i", v.Members()},
	} {
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(value); err != nil || strings.TrimSpace(b.String()) != want {
			t.Errorf("got %s, %v; want %s", b.String(), err, want)
		}
	}
}

// If two records fail for the same reason, the newest one is reported.
func TestTheNewestFailureIsReported(t *testing.T) {
	a := keyID(t, "a")
	allowed, err := signature.NewKeySet(a)
	if err != nil {
		t.Fatal(err)
	}
	failed := func(record string) verdict.Finding {
		return verdict.Finding{Reason: verdict.WrongImage, Detail: "because of the " + record, Key: a, Signature: record}
	}
	got, err := verdict.Decide(verdict.Evidence{Records: 2, Findings: []verdict.Finding{failed("newest"), failed("oldest")}}, allowed, nil)
	if err != nil || got.Detail != "because of the newest" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A record without a time is shown without a time.
func TestNoTimeIsShown(t *testing.T) {
	a, v := keyID(t, "a"), versionID(t, "v1")
	allowed, err := signature.NewKeySet(a)
	if err != nil {
		t.Fatal(err)
	}
	state := func(signature.KeyID) (verdict.Key, error) {
		return verdict.Key{ID: a, State: verdict.Enabled, Algorithm: "RSA", Versions: map[signature.KeyVersionID]string{v: verdict.Enabled}}, nil
	}
	got, err := verdict.Decide(verdict.Evidence{Records: 1, Findings: []verdict.Finding{{Reason: verdict.Signed, Key: a, Version: v}}}, allowed, state)
	if err != nil || !got.Signed() || got.SignedAt != "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestProveSaysWhatFails(t *testing.T) {
	rec := signature.Record{ID: "ocid1.containerimagesignature.oc1.iad.0.ns.grtdobwfza", Algorithm: "SHA_3"}
	f := verdict.Prove(image.Pinned{}, rec, keyID(t, "a"), versionID(t, "v1"), nil)
	if f.Reason != verdict.BadSignature || !strings.HasPrefix(f.Detail, "signature …grtdobwfza by key …aaaaaaaaaa: bad signature: ") {
		t.Errorf("got %+v", f)
	}
}
