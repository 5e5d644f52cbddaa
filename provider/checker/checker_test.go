package checker_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// world is the content of OCI for a Checker. It counts calls. A call with an entry
// in fail returns that error.
type world struct {
	t         *testing.T
	mu        sync.Mutex
	now       time.Time
	records   []signature.Record
	exists    bool
	covered   bool
	truncated bool
	keys      map[signature.KeyID]verdict.Key
	public    map[signature.KeyVersionID]*rsa.PublicKey
	fail      map[string]error // by call, "Key a"
	calls     map[string]int

	bulk    []signature.Record
	bulkAge time.Duration
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), exists: true, covered: true,
		keys: make(map[signature.KeyID]verdict.Key), public: make(map[signature.KeyVersionID]*rsa.PublicKey),
		fail: make(map[string]error), calls: make(map[string]int),
	}
}

func (w *world) call(name string) error {
	w.calls[name]++
	return w.fail[name]
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func (w *world) pass(d time.Duration) { w.change(func() { w.now = w.now.Add(d) }) }

func (w *world) count(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls[name]
}

func (w *world) checker() *checker.Checker { return checker.New(w.config()) }

func (w *world) config() checker.Config {
	return checker.Config{Images: w, Keys: w, Now: func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.now
	}}
}

func (w *world) Covers(image.Region, string) bool { return w.covered }

func (w *world) Records(context.Context, image.Reference) ([]signature.Record, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.records, w.truncated, w.call("Records")
}

func (w *world) Bulk(context.Context, image.Reference, []signature.KeyID) ([]signature.Record, time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bulk, w.now.Add(-w.bulkAge)
}

func (w *world) Exists(context.Context, image.Reference) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.exists, w.call("Exists")
}

func (w *world) KeyState(_ context.Context, id signature.KeyID) (verdict.Key, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k, ok := w.keys[id]
	if !ok {
		k = verdict.Key{ID: id, State: verdict.NotFound}
	}
	return k, w.call("Key " + id.Short()[len("…"):][:1])
}

func (w *world) PublicKey(_ context.Context, _ signature.KeyID, version signature.KeyVersionID) (*rsa.PublicKey, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.public[version] == nil {
		w.t.Errorf("asked for the public key of %s", version)
	}
	return w.public[version], w.call("PublicKey")
}

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

func set(t testing.TB, keys ...signature.KeyID) signature.KeySet {
	t.Helper()
	s, err := signature.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pin(t testing.TB, ref image.Reference) image.Pinned {
	t.Helper()
	img, ok := ref.Pinned()
	if !ok {
		t.Fatalf("%s pins no image", ref)
	}
	return img
}

// private caches private keys by letter, because making them is slow.
var private = func() func(string) *rsa.PrivateKey {
	var mu sync.Mutex
	keys := make(map[string]*rsa.PrivateKey)
	return func(letter string) *rsa.PrivateKey {
		mu.Lock()
		defer mu.Unlock()
		if keys[letter] == nil {
			k, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				panic(err)
			}
			keys[letter] = k
		}
		return keys[letter]
	}
}()

// addKey adds an enabled RSA key with one version to the vault.
func (w *world) addKey(letter string) signature.KeyID {
	id, version := keyID(w.t, letter), versionID(w.t, letter+"1")
	w.keys[id] = verdict.Key{ID: id, State: verdict.Enabled, Algorithm: "RSA",
		Versions: map[signature.KeyVersionID]string{version: verdict.Enabled}}
	w.public[version] = &private(letter).PublicKey
	return id
}

