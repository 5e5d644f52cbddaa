package checker_test

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// disable disables a key of the vault.
func (w *world) disable(letter string) {
	w.change(func() {
		k := w.keys[keyID(w.t, letter)]
		k.State = "DISABLED"
		w.keys[k.ID] = k
	})
}

// checking returns a world with one image that key a has signed, and a Checker that
// has verified it.
func checking(t *testing.T) (w *world, c *checker.Checker, check func(digit string) (checker.Answer, error), cached func(digit string) (checker.Answer, bool)) {
	w = newWorld(t)
	a := w.addKey("a")
	w.records = []signature.Record{w.sign("a", reference(t, "1"))}
	c = w.checker()
	t.Cleanup(c.Wait)
	check = func(digit string) (checker.Answer, error) {
		return c.Check(t.Context(), pin(t, reference(t, digit)), set(t, a))
	}
	cached = func(digit string) (checker.Answer, bool) {
		return c.Cached(t.Context(), pin(t, reference(t, digit)), set(t, a))
	}
	if got, err := check("1"); err != nil || !got.Signed() {
		t.Fatal(got, err)
	}
	return w, c, check, cached
}

// Callers refresh a key after half of its TTL at the earliest.
func TestAKeyIsFetchedOnceAMinute(t *testing.T) {
	w, c, check, _ := checking(t)
	for _, step := range []struct {
		pass time.Duration
		want int
	}{{29 * time.Second, 1}, {32 * time.Second, 2}} {
		w.pass(step.pass)
		if got, err := check("1"); err != nil || !got.Signed() {
			t.Error(got, err)
		}
		c.Wait()
		if n := w.count("Key a"); n != step.want {
			t.Errorf("the key was fetched %d times, want %d", n, step.want)
		}
	}
}

// A key is fetched again for new versions in records, if its last fetch was more
// than half a minute ago.
func TestUnlistedVersionsAreFetchedAgain(t *testing.T) {
	w, _, check, _ := checking(t)
	for _, step := range []struct {
		digit string
		pass  time.Duration
		want  int
	}{{"2", 30 * time.Second, 1}, {"3", 1, 2}} {
		rec := w.sign("a", reference(t, step.digit))
		rec.KeyVersionID = versionID(t, "new").String()
		w.change(func() { w.records = []signature.Record{rec} })
		w.pass(step.pass)
		if got, err := check(step.digit); err != nil || got.Reason != verdict.KeyUnusable {
			t.Error(got, err)
		}
		if n := w.count("Key a"); n != step.want {
			t.Errorf("the key was fetched %d times, want %d", n, step.want)
		}
	}
}

// A key whose versions are all known is not fetched before its TTL ends.
func TestListedVersionsAreKnown(t *testing.T) {
	w, c, check, _ := checking(t)
	w.change(func() { w.records = []signature.Record{w.sign("a", reference(t, "2"))} })
	w.pass(30*time.Second + 1)
	if got, err := check("2"); err != nil || !got.Signed() {
		t.Error(got, err)
	}
	c.Wait()
	if n := w.count("Key a"); n != 1 {
		t.Errorf("the key was fetched %d times", n)
	}
}

// The Checker calls OCI Vault only for allowed keys that records name.
func TestKeysWithoutRecordsAreNotFetched(t *testing.T) {
	w := newWorld(t)
	a, b := w.addKey("a"), w.addKey("b")
	w.records = []signature.Record{w.sign("a", reference(t, "1"))}
	if got, err := w.checker().Check(t.Context(), pin(t, reference(t, "1")), set(t, a, b)); err != nil || !got.Signed() || w.count("Key b") != 0 {
		t.Errorf("got %+v, %v, calls %v", got, err, w.calls)
	}
}

// The answer shows the newest proof, by any of the keys.
func TestTheNewestProofIsShown(t *testing.T) {
	for newest, oldest := range map[string]string{"a": "b", "b": "a"} {
		w := newWorld(t)
		a, b := w.addKey("a"), w.addKey("b")
		old := w.sign(oldest, reference(t, "1"))
		old.TimeCreated = w.now.Add(-time.Hour)
		w.records = []signature.Record{w.sign(newest, reference(t, "1")), old}
		got, err := w.checker().Check(t.Context(), pin(t, reference(t, "1")), set(t, a, b))
		if err != nil || got.Key != keyID(t, newest).String() {
			t.Errorf("got %+v, %v; want key %s", got, err, newest)
		}
	}
}

func TestDenialsNameWhatIsWrong(t *testing.T) {
	ref := reference(t, "1")
	for want, letters := range map[string]string{
		"1 signature, by key …cccccccccc;":                                        "c",
		"2 signatures, by keys …cccccccccc and …dddddddddd;":                      "cd",
		"3 signatures, by keys …cccccccccc, …dddddddddd and …eeeeeeeeee;":         "cde",
		"4 signatures, by keys …cccccccccc, …dddddddddd, …eeeeeeeeee and 1 more;": "cdef",
		"signature …asignature names no version of key …aaaaaaaaaa":               "!",
	} {
		w := newWorld(t)
		a := w.addKey("a")
		for _, letter := range letters {
			if letter == '!' {
				rec := w.sign("a", ref)
				rec.KeyVersionID = "../x"
				w.records = append(w.records, rec)
			} else {
				w.records = append(w.records, w.sign(string(letter), ref))
			}
		}
		if got, err := w.checker().Check(t.Context(), pin(t, ref), set(t, a)); err != nil || !strings.HasPrefix(got.Detail, want) {
			t.Errorf("got %+v, %v; want %s", got, err, want)
		}
	}
}

