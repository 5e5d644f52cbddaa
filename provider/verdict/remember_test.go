package verdict_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// A question that is kept small still is about the same image, and about no
// other.
func FuzzQuestion(f *testing.F) {
	digest := "@sha256:" + strings.Repeat("40", 32) // 0x40 is an @
	f.Add("iad.ocir.io/ns/app:v1"+digest, "ocir.us-ashburn-1.oci.oraclecloud.com/ns/app"+digest)
	f.Add("iad.ocir.io/ns/a/b"+digest, "phx.ocir.io/ns/a/b"+digest)
	f.Add("iad.ocir.io/ns/a/b"+digest, "iad.ocir.io/ns/a"+digest)
	f.Add("fra.ocir.io/ns/app@sha256:"+strings.Repeat("2f", 32), "fra.ocir.io/ns/app@sha256:"+strings.Repeat("2e", 32))
	f.Fuzz(func(t *testing.T, one, two string) {
		a, err := image.Parse(one)
		if err != nil || a.Digest() == "" {
			return
		}
		if got, err := verdict.Remembered(a); err != nil || got.Identity() != a.Identity() {
			t.Errorf("%s comes back as %s, %v", a, got, err)
		}
		b, err := image.Parse(two)
		if err != nil || b.Digest() == "" {
			return
		}
		if got, want := verdict.Same(a, b), a.Identity() == b.Identity(); got != want {
			t.Errorf("%s and %s: same %t, want %t", a, b, got, want)
		}
	})
}

// Whatever is found out, the decision on what is remembered of it is the
// decision on the whole.
func TestRememberingChangesNoDecision(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(n int) int { return r.IntN(n) }
	keys := make([]signature.KeyID, 3)
	for i := range keys {
		var err error
		if keys[i], err = signature.ParseKeyID("ocid1.key.oc1.iad.b5r7bu4kaaeug." + strings.Repeat(string(rune('a'+i)), 60)); err != nil {
			t.Fatal(err)
		}
	}
	versions := make([]signature.KeyVersionID, 3)
	for i := range versions {
		var err error
		if versions[i], err = signature.ParseKeyVersionID("ocid1.keyversion.oc1.iad." + string(rune('a'+i))); err != nil {
			t.Fatal(err)
		}
	}
	reasons := []verdict.Reason{verdict.Signed, verdict.Signed, verdict.Signed, verdict.WrongImage, verdict.WrongKey, verdict.BadSignature, verdict.KeyUnusable}
	states := []string{verdict.Enabled, verdict.Enabled, "DISABLED", verdict.NotFound}
	seen := make(map[verdict.Reason]bool)
	for range 20_000 {
		ev := verdict.Evidence{Records: pick(3), Unusable: pick(2), Missing: pick(4) == 0, Capped: pick(5) == 0}
		for range pick(4) {
			f := verdict.Finding{Reason: reasons[pick(len(reasons))], Key: keys[pick(3)], Version: versions[pick(3)],
				Signature: "ocid1.containerimagesignature." + string(rune('a'+pick(26))), Algorithm: string(signature.SHA256), SignedAt: time.Unix(int64(pick(1e9)), 0)}
			if f.Reason != verdict.Signed {
				f.Detail = "because " + string(rune('a'+pick(26)))
			}
			ev.Findings = append(ev.Findings, f)
		}
		now := make(map[signature.KeyID]verdict.Key)
		for _, id := range keys[:pick(4)] {
			k := verdict.Key{ID: id, State: states[pick(len(states))], Algorithm: "RSA", Versions: make(map[signature.KeyVersionID]string)}
			for _, v := range versions[:pick(4)] {
				k.Versions[v] = states[pick(len(states))]
			}
			now[id] = k
		}
		want := verdict.Decide(ev, keys, now)
		if diff := cmp.Diff(want, verdict.Decide(verdict.Recalled(ev), keys, now)); diff != "" {
			t.Fatalf("%+v: (-whole +remembered)\n%s", ev, diff)
		}
		seen[want.Reason] = true
	}
	if len(seen) < 8 {
		t.Errorf("only %v came up", seen)
	}
}
