package verdict_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	yes := verdict.Verdict{Signed: true, Reason: verdict.Signed, Key: a.String(), KeyVersion: v1.String(), Signature: proof.Signature,
		Algorithm: "SHA_256_RSA_PKCS_PSS", SignedAt: "2021-12-21T07:02:58Z"}
	no := func(r verdict.Reason, detail string) verdict.Verdict {
		return verdict.Verdict{Reason: r, Detail: detail}
	}
	because := "signature …grtdobwfza by key …aaaaaaaaaa: because"
	findings := func(f ...verdict.Finding) verdict.Evidence {
		return verdict.Evidence{Records: len(f), Findings: f}
	}

	for name, test := range map[string]struct {
		ev      verdict.Evidence
		allowed []signature.KeyID
		keys    map[signature.KeyID]verdict.Key
		want    verdict.Verdict
	}{
		"a proof":                       {findings(proof), []signature.KeyID{a}, both, yes},
		"a proof after failures":        {findings(failed(verdict.WrongImage), failed(verdict.BadSignature), proof), []signature.KeyID{b, a}, both, yes},
		"a proof before failures":       {findings(proof, failed(verdict.WrongImage)), []signature.KeyID{a}, both, yes},
		"nothing known":                 {verdict.Evidence{}, []signature.KeyID{a}, both, no(verdict.Unsigned, "no signature")},
		"no image":                      {verdict.Evidence{Missing: true}, []signature.KeyID{a}, both, no(verdict.ImageNotFound, "no such image, or this principal may not read it")},
		"deleted records only":          {verdict.Evidence{Unusable: 2}, []signature.KeyID{a}, both, no(verdict.Unsigned, "no signature; 2 records not available")},
		"a proof by a key not allowed":  {findings(proof), []signature.KeyID{b}, both, no(verdict.KeyUnusable, "the state of key …aaaaaaaaaa is not known")},
		"no key is allowed":             {findings(proof), nil, both, no(verdict.KeyUnusable, "the state of key …aaaaaaaaaa is not known")},
		"the key's state is not known":  {findings(proof), []signature.KeyID{a}, nil, no(verdict.KeyUnusable, "the state of key …aaaaaaaaaa is not known")},
		"the key is disabled":           {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.State = "DISABLED" }), no(verdict.KeyUnusable, "key …aaaaaaaaaa is DISABLED")},
		"the key has no state":          {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.State = "" }), no(verdict.KeyUnusable, "key …aaaaaaaaaa is unknown")},
		"the key is gone":               {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.State = verdict.NotFound }), no(verdict.KeyUnusable, "OCI Vault does not find key …aaaaaaaaaa, or this principal may not read it")},
		"the key is no RSA key":         {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.Algorithm = "AES" }), no(verdict.KeyUnusable, "key …aaaaaaaaaa is an AES key, and images are signed with RSA keys")},
		"the version is not listed":     {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.Versions = nil }), no(verdict.KeyUnusable, "version …oc1.iad.v1 is not one of key …aaaaaaaaaa")},
		"another version is listed":     {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.Versions = map[signature.KeyVersionID]string{v2: verdict.Enabled} }), no(verdict.KeyUnusable, "version …oc1.iad.v1 is not one of key …aaaaaaaaaa")},
		"the version is to be deleted":  {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.Versions[v1] = "PENDING_DELETION" }), no(verdict.KeyUnusable, "version …oc1.iad.v1 of key …aaaaaaaaaa is PENDING_DELETION")},
		"a hostile state":               {findings(proof), []signature.KeyID{a}, with(func(k *verdict.Key) { k.State = "a\x1b[2J\n" }), no(verdict.KeyUnusable, "key …aaaaaaaaaa is a?[2J?")},
		"wrong image outranks the rest": {findings(failed(verdict.BadSignature), failed(verdict.WrongKey), failed(verdict.WrongImage)), []signature.KeyID{a}, both, no(verdict.WrongImage, because)},
		"wrong key outranks bad":        {findings(failed(verdict.BadSignature), failed(verdict.WrongKey)), []signature.KeyID{a}, both, no(verdict.WrongKey, because)},
		"bad outranks unusable":         {findings(failed(verdict.KeyUnusable), failed(verdict.BadSignature)), []signature.KeyID{a}, both, no(verdict.BadSignature, because)},
		"unusable outranks not allowed": {verdict.Evidence{Records: 2, OtherKeys: []string{"…x"}, Findings: []verdict.Finding{failed(verdict.KeyUnusable)}}, []signature.KeyID{a}, both, no(verdict.KeyUnusable, "because")},
		"a reason that nobody knows":    {findings(failed("yes")), []signature.KeyID{a}, both, no("yes", because)},
		"one other key":                 {verdict.Evidence{Records: 1, OtherKeys: []string{"…v3t6jcf64a"}}, []signature.KeyID{a}, both, no(verdict.KeyNotAllowed, "1 signature, by key …v3t6jcf64a; allowed: …aaaaaaaaaa")},
		"two other keys":                {verdict.Evidence{Records: 3, OtherKeys: []string{"…1", "…2"}}, []signature.KeyID{a, b}, both, no(verdict.KeyNotAllowed, "3 signatures, by keys …1 and …2; allowed: …aaaaaaaaaa, …bbbbbbbbbb")},
		"five other keys":               {verdict.Evidence{Records: 9, OtherKeys: []string{"1", "2", "3", "4", "5"}}, nil, both, no(verdict.KeyNotAllowed, "9 signatures, by keys 1, 2, 3 and 2 more; allowed: none")},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, verdict.Decide(test.ev, test.allowed, test.keys)); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("more records than were looked at", func(t *testing.T) {
		got := verdict.Decide(verdict.Evidence{Records: 250, OtherKeys: []string{"…1"}, Capped: true}, []signature.KeyID{a}, both)
		if got.Signed || !got.Capped || !strings.HasSuffix(got.Detail, "; the image has more records than are looked at") {
			t.Errorf("got %+v", got)
		}
	})
}

func TestZeroVerdictSaysNo(t *testing.T) {
	text, err := json.Marshal(verdict.Verdict{})
	if got, want := string(text), `{"signed":false,"reason":""}`; err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}
