package checker_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// The decision on cached evidence equals the decision on the evidence as gathered.
func TestCompactEvidenceDecidesTheSame(t *testing.T) {
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
	allowed, unknown := set(t, keys[:2]...), errors.New("not known")
	both, err := allowed.WithAtLeast(2)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[verdict.Reason]bool)
	for range 20_000 {
		ev := verdict.Evidence{Records: pick(3), Unusable: pick(2), Missing: pick(4) == 0, Truncated: pick(5) == 0}
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
		state := func(id signature.KeyID) (verdict.Key, error) {
			if k, ok := now[id]; ok {
				return k, nil
			}
			return verdict.Key{}, unknown
		}
		for _, rule := range []signature.KeySet{allowed, both} {
			want, wantErr := verdict.Decide(ev, rule, state)
			got, err := verdict.Decide(checker.Compacted(ev), rule, state)
			if diff := cmp.Diff(want, got); diff != "" || fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Fatalf("at least %d, %+v: %v, want %v (-whole +compact)\n%s", rule.AtLeast(), ev, err, wantErr, diff)
			}
			seen[want.Reason] = true
		}
	}
	if len(seen) < 9 || !seen[verdict.TooFewKeys] {
		t.Errorf("only %v came up", seen)
	}
}
