package registry_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

const images = "artifacts.ListContainerImages"

// signers are keys of a tenancy, and the functions of a Checker about them.
type signers struct {
	keys []*ocitest.Key
	ids  []signature.KeyID
	of   map[signature.KeyID]verdict.Key
	pub  map[signature.KeyVersionID]*rsa.PublicKey
}

// private makes three keys for all tenancies, because making keys is slow.
var private = sync.OnceValue(func() (keys [3]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

func signersOf(t *testing.T, tenancy *ocitest.Tenancy) *signers {
	t.Helper()
	s := &signers{of: make(map[signature.KeyID]verdict.Key), pub: make(map[signature.KeyVersionID]*rsa.PublicKey)}
	vault := tenancy.NewVault("vault", "")
	for i, material := range private() {
		key := vault.ImportKey(fmt.Sprint("key-", i), ocitest.RSA2048, material)
		id, err := signature.ParseKeyID(key.ID)
		if err != nil {
			t.Fatal(err)
		}
		version, err := signature.ParseKeyVersionID(key.Version())
		if err != nil {
			t.Fatal(err)
		}
		s.keys, s.ids = append(s.keys, key), append(s.ids, id)
		s.of[id] = verdict.Key{ID: id, State: verdict.Enabled, Algorithm: "RSA", Versions: map[signature.KeyVersionID]string{version: verdict.Enabled}}
		s.pub[version] = &material.PublicKey
	}
	return s
}

// reader is a client of the registry with a Bulk of the test.
type reader struct {
	*registry.Client
	bulk func(context.Context, image.Reference, []signature.KeyID) ([]signature.Record, time.Time)
}

func (r reader) Bulk(ctx context.Context, ref image.Reference, keys []signature.KeyID) ([]signature.Record, time.Time) {
	if r.bulk == nil {
		return nil, time.Time{}
	}
	return r.bulk(ctx, ref, keys)
}

func (s *signers) KeyState(_ context.Context, id signature.KeyID) (verdict.Key, error) {
	return s.of[id], nil
}

func (s *signers) PublicKey(_ context.Context, _ signature.KeyID, version signature.KeyVersionID) (*rsa.PublicKey, error) {
	if s.pub[version] == nil {
		return nil, errors.New("no such version")
	}
	return s.pub[version], nil
}

// asker sends references to a Checker.
type asker struct{ *checker.Checker }

func (a asker) Check(ctx context.Context, ref image.Reference, keys []signature.KeyID) (checker.Answer, error) {
	img, _ := ref.Pinned()
	allowed, err := signature.NewKeySet(keys...)
	if err != nil {
		return checker.Answer{}, err
	}
	return a.Checker.Check(ctx, img, allowed)
}

// checker returns a Checker that reads with c.
func (s *signers) checker(c *registry.Client, now func() time.Time, bulk func(context.Context, image.Reference, []signature.KeyID) ([]signature.Record, time.Time)) asker {
	return asker{checker.New(checker.Config{Images: reader{c, bulk}, Keys: s, Now: now})}
}

// remove deletes an image as its owner would.
func remove(t *testing.T, tenancy *ocitest.Tenancy, img *ocitest.Image) {
	t.Helper()
	_, err := whoIs(t, tenancy.Admin()).Do(t.Context(), oci.Call{
		Service: "artifacts", Operation: "DeleteContainerImage", Method: http.MethodDelete,
		Host: "artifacts.us-ashburn-1.oci.oraclecloud.com", Path: "/20160918/container/images/{imageId}",
	}, artifacts.DeleteContainerImageRequest{ImageId: common.String(img.ID)}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// TestBulkDoesNotChangeAVerdict makes random worlds. It asks about each image in both
// ways, with lists and without.
func TestBulkDoesNotChangeAVerdict(t *testing.T) {
	worlds := uint64(25)
	if testing.Short() {
		worlds = 10
	}
	var helped, denied atomic.Int64
	t.Run("worlds", func(t *testing.T) {
		for seed := range worlds {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				w := randomWorld(t, mathrand.New(mathrand.NewPCG(seed, 2))) //nolint:gosec // a test
				w.compare(t, &helped, &denied)
			})
		}
	})
	if n := int64(worlds); helped.Load() < 2*n || denied.Load() < 5*n {
		t.Errorf("in %d worlds, lists helped %d times, and %d images were denied", n, helped.Load(), denied.Load())
	}
}

// randomly is a random world of one tenancy.
type randomly struct {
	*mathrand.Rand
	tenancy *ocitest.Tenancy
	signers *signers
	user    *ocitest.User

	pageLimit int
	cfg       registry.Config
	refs      []image.Reference
}

func oneOf[T any](r *mathrand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func randomWorld(t *testing.T, r *mathrand.Rand) *randomly {
	sw := oneOf(r, ocitest.Strict(), ocitest.Lenient())
	sw.PageLimit = oneOf(r, 1, 10, 100)
	sw.EmptyPages = r.IntN(2) == 0
	sw.DeletedRecords = oneOf(r, "gone", "listed")
	sw.IndexChildren = oneOf(r, "listed", "hidden")
	sw.SubtreeWithoutRoot = oneOf(r, "404", "filtered", "all")
	sw.ListDenied = oneOf(r, "404", "empty")
	sw.LookupPermission = oneOf(r, "REPOSITORY_READ", "REPOSITORY_INSPECT")
	w := &randomly{Rand: r, pageLimit: sw.PageLimit, tenancy: cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: &sw})}
	w.signers = signersOf(t, w.tenancy)

	compartments := []string{w.tenancy.ID, w.tenancy.NewCompartment("team", ""), w.tenancy.NewCompartment("other", "")}
	var all []*ocitest.Image
	var repositories []string
	for n := range 1 + r.IntN(4) {
		name := fmt.Sprint("team/app-", n)
		repositories = append(repositories, w.tenancy.NewRepository(name, oneOf(r, compartments...)))
		for range 1 + r.IntN(12) {
			img := w.tenancy.NewImage(name)
			if len(all) > 0 && r.IntN(6) == 0 {
				img = oneOf(r, all...).CopyTo(name)
			}
			all = append(all, img)
			w.attach(all, img)
			if r.IntN(8) == 0 {
				remove(t, w.tenancy, img)
				if r.IntN(2) == 0 { // the same digest is pushed again
					all = append(all, img.CopyTo(name))
					w.attach(all, all[len(all)-1])
				}
			}
		}
	}
	for _, img := range all {
		if r.IntN(4) == 0 {
			w.attach(all, img)
		}
		ref := parse(t, img.Ref())
		w.refs = append(w.refs, ref)
		if r.IntN(6) == 0 {
			w.refs = append(w.refs, missing(t, img))
		}
	}
	w.user = w.tenancy.NewUser("reader")
	w.tenancy.Allow(oneOf(r,
		[]string{"Allow user reader to read repos in tenancy"},
		[]string{"Allow user reader to read repos in tenancy"},
		[]string{"Allow user reader to inspect repos in tenancy"},
		[]string{"Allow user reader to read repos in compartment team"},
		[]string{"Allow user reader to read repos in compartment team", "Allow user reader to inspect repos in compartment other"},
		[]string{"Allow user reader to read repos in tenancy where target.repo.name = 'team/app-0'"},
	)...)
	if r.IntN(3) == 0 {
		w.cfg.Compartments = oneOf(r, compartments[:1], compartments[1:2], compartments[1:], compartments)
	}
	if r.IntN(3) == 0 {
		w.tenancy.MoveRepository(oneOf(r, repositories...), oneOf(r, compartments...))
	}
	return w
}

// attach gives an image signature records, most of them dishonest.
func (w *randomly) attach(all []*ocitest.Image, img *ocitest.Image) {
	for range oneOf(w.Rand, 0, 1, 1, 1, 2, 5) {
		rec := img.Sign(oneOf(w.Rand, w.signers.keys...), oneOf(w.Rand, "SHA_256_RSA_PKCS_PSS", "SHA_384_RSA_PKCS_PSS"))
		switch w.IntN(12) {
		case 0: // of another image
			rec = oneOf(w.Rand, all...).Sign(w.signers.keys[0], "SHA_256_RSA_PKCS_PSS")
			rec.ImageID = img.ID
		case 1:
			rec.KeyID = oneOf(w.Rand, w.signers.keys...).ID
		case 2:
			rec.KeyVersionID = oneOf(w.Rand, "ocid1.keyversion.oc1.iad.none", "../x", "")
		case 3:
			rec.State = oneOf(w.Rand, "DELETED", "DELETING", "ODD")
		case 4:
			rec.Signature = strings.Repeat("A", oneOf(w.Rand, 344, 2000))
		case 5:
			rec.Algorithm = "SHA_512_RSA_PKCS_PSS"
		case 6:
			if w.IntN(4) == 0 { // a flood comes before the honest record, or after it
				hostile := rec
				hostile.KeyID = oneOf(w.Rand, rec.KeyID, "ocid1.key.oc1.iad.x")
				hostile.Message = "AAAA"
				for range min(oneOf(w.Rand, 20, 210, 260), 25*w.pageLimit-20) { // a look-up reads 60 pages
					w.tenancy.Add(hostile)
				}
			}
		}
		w.tenancy.Add(rec)
		if w.IntN(20) == 0 {
			w.tenancy.Add(ocitest.Record{ImageID: img.ID, KeyID: rec.KeyID, KeyVersionID: rec.KeyVersionID, Algorithm: rec.Algorithm, Message: "{}", Signature: "x"})
		}
	}
}

// compare asks about each image under two sets of keys, with several callers at
// once.
func (w *randomly) compare(t *testing.T, helped, denied *atomic.Int64) {
	one, many := client(t, w.user, w.cfg), client(t, w.user, w.cfg)
	single := w.signers.checker(one, nil, nil)
	both := w.signers.checker(many, nil, func(ctx context.Context, ref image.Reference, keys []signature.KeyID) ([]signature.Record, time.Time) {
		records, at := many.Bulk(ctx, ref, keys)
		if len(records) > 0 {
			helped.Add(1)
		}
		return records, at
	})
	allowed := [][]signature.KeyID{w.signers.ids[:1], w.signers.ids[1:]}
	order := w.Perm(2 * len(w.refs))
	var next atomic.Int64
	var group sync.WaitGroup
	for range oneOf(w.Rand, 1, 3, 10) {
		group.Go(func() {
			for n := int(next.Add(1)) - 1; n < len(order); n = int(next.Add(1)) - 1 {
				ref, keys := w.refs[order[n]/2], allowed[order[n]%2]
				want, wantErr := single.Check(t.Context(), ref, keys)
				got, err := both.Check(t.Context(), ref, keys)
				if got.Signed() != want.Signed() || got.Reason != want.Reason || (err == nil) != (wantErr == nil) {
					t.Errorf("%s: with lists %+v, %v; without %+v, %v; under %+v", ref, got, err, want, wantErr, w.tenancy.Switches())
				}
				if err == nil && !got.Signed() {
					denied.Add(1)
				}
			}
		})
	}
	group.Wait()
}

// crowd is a repository with signed images, and a Checker with a clock of the test.
type crowd struct {
	tenancy *ocitest.Tenancy
	signers *signers
	client  *registry.Client
	keys    []signature.KeyID
	check   func(ref image.Reference) checker.Answer
	refs    []image.Reference
	images  []*ocitest.Image
	records []string

	mu  sync.Mutex
	now time.Time
}

func newCrowd(t *testing.T, n, pageLimit int) *crowd {
	t.Helper()
	sw := ocitest.Strict()
	sw.PageLimit = pageLimit
	c := &crowd{tenancy: cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: &sw}), now: time.Now()}
	c.signers = signersOf(t, c.tenancy)
	c.keys = c.signers.ids[:1]
	for range n {
		img := c.tenancy.NewImage("app")
		c.images, c.refs = append(c.images, img), append(c.refs, parse(t, img.Ref()))
		c.records = append(c.records, c.tenancy.Add(img.Sign(c.signers.keys[0], "SHA_256_RSA_PKCS_PSS"))...)
	}
	c.askAs(t, c.tenancy.Admin())
	return c
}