// sign returns an honest signature record for ref by a key.
func (w *world) sign(letter string, ref image.Reference) signature.Record {
	w.t.Helper()
	m := signature.Message{
		ImageDigest: ref.Digest(), RepositoryName: ref.Repository(), Region: ref.Region().ID(),
		KeyID: keyID(w.t, letter).String(), KeyVersionID: versionID(w.t, letter+"1").String(), Algorithm: string(signature.SHA256),
	}
	text := m.Encode()
	h := crypto.SHA256.New()
	h.Write(text)
	sig, err := rsa.SignPSS(rand.Reader, private(letter), crypto.SHA256, h.Sum(nil), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return signature.Record{
		ID: "ocid1.containerimagesignature.oc1.iad.0.ns." + letter + "signature", KeyID: m.KeyID, KeyVersionID: m.KeyVersionID, Algorithm: m.Algorithm,
		Message: base64.StdEncoding.EncodeToString(text), Signature: base64.StdEncoding.EncodeToString(sig),
		State: signature.StateAvailable, TimeCreated: w.now,
	}
}

func reference(t testing.TB, digit string) image.Reference {
	t.Helper()
	ref, err := image.Parse("iad.ocir.io/ns/web@sha256:" + strings.Repeat(digit, 64))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestVectors(t *testing.T) {
	data, err := os.ReadFile("../signature/testdata/signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Name, Image, Want string
			AllowedKeys       []string
			PublicKey         string `json:"publicKeyPEM"`
			Record            struct {
				KeyID        string `json:"kmsKeyId"`
				KeyVersionID string `json:"kmsKeyVersionId"`
				Algorithm    string `json:"signingAlgorithm"`
				Message      string
				Signature    string
				State        string `json:"lifecycleState"`
			}
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			w := newWorld(t)
			ref, err := image.Parse(v.Image)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := signature.ParsePublicKey(v.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			version, err := signature.ParseKeyVersionID(v.Record.KeyVersionID)
			if err != nil {
				t.Fatal(err)
			}
			var allowed []signature.KeyID
			for _, s := range v.AllowedKeys {
				id, err := signature.ParseKeyID(s)
				if err != nil {
					t.Fatal(err)
				}
				allowed = append(allowed, id)
				w.keys[id] = verdict.Key{ID: id, State: verdict.Enabled, Algorithm: "RSA",
					Versions: map[signature.KeyVersionID]string{version: verdict.Enabled}}
			}
			w.public[version] = pub
			r := v.Record
			w.records = []signature.Record{{KeyID: r.KeyID, KeyVersionID: r.KeyVersionID, Algorithm: r.Algorithm,
				Message: r.Message, Signature: r.Signature, State: r.State}}
			got, err := w.checker().Check(t.Context(), pin(t, ref), set(t, allowed...))
			if err != nil || string(got.Reason) != v.Want || got.Signed() != (v.Want == "signed") {
				t.Errorf("got %+v, %v; want %s", got, err, v.Want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	ref, other := reference(t, "1"), reference(t, "2")
	broken := errors.New("OCI fails")
	for name, test := range map[string]struct {
		arrange func(*world)
		want    verdict.Reason // empty: an error
	}{
		"no record":                 {func(w *world) {}, verdict.Unsigned},
		"no image":                  {func(w *world) { w.exists = false }, verdict.ImageNotFound},
		"not covered":               {func(w *world) { w.covered = false }, verdict.NotCovered},
		"a good record":             {func(w *world) { w.records = append(w.records, w.sign("a", ref)) }, verdict.Signed},
		"the second allowed key":    {func(w *world) { w.records = append(w.records, w.sign("b", ref)) }, verdict.Signed},
		"a key that is not allowed": {func(w *world) { w.records = append(w.records, w.sign("c", ref)) }, verdict.KeyNotAllowed},
		"a record of another image": {func(w *world) { w.records = append(w.records, w.sign("a", other)) }, verdict.WrongImage},
		"a bad record before a good one": {func(w *world) {
			w.records = append(w.records, w.sign("a", other), w.sign("c", ref), w.sign("b", ref))
		}, verdict.Signed},
		"a bad record after a good one": {func(w *world) {
			w.records = append(w.records, w.sign("b", ref), w.sign("a", other), signature.Record{State: "AVAILABLE"})
		}, verdict.Signed},
		"a record of an unknown algorithm before": {func(w *world) {
			odd := w.sign("a", ref)
			odd.Algorithm = "SHA_3"
			w.records = append(w.records, odd, w.sign("a", ref))
		}, verdict.Signed},
		"a deleted record": {func(w *world) {
			gone := w.sign("a", ref)
			gone.State = "DELETED"
			w.records = append(w.records, gone)
		}, verdict.Unsigned},
		"an empty record": {func(w *world) { w.records = append(w.records, signature.Record{State: "AVAILABLE"}) }, verdict.KeyNotAllowed},
		"a version with a path": {func(w *world) {
			rec := w.sign("a", ref)
			rec.KeyVersionID = "ocid1.keyversion.oc1/../../keys/x"
			w.records = append(w.records, rec)
		}, verdict.KeyUnusable},
		"an unlisted version": {func(w *world) {
			rec := w.sign("a", ref)
			rec.KeyVersionID = versionID(w.t, "z9").String()
			w.records = append(w.records, rec)
		}, verdict.KeyUnusable},
		"a version of the other allowed key": {func(w *world) {
			rec := w.sign("a", ref)
			rec.KeyVersionID = versionID(w.t, "b1").String()
			w.records = append(w.records, rec)
		}, verdict.KeyUnusable},
		"the key is disabled": {func(w *world) {
			w.records = append(w.records, w.sign("a", ref))
			k := w.keys[keyID(w.t, "a")]
			k.State = "DISABLED"
			w.keys[k.ID] = k
		}, verdict.KeyUnusable},
		"the key is gone": {func(w *world) {
			w.records = append(w.records, w.sign("a", ref))
			delete(w.keys, keyID(w.t, "a"))
		}, verdict.KeyUnusable},
		"one key is disabled, the other proves": {func(w *world) {
			w.records = append(w.records, w.sign("a", ref), w.sign("b", ref))
			k := w.keys[keyID(w.t, "a")]
			k.State = "DISABLED"
			w.keys[k.ID] = k
		}, verdict.Signed},
		"records cannot be listed":         {func(w *world) { w.fail["Records"] = broken }, ""},
		"the image cannot be looked up":    {func(w *world) { w.fail["Exists"] = broken }, ""},
		"the key cannot be fetched":        {func(w *world) { w.records = append(w.records, w.sign("a", ref)); w.fail["Key a"] = broken }, ""},
		"the public key cannot be fetched": {func(w *world) { w.records = append(w.records, w.sign("a", ref)); w.fail["PublicKey"] = broken }, ""},
		"one key cannot be fetched, the other does not prove": {func(w *world) {
			w.records = append(w.records, w.sign("a", ref), w.sign("b", other))
			w.fail["Key a"] = broken
		}, ""},
		"one key cannot be fetched, the other proves": {func(w *world) {
			w.records = append(w.records, w.sign("a", ref), w.sign("b", ref))
			w.fail["Key a"] = broken
		}, verdict.Signed},
		"a key that is not allowed is never fetched": {func(w *world) {
			w.records = append(w.records, w.sign("c", ref))
			w.fail["Key c"] = broken
		}, verdict.KeyNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.addKey("a"), w.addKey("b")
			w.addKey("c")
			test.arrange(w)
			got, err := w.checker().Check(t.Context(), pin(t, ref), set(t, a, b))
			switch {
			case test.want == "":
				if !errors.Is(err, broken) || !reflect.ValueOf(got).IsZero() {
					t.Errorf("got %+v, %v; want the error", got, err)
				}
			case err != nil || got.Reason != test.want || got.Signed() != (test.want == verdict.Signed):
				t.Errorf("got %+v, %v; want %s", got, err, test.want)
			case (got.Detail == "") != got.Signed():
				t.Errorf("detail %q", got.Detail)
			}
		})
	}
}

// A reference without a digest is denied, whatever the evidence is. So is an image
// without allowed keys.
func TestZeroValuesAreDenied(t *testing.T) {
	ref := reference(t, "1")
	w := newWorld(t)
	a := w.addKey("a")
	w.records = append(w.records, w.sign("a", ref))
	c := w.checker()
	got, err := c.Check(t.Context(), image.Pinned{}, set(t, a))
	if err != nil || got.Reason != verdict.NoDigest || got.RetryAfter != 0 || len(w.calls) > 0 {
		t.Errorf("no image: got %+v, %v, calls %v", got, err, w.calls)
	}
	if got, err = c.Check(t.Context(), pin(t, ref), signature.KeySet{}); err != nil || got.Reason != verdict.KeyNotAllowed || w.calls["PublicKey"] > 0 {
		t.Errorf("no key: got %+v, %v, calls %v", got, err, w.calls)
	}
}

func TestHowOldAnAnswerCanBe(t *testing.T) {
	ref := reference(t, "1")
	start := func(t *testing.T) (*world, func() checker.Answer) {
		w := newWorld(t)
		w.addKey("a")
		w.addKey("b")
		c := w.checker()
		t.Cleanup(c.Wait)
		return w, func() checker.Answer {
			t.Helper()
			allowed := set(t, keyID(t, "a"), keyID(t, "b"))
			known, ok := c.Cached(t.Context(), pin(t, ref), allowed)
			v, err := c.Check(t.Context(), pin(t, ref), allowed)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				if diff := cmp.Diff(v, known); diff != "" {
					t.Errorf("the cached answer differs (-checked +cached):\n%s", diff)
				}
			}
			if again, ok := c.Cached(t.Context(), pin(t, ref), allowed); !ok || !reflect.DeepEqual(again, v) {
				t.Errorf("the last answer is not cached: %+v, %t, want %+v", again, ok, v)
			}
			return v
		}
	}

	t.Run("a new signature counts after 30 s", func(t *testing.T) {
		w, check := start(t)
		if v := check(); v.Signed() || v.RetryAfter != 30*time.Second {
			t.Fatalf("got %+v", v)
		}
		w.change(func() { w.records = append(w.records, w.sign("a", ref)) })
		w.pass(30*time.Second + 1)
		if v := check(); !v.Signed() || v.RetryAfter != 0 {
			t.Errorf("got %+v", v)
		}
	})
	t.Run("a deleted record stops counting after 10 min", func(t *testing.T) {
		w, check := start(t)
		w.records = append(w.records, w.sign("a", ref))
		if !check().Signed() {
			t.Fatal("not signed")
		}
		w.change(func() { w.records = nil })
		w.pass(10*time.Minute + 1)
		if v := check(); v.Signed() {
			t.Errorf("got %+v", v)
		}
	})
	t.Run("a disabled key stops counting after 60 s", func(t *testing.T) {
		w, check := start(t)
		w.records = append(w.records, w.sign("a", ref))
		if !check().Signed() {
			t.Fatal("not signed")
		}
		w.change(func() {
			k := w.keys[keyID(t, "a")]
			k.State = "DISABLED"
			w.keys[k.ID] = k
		})
		w.pass(60*time.Second + 1)
		if v := check(); v.Signed() || v.Reason != verdict.KeyUnusable {
			t.Errorf("got %+v", v)
		}
		w.change(func() { w.records = append(w.records, w.sign("b", ref)) })
		w.pass(30*time.Second + 1)
		if v := check(); !v.Signed() {
			t.Errorf("a new signature by another key does not count: %+v", v)
		}
	})
	t.Run("a key enabled again counts after 30 s", func(t *testing.T) {
		w, check := start(t)
		w.records = append(w.records, w.sign("a", ref))
		k := w.keys[keyID(t, "a")]
		disabled := k
		disabled.State = "DISABLED"
		w.keys[k.ID] = disabled
		if check().Signed() {
			t.Fatal("signed")
		}
		w.change(func() { w.keys[k.ID] = k })
		w.pass(30*time.Second + 1)
		if v := check(); !v.Signed() {
			t.Errorf("got %+v", v)
		}
	})
	t.Run("a signature by a new version counts after 30 s", func(t *testing.T) {
		w, check := start(t)
		a := keyID(t, "a")
		rec := w.sign("a", ref)
		w.change(func() { w.records = []signature.Record{w.sign("c", ref)} })
		old := w.keys[a]
		rotatedAway := old
		rotatedAway.Versions = map[signature.KeyVersionID]string{versionID(t, "a0"): verdict.Enabled}
		w.change(func() {
			w.keys[a] = rotatedAway
			bad := rec
			bad.KeyVersionID = "ocid1.keyversion.none"
			w.records = []signature.Record{bad} // so that the key is fetched
		})
		if check().Signed() {
			t.Fatal("signed")
		}
		w.change(func() { w.keys[a], w.records = old, []signature.Record{rec} })
		w.pass(30*time.Second + 1)
		if v := check(); !v.Signed() {
			t.Errorf("got %+v", v)
		}
	})
	t.Run("errors are not cached", func(t *testing.T) {
		w := newWorld(t)
		a := w.addKey("a")
		w.records = append(w.records, w.sign("a", ref))
		c := w.checker()
		for _, call := range []string{"Records", "Key a", "PublicKey"} {
			w.change(func() { w.fail = map[string]error{call: errors.New("no")} })
			if v, err := c.Check(t.Context(), pin(t, ref), set(t, a)); err == nil || v.Signed() {
				t.Fatalf("%s fails: got %+v, %v", call, v, err)
			}
		}
		w.change(func() { w.fail = nil })
		if v, err := c.Check(t.Context(), pin(t, ref), set(t, a)); err != nil || !v.Signed() {
			t.Errorf("got %+v, %v", v, err)
		}
	})
	t.Run("an incomplete yes is gathered again after 30 s", func(t *testing.T) {
		w, check := start(t)
		w.records = append(w.records, w.sign("a", ref), w.sign("b", ref))
		w.fail["Key a"] = errors.New("no")
		if !check().Signed() {
			t.Fatal("not signed")
		}
		w.pass(30*time.Second + 1)
		if !check().Signed() || w.count("Records") != 2 {
			t.Errorf("calls %v", w.calls)
		}
	})
	t.Run("an incomplete yes is cached only for a short time", func(t *testing.T) {
		w, check := start(t)
		w.records = append(w.records, w.sign("a", ref), w.sign("b", ref))
		w.fail["Key a"] = errors.New("no")
		if !check().Signed() {
			t.Fatal("not signed")
		}
		w.change(func() {
			w.fail = nil
			k := w.keys[keyID(t, "b")]
			k.State = "DISABLED"
			w.keys[k.ID] = k
		})
		w.pass(61 * time.Second)
		if v := check(); !v.Signed() || v.Key != keyID(t, "a").String() {
			t.Errorf("got %+v", v)
		}
	})
}

func TestCallsDoNotGrow(t *testing.T) {
	ref := reference(t, "1")
	t.Run("with records that name distinct versions", func(t *testing.T) {
		w := newWorld(t)
		a := w.addKey("a")
		for i := range 199 {
			rec := w.sign("a", ref)
			rec.KeyVersionID = fmt.Sprintf("ocid1.keyversion.oc1.iad.hostile%d", i)
			w.records = append(w.records, rec)
		}
		w.records = append(w.records, w.sign("a", ref))
		v, err := w.checker().Check(t.Context(), pin(t, ref), set(t, a))
		if err != nil || !v.Signed() {
			t.Fatalf("got %+v, %v", v, err)
		}
		if w.calls["Records"] != 1 || w.calls["Key a"] != 1 || w.calls["PublicKey"] != 1 {
			t.Errorf("calls %v", w.calls)
		}
	})
	t.Run("with requests at once", func(t *testing.T) {
		w := newWorld(t)
		a := w.addKey("a")
		w.records = append(w.records, w.sign("a", ref))
		c := w.checker()
		var group sync.WaitGroup
		var signed atomic.Int64
		for range 100 {
			group.Go(func() {
				if v, err := c.Check(t.Context(), pin(t, ref), set(t, a)); err == nil && v.Signed() {
					signed.Add(1)
				}
			})
		}
		group.Wait()
		if signed.Load() != 100 || w.count("Records") != 1 || w.count("Key a") != 1 || w.count("PublicKey") != 1 {
			t.Errorf("%d signed, calls %v", signed.Load(), w.calls)
		}
	})
	t.Run("with the order of the keys, the host or the tag", func(t *testing.T) {
		w := newWorld(t)
		a, b := w.addKey("a"), w.addKey("b")
		c := w.checker()
		alias, err := image.Parse("ocir.us-ashburn-1.oci.oraclecloud.com/ns/web:v1@" + ref.Digest())
		if err != nil {
			t.Fatal(err)
		}
		for _, ref := range []image.Reference{ref, alias} {
			for _, keys := range [][]signature.KeyID{{a, b}, {b, a}, {a, b, a}} {
				if _, err := c.Check(t.Context(), pin(t, ref), set(t, keys...)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if w.calls["Records"] != 1 {
			t.Errorf("calls %v", w.calls)
		}
		if _, err := c.Check(t.Context(), pin(t, ref), set(t, a)); err != nil || w.calls["Records"] != 2 {
			t.Errorf("another set of keys shares the answer: calls %v, %v", w.calls, err)
		}
	})
}

// Records from lists of several images are enough for a yes, and never for a denial.
func TestBulk(t *testing.T) {
	ref, other := reference(t, "1"), reference(t, "2")
	for name, test := range map[string]struct {
		bulk, single []string // keys that have signed; "!" is a record of another image
		want         verdict.Reason
		asked        int // Records
		atLeast      int // keys that must sign, if more than one
	}{
		"two proofs, and two must sign":    {[]string{"a", "b"}, nil, verdict.Signed, 0, 2},
		"one proof, and two must sign":     {[]string{"a"}, []string{"a", "b"}, verdict.Signed, 1, 2},
		"one key twice, and two must sign": {[]string{"a", "a"}, []string{"a", "a"}, verdict.TooFewKeys, 1, 2},
		"a proof":                          {[]string{"a"}, nil, verdict.Signed, 0, 0},
		"a proof among others":             {[]string{"c", "!", "b"}, nil, verdict.Signed, 0, 0},
		"no record, and there is none":     {nil, nil, verdict.Unsigned, 1, 0},
		"no record, and there is one":      {nil, []string{"a"}, verdict.Signed, 1, 0},
		"another key, and there are more":  {[]string{"c"}, []string{"c", "a"}, verdict.Signed, 1, 0},
		"another key":                      {[]string{"c"}, []string{"c"}, verdict.KeyNotAllowed, 1, 0},
		"another image's, which is gone":   {[]string{"!"}, []string{"c"}, verdict.KeyNotAllowed, 1, 0},
		"another image's":                  {[]string{"!"}, []string{"!"}, verdict.WrongImage, 1, 0},
		"a disabled key":                   {[]string{"d"}, []string{"d"}, verdict.KeyUnusable, 1, 0},
		"a disabled key, and a good one":   {[]string{"d"}, []string{"d", "a"}, verdict.Signed, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			allowed := set(t, w.addKey("a"), w.addKey("b"), w.addKey("d"))
			w.addKey("c")
			k := w.keys[keyID(t, "d")]
			k.State = "DISABLED"
			w.keys[k.ID] = k
			records := func(by []string) (made []signature.Record) {
				for _, letter := range by {
					if letter == "!" {
						made = append(made, w.sign("a", other))
					} else {
						made = append(made, w.sign(letter, ref))
					}
				}
				return made
			}
			w.records = records(test.single)
			w.bulk = records(test.bulk)
			w.bulkAge = 20 * time.Second
			if test.atLeast > 0 {
				var err error
				if allowed, err = allowed.WithAtLeast(test.atLeast); err != nil {
					t.Fatal(err)
				}
			}
			got, err := w.checker().Check(t.Context(), pin(t, ref), allowed)
			if err != nil || got.Reason != test.want || w.calls["Records"] != test.asked {
				t.Errorf("got %+v, %v; calls %v", got, err, w.calls)
			}
			if age := time.Duration(1-test.asked) * w.bulkAge; got.Age != age {
				t.Errorf("%s old, want %s", got.Age, age)
			}
		})
	}
	t.Run("a yes is as old as its evidence", func(t *testing.T) {
		w := newWorld(t)
		a := w.addKey("a")
		w.bulk, w.bulkAge = []signature.Record{w.sign("a", ref)}, 20*time.Second
		c := w.checker()
		signed := func() bool {
			v, err := c.Check(t.Context(), pin(t, ref), set(t, a))
			if err != nil {
				t.Fatal(err)
			}
			c.Wait()
			return v.Signed()
		}
		if !signed() {
			t.Fatal("not signed")
		}
		w.change(func() { w.bulk, w.fail["Records"] = nil, errors.New("not now") })
		w.pass(10*time.Minute - 20*time.Second - 1)
		if !signed() {
			t.Error("dropped too early")
		}
		w.change(func() { w.fail = nil })
		w.pass(1)
		if signed() {
			t.Error("signed for too long")
		}
	})
}

// A question that asks for two keys gets a yes only from both. Its denial is cached no longer
// than any other, so that the second signature counts soon, and it shares no answer with the
// question that asks for one.
func TestCheckByCount(t *testing.T) {
	w := newWorld(t)
	one := set(t, w.addKey("a"), w.addKey("b"))
	two, err := one.WithAtLeast(2)
	if err != nil {
		t.Fatal(err)
	}
	ref := reference(t, "1")
	w.records = []signature.Record{w.sign("a", ref)}
	c := w.checker()
	t.Cleanup(c.Wait)
	check := func(allowed signature.KeySet, want verdict.Reason, by int) {
		t.Helper()
		got, err := c.Check(t.Context(), pin(t, ref), allowed)
		if err != nil || got.Reason != want || len(got.By) != by {
			t.Errorf("got %+v, %v; want %s by %d", got, err, want, by)
		}
	}
	check(one, verdict.Signed, 0)
	check(two, verdict.TooFewKeys, 1)
	w.change(func() { w.records = append(w.records, w.sign("b", ref)) })
	check(two, verdict.TooFewKeys, 1) // from the cache
	w.pass(31 * time.Second)
	check(two, verdict.Signed, 2)
	check(one, verdict.Signed, 0)
	w.disable("b")
	w.pass(61 * time.Second)
	check(two, verdict.TooFewKeys, 1)
	check(one, verdict.Signed, 0)

	w.change(func() { w.fail["Key b"] = errors.New("not now") })
	w.pass(61 * time.Second)
	check(one, verdict.Signed, 0)
	if got, err := c.Check(t.Context(), pin(t, ref), two); err == nil {
		t.Errorf("got %+v although the state of a key is not known", got)
	}
}

// Records beyond the limit cost no more calls, and the answer mentions them.
func TestTruncated(t *testing.T) {
	ref := reference(t, "1")
	for name, test := range map[string]struct {
		records   int
		truncated bool // as the registry says
		want      bool
	}{
		"249":                                {249, false, false},
		"250":                                {250, false, false},
		"250 of more":                        {250, true, true},
		"251 although Images promises fewer": {251, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a := w.addKey("a")
			w.addKey("c")
			other := w.sign("c", ref)
			for range test.records {
				w.records = append(w.records, other)
			}
			w.truncated = test.truncated
			got, err := w.checker().Check(t.Context(), pin(t, ref), set(t, a))
			if err != nil || got.Signed() || got.Truncated != test.want || strings.Contains(got.Detail, "more records") != test.want ||
				!strings.HasPrefix(got.Detail, fmt.Sprintf("%d signatures", min(test.records, 250))) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

// broken is a world in which some calls run a function of the test.
type broken struct {
	*world
	records   func() ([]signature.Record, bool, error)
	bulk      func() ([]signature.Record, time.Time)
	exists    func() (bool, error)
	key       func() (verdict.Key, error)
	publicKey func() (*rsa.PublicKey, error)
}

func (b broken) Records(ctx context.Context, ref image.Reference) ([]signature.Record, bool, error) {
	if b.records != nil {
		return b.records()
	}
	return b.world.Records(ctx, ref)
}

func (b broken) Bulk(ctx context.Context, ref image.Reference, keys []signature.KeyID) ([]signature.Record, time.Time) {
	if b.bulk != nil {
		return b.bulk()
	}
	return b.world.Bulk(ctx, ref, keys)
}

func (b broken) Exists(ctx context.Context, ref image.Reference) (bool, error) {
	if b.exists != nil {
		return b.exists()
	}
	return b.world.Exists(ctx, ref)
}

func (b broken) KeyState(ctx context.Context, id signature.KeyID) (verdict.Key, error) {
	if b.key != nil {
		return b.key()
	}
	return b.world.KeyState(ctx, id)
}

func (b broken) PublicKey(ctx context.Context, id signature.KeyID, version signature.KeyVersionID) (*rsa.PublicKey, error) {
	if b.publicKey != nil {
		return b.publicKey()
	}
	return b.world.PublicKey(ctx, id, version)
}

// TestAPanicIsOneQuestionsError makes the verification of a record panic, and each
// function of a Checker's Config.
func TestAPanicIsOneQuestionsError(t *testing.T) {
	for name, b := range map[string]broken{
		"proving":                   {publicKey: func() (*rsa.PublicKey, error) { return nil, nil }},
		"the records":               {records: func() ([]signature.Record, bool, error) { panic("a secret") }},
		"a key":                     {key: func() (verdict.Key, error) { panic("a secret") }},
		"whether there is an image": {exists: func() (bool, error) { panic("a secret") }},
		"the lists":                 {bulk: func() ([]signature.Record, time.Time) { panic("a secret") }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			id := w.addKey("a")
			if b.exists == nil {
				w.records = []signature.Record{w.sign("a", reference(t, "1"))}
			}
			b.world = w
			cfg := w.config()
			cfg.Images, cfg.Keys = b, b
			var told []*contain.PanicError
			cfg.Panicked = func(p *contain.PanicError) { told = append(told, p) }
			c := checker.New(cfg)
			v, err := c.Check(t.Context(), pin(t, reference(t, "1")), set(t, id))
			if p, ok := errors.AsType[*contain.PanicError](err); !ok || v.Signed() || strings.Contains(err.Error(), "secret") || len(told) != 1 || told[0] != p {
				t.Errorf("got %+v, %v, told %v", v, err, told)
			}
			if v, ok := c.Cached(t.Context(), pin(t, reference(t, "1")), set(t, id)); ok {
				t.Errorf("cached: %+v", v)
			}
			c.Wait()
		})
	}
}