// Incomplete evidence is gathered again soon. So is a denial.
func TestIncompleteEvidenceExpiresSoon(t *testing.T) {
	ref := reference(t, "1")
	for name, arrange := range map[string]func(*world){
		"an incomplete yes": func(w *world) {
			w.records = []signature.Record{w.sign("a", ref), w.sign("b", ref)}
			w.fail["Key a"] = errors.New("no")
		},
		"an incomplete yes from lists": func(w *world) {
			w.bulk = []signature.Record{w.sign("a", ref), w.sign("b", ref)}
			w.records = w.bulk
			w.fail["Key a"] = errors.New("no")
		},
		"a denial": func(*world) {},
	} {
		w := newWorld(t)
		a, b := w.addKey("a"), w.addKey("b")
		arrange(w)
		c := w.checker()
		for range 2 {
			if _, err := c.Check(t.Context(), pin(t, ref), set(t, a, b)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			c.Wait()
			w.pass(25 * time.Second) // renewed after 22 s at the latest
		}
		if n := w.count("Records"); n != 2 {
			t.Errorf("%s: the records were fetched %d times", name, n)
		}
	}
}

func TestErrorsAfterAYes(t *testing.T) {
	failed := errors.New("no")
	t.Run("a key that cannot be fetched again", func(t *testing.T) {
		w, _, check, _ := checking(t)
		w.change(func() { w.fail["Key a"] = failed })
		w.pass(61 * time.Second)
		if got, err := check("1"); !errors.Is(err, failed) || !reflect.ValueOf(got).IsZero() {
			t.Errorf("got %+v, %v", got, err)
		}
		if n := w.count("Records"); n != 1 {
			t.Errorf("the records were fetched %d times", n)
		}
	})
	t.Run("a disabled key, and records that cannot be listed", func(t *testing.T) {
		w, _, check, _ := checking(t)
		w.disable("a")
		w.change(func() { w.fail["Records"] = failed })
		w.pass(61 * time.Second)
		if got, err := check("1"); !errors.Is(err, failed) || !reflect.ValueOf(got).IsZero() {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

func TestWhatIsCached(t *testing.T) {
	t.Run("a yes for longer than a denial", func(t *testing.T) {
		w, _, _, cached := checking(t)
		w.pass(40 * time.Second)
		if got, ok := cached("1"); !ok || !got.Signed() {
			t.Errorf("got %+v, %t", got, ok)
		}
	})
	t.Run("no denial from an old yes", func(t *testing.T) {
		w, _, check, cached := checking(t)
		w.change(func() { w.records = append(w.records, w.sign("a", reference(t, "2"))) })
		w.disable("a")
		w.pass(61 * time.Second)
		if got, err := check("2"); err != nil || got.Reason != verdict.KeyUnusable { // now the key's state is cached
			t.Fatal(got, err)
		}
		if got, ok := cached("1"); ok {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("no answer without the state of the key", func(t *testing.T) {
		w, c, _, cached := checking(t)
		for i := range 1500 { // more keys than are cached
			id, err := signature.ParseKeyID("ocid1.key.oc1.iad.b5q4c5lnaahik." + strings.Repeat("z", 56) + fmt.Sprintf("%04d", i))
			if err != nil {
				t.Fatal(err)
			}
			w.change(func() {
				w.records = []signature.Record{{KeyID: id.String(), KeyVersionID: versionID(t, "a1").String(), State: signature.StateAvailable}}
			})
			if got, err := c.Check(t.Context(), pin(t, reference(t, "3")), set(t, id)); err != nil || got.Reason != verdict.KeyUnusable {
				t.Fatal(got, err)
			}
		}
		if got, ok := cached("1"); ok && !got.Signed() {
			t.Errorf("got %+v", got)
		}
	})
}

// blocked is a world in which one call waits for the test.
type blocked struct {
	*world
	call string
	wait chan struct{}
}

func (b blocked) pause(call string) {
	if b.call == call {
		<-b.wait
	}
}

func (b blocked) Records(ctx context.Context, ref image.Reference) ([]signature.Record, bool, error) {
	b.pause("Records")
	return b.world.Records(ctx, ref)
}

func (b blocked) KeyState(ctx context.Context, id signature.KeyID) (verdict.Key, error) {
	b.pause("KeyState")
	return b.world.KeyState(ctx, id)
}

func (b blocked) PublicKey(ctx context.Context, id signature.KeyID, version signature.KeyVersionID) (*rsa.PublicKey, error) {
	b.pause("PublicKey")
	return b.world.PublicKey(ctx, id, version)
}

// Wait returns after the last call, also after an abandoned one.
func TestWait(t *testing.T) {
	for _, call := range []string{"Records", "KeyState", "PublicKey"} {
		t.Run(call, func(t *testing.T) {
			b := blocked{newWorld(t), call, make(chan struct{})}
			a := b.addKey("a")
			b.records = []signature.Record{b.sign("a", reference(t, "1"))}
			cfg := b.config()
			cfg.Images, cfg.Keys, cfg.Timeout = b, b, 20*time.Millisecond
			c := checker.New(cfg)
			ctx, leave := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer leave()
			if got, err := c.Check(ctx, pin(t, reference(t, "1")), set(t, a)); err == nil {
				t.Errorf("got %+v", got)
			}
			done := make(chan struct{})
			go func() {
				c.Wait()
				close(done)
			}()
			select {
			case <-done:
				t.Error("Wait returned before the call")
			case <-time.After(200 * time.Millisecond):
			}
			close(b.wait)
			<-done
		})
	}
}