// askAs replaces the client with a new one for a user. Its caches are empty.
func (c *crowd) askAs(t *testing.T, user *ocitest.User) {
	t.Helper()
	clock := func() time.Time {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.now
	}
	c.client = client(t, user, registry.Config{Now: clock, Panicked: told(t)})
	deciding := c.signers.checker(c.client, clock, c.client.Bulk)
	c.check = func(ref image.Reference) checker.Answer {
		t.Helper()
		v, err := deciding.Check(t.Context(), ref, c.keys)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (c *crowd) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// cost returns the number of calls of f, without those for the namespace.
func (c *crowd) cost(f func()) (calls int) {
	count := func() int { return c.tenancy.Calls()[lists] + c.tenancy.Calls()[images] + c.tenancy.Calls()[lookups] }
	before := count()
	f()
	return count() - before
}

func TestBulkCosts(t *testing.T) {
	yes := func(t *testing.T, c *crowd, refs ...image.Reference) {
		t.Helper()
		for _, ref := range refs {
			if v := c.check(ref); !v.Signed() {
				t.Errorf("%s: %+v", ref, v)
			}
		}
	}
	t.Run("one call for the first image, two for the second, none for the others", func(t *testing.T) {
		c := newCrowd(t, 25, 100)
		for n, want := range []int{1, 2, 0, 0} {
			if got := c.cost(func() { yes(t, c, c.refs[n]) }); got != want {
				t.Errorf("image %d: %d calls, want %d", n, got, want)
			}
		}
		if got := c.cost(func() { yes(t, c, c.refs[4:]...) }); got != 0 {
			t.Errorf("the rest: %d calls", got)
		}
	})
	t.Run("with a right on one compartment only", func(t *testing.T) {
		c := newCrowd(t, 6, 100)
		c.tenancy.MoveRepository(c.images[0].RepositoryID, c.tenancy.NewCompartment("team", ""))
		c.tenancy.Allow("Allow user dev to read repos in compartment team")
		c.askAs(t, c.tenancy.NewUser("dev"))
		for n, want := range []int{3, 2, 0, 0} { // the first call is rejected at the root and finds the compartment
			if got := c.cost(func() { yes(t, c, c.refs[n]) }); got != want {
				t.Errorf("image %d: %d calls, want %d", n, got, want)
			}
		}
	})
	t.Run("images with rare questions are looked up", func(t *testing.T) {
		c := newCrowd(t, 5, 100)
		for _, ref := range c.refs {
			if got := c.cost(func() { yes(t, c, ref) }); got != 1 {
				t.Errorf("%d calls", got)
			}
			c.pass(time.Minute)
		}
	})
	t.Run("ten at once", func(t *testing.T) {
		c := newCrowd(t, 10, 100)
		got := c.cost(func() {
			var wait sync.WaitGroup
			for _, ref := range c.refs {
				wait.Go(func() { yes(t, c, ref) })
			}
			wait.Wait()
		})
		if got != 3 {
			t.Errorf("%d calls", got)
		}
	})
	t.Run("the pages of a list, and few look-ups, whichever image comes first", func(t *testing.T) {
		for name, order := range map[string]func([]image.Reference){"oldest": func([]image.Reference) {}, "newest": slices.Reverse[[]image.Reference]} {
			c := newCrowd(t, 25, 10)
			order(c.refs)
			if got := c.cost(func() { yes(t, c, c.refs...) }); got > 1+2*3+2 {
				t.Errorf("%s first: %d calls", name, got)
			}
		}
	})
	t.Run("newer signatures by other keys make no difference", func(t *testing.T) {
		c := newCrowd(t, 25, 10)
		for _, img := range c.images {
			c.tenancy.Add(img.Sign(c.signers.keys[1], "SHA_256_RSA_PKCS_PSS"))
		}
		if got := c.cost(func() { yes(t, c, c.refs...) }); got > 1+3+5+4 {
			t.Errorf("%d calls", got)
		}
	})
	t.Run("keys of later questions are looked up", func(t *testing.T) {
		c := newCrowd(t, 4, 100)
		for _, img := range c.images {
			c.tenancy.Add(img.Sign(c.signers.keys[1], "SHA_256_RSA_PKCS_PSS"))
		}
		yes(t, c, c.refs...)
		c.keys = c.signers.ids[1:]
		if got := c.cost(func() { yes(t, c, c.refs...) }); got != 4 {
			t.Errorf("%d calls", got)
		}
		c.pass(11 * time.Minute)
		if got := c.cost(func() { yes(t, c, c.refs...) }); got != 3 {
			t.Errorf("later on: %d calls", got)
		}
	})
	t.Run("a history that is too long is abandoned at its first page", func(t *testing.T) {
		c := newCrowd(t, 25, 1)
		newest := len(c.refs) - 1
		yes(t, c, c.refs[0])
		if got := c.cost(func() { yes(t, c, c.refs[newest]) }); got != 2 {
			t.Errorf("the newest image: %d calls", got)
		}
		if got := c.cost(func() { yes(t, c, c.refs[1:10]...) }); got != 9 {
			t.Errorf("nine others: %d calls", got)
		}
	})
	t.Run("lists that cost more than look-ups are abandoned at their first page", func(t *testing.T) {
		c := newCrowd(t, 12, 10)
		for range 5 {
			for _, img := range c.images {
				c.tenancy.Add(img.Sign(c.signers.keys[1], "SHA_256_RSA_PKCS_PSS"))
			}
		}
		c.refs = c.refs[1:]
		if got := c.cost(func() { yes(t, c, c.refs...) }); got != len(c.refs)+2 {
			t.Errorf("%d calls", got)
		}
	})
	t.Run("unsigned images cost their look-ups, and the lists once in ten minutes", func(t *testing.T) {
		c := newCrowd(t, 0, 100)
		for range 20 {
			c.refs = append(c.refs, parse(t, c.tenancy.NewImage("app").Ref()))
		}
		for round := range 15 {
			want := 2 * len(c.refs) // a list that is empty, and a look-up
			if round == 0 {
				want += 2
			}
			got := c.cost(func() {
				for _, ref := range c.refs {
					if v := c.check(ref); v.Reason != verdict.Unsigned {
						t.Fatalf("%+v", v)
					}
				}
			})
			if got != want {
				t.Errorf("round %d: %d calls, want %d", round, got, want)
			}
			c.pass(31 * time.Second)
		}
	})
}

// A change after the lists were read makes no verdict worse. It delays no verdict
// longer than a change without lists.
func TestHowOldListsCanBe(t *testing.T) {
	t.Run("a new image and a new signature count at once", func(t *testing.T) {
		c := newCrowd(t, 3, 100)
		late := c.tenancy.NewImage("app")
		c.check(c.refs[0])
		c.check(c.refs[1])
		c.tenancy.Add(late.Sign(c.signers.keys[0], "SHA_256_RSA_PKCS_PSS"))
		pushed := c.tenancy.NewImage("app")
		c.tenancy.Add(pushed.Sign(c.signers.keys[0], "SHA_256_RSA_PKCS_PSS"))
		for _, img := range []*ocitest.Image{late, pushed} {
			if v := c.check(parse(t, img.Ref())); !v.Signed() {
				t.Errorf("%+v", v)
			}
		}
	})
	t.Run("a deleted image counts for ten minutes from when the lists were read", func(t *testing.T) {
		c := newCrowd(t, 3, 100)
		c.check(c.refs[0])
		c.check(c.refs[1])
		remove(t, c.tenancy, c.images[2])
		c.pass(29 * time.Second)
		if v := c.check(c.refs[2]); !v.Signed() || v.Age != 29*time.Second {
			t.Errorf("from the lists: %+v", v)
		}
		c.pass(10*time.Minute - 29*time.Second - 1)
		if v := c.check(c.refs[1]); !v.Signed() {
			t.Errorf("just before ten minutes are over: %+v", v)
		}
		c.pass(1)
		if v := c.check(c.refs[2]); v.Signed() {
			t.Errorf("ten minutes after the lists: %+v", v)
		}
	})
	t.Run("lists count for half a minute", func(t *testing.T) {
		c := newCrowd(t, 3, 100)
		c.check(c.refs[0])
		c.check(c.refs[1])
		remove(t, c.tenancy, c.images[2])
		c.pass(30 * time.Second)
		if v := c.check(c.refs[2]); v.Signed() {
			t.Errorf("%+v", v)
		}
	})
	t.Run("a denial is never followed by an older yes", func(t *testing.T) {
		c := newCrowd(t, 24, 10)
		img := c.tenancy.NewImage("app")
		c.images, c.refs = append(c.images, img), append(c.refs, parse(t, img.Ref()))
		slices.Reverse(c.refs)
		// The oldest image is on the last page. Its signature is the newest, on the
		// first page.
		oldest := c.refs[len(c.refs)-1]
		revoked := c.tenancy.Add(c.images[0].Sign(c.signers.keys[0], "SHA_384_RSA_PKCS_PSS"))[0]
		ask := func(n int) { c.check(c.refs[n]) }
		ask(1)
		ask(2) // reads the first pages
		revoke(t, c.tenancy, revoked)
		revoke(t, c.tenancy, c.records[0])
		c.pass(10 * time.Second)
		if v := c.check(oldest); v.Reason != verdict.Unsigned { // reads the second pages
			t.Fatalf("%+v", v)
		}
		ask(23) // reads the last pages
		for range 60 {
			c.pass(time.Second)
			if v := c.check(oldest); v.Signed() {
				t.Fatalf("%+v", v)
			}
		}
	})
}

// revoke deletes a signature.
func revoke(t *testing.T, tenancy *ocitest.Tenancy, id string) {
	t.Helper()
	_, err := whoIs(t, tenancy.Admin()).Do(t.Context(), oci.Call{
		Service: "artifacts", Operation: "DeleteContainerImageSignature", Method: http.MethodDelete,
		Host: "artifacts.us-ashburn-1.oci.oraclecloud.com", Path: "/20160918/container/imageSignatures/{imageSignatureId}",
	}, artifacts.DeleteContainerImageSignatureRequest{ImageSignatureId: common.String(id)}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// Lists must not find a record in a flood that a look-up cannot reach.
func TestBulkLooksNoFurtherThanALookUp(t *testing.T) {
	c := newCrowd(t, 8, 100)
	flooded := c.tenancy.NewImage("app")
	flood(c.tenancy, flooded, 60)
	c.tenancy.Add(flooded.Sign(c.signers.keys[0], "SHA_256_RSA_PKCS_PSS"))
	flood(c.tenancy, flooded, 210)
	ref, unsigned := parse(t, flooded.Ref()), parse(t, c.tenancy.NewImage("app").Ref())
	c.check(c.refs[0])
	for range 5 {
		if got, _ := c.client.Bulk(t.Context(), unsigned, c.signers.ids); len(got) > 0 { // reads a page at each call
			t.Errorf("got %+v", got)
		}
	}
	if got, _ := c.client.Bulk(t.Context(), ref, c.signers.ids); len(got) > 0 {
		t.Errorf("got %+v", got)
	}
	if v := c.check(ref); v.Signed() || !v.Truncated {
		t.Errorf("got %+v", v)
	}
}

// Lists that cannot be read take a little time and change no verdict.
func TestBulkInTrouble(t *testing.T) {
	for name, fault := range map[string]ocitest.Fault{
		"refused":                    {Operation: images, Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound"},
		"failing":                    {Operation: images, Kind: ocitest.Status, Status: 501, Code: "MethodNotImplemented"},
		"hanging":                    {Operation: images, Kind: ocitest.Hang},
		"no items":                   {Operation: images, Kind: ocitest.Body, Body: `{}`},
		"nothing but blank pages":    {Operation: images, Kind: ocitest.Body, Body: `{"items":[],"remainingItemsCount":9}`, Headers: map[string]string{"opc-next-page": "again"}},
		"images of another name":     {Operation: images, Kind: ocitest.Set, Set: map[string]any{"repositoryName": "other"}},
		"deleted images":             {Operation: images, Kind: ocitest.Set, Set: map[string]any{"lifecycleState": "DELETED"}},
		"one digest for all":         {Operation: images, Kind: ocitest.Set, Set: map[string]any{"digest": "sha256:" + strings.Repeat("a", 64)}},
		"one image for all digests":  {Operation: images, Kind: ocitest.Set, Set: map[string]any{"id": "ocid1.containerimage.oc1..x"}},
		"the next page is this page": {Operation: images, Kind: ocitest.Body, Body: `{"items":[{}],"remainingItemsCount":1}`, Headers: map[string]string{"opc-next-page": "again"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, 6, 100)
			c.tenancy.Fault(fault)
			// A user may have the right to list signatures and no other.
			c.tenancy.Fault(ocitest.Fault{Operation: lookups, Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound"})
			for _, ref := range c.refs {
				if v := c.check(ref); !v.Signed() {
					t.Errorf("%+v", v)
				}
			}
			for _, ref := range c.refs {
				if got, _ := c.client.Bulk(t.Context(), ref, c.signers.ids); len(got) > 0 {
					t.Errorf("records from such lists: %+v", got)
				}
			}
			if n := c.tenancy.Calls()[images]; n > 6 {
				t.Errorf("%d attempts to list the images", n)
			}
		})
	}
}
