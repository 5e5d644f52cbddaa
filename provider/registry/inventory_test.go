package registry_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// nth returns the nth image of a repository.
func nth(t *testing.T, repository string, n int) image.Reference {
	t.Helper()
	return parse(t, fmt.Sprintf("iad.ocir.io/ns/%s@sha256:%064d", repository, n))
}

const entry = 256 + len("id") + len("sha256:") + 64 // bytes that one image takes

// An inventory is dropped after half a minute. Pages that arrive later have no effect.
func TestInventoriesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := registry.NewInventories(time.Now)
		held := func(want int) {
			t.Helper()
			if got := b.Held(); got != want {
				t.Errorf("%d bytes are held, want %d", got, want)
			}
		}
		b.Ask(true, nth(t, "app", 0))
		inv := b.Ask(true, nth(t, "app", 1))
		b.Add(inv, nth(t, "app", 0))
		b.Add(inv, nth(t, "app", 1))
		held(2 * entry)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		held(0)
		b.Add(inv, nth(t, "app", 2))
		held(0)
	})
}

// A dropped inventory does not drop the next inventory of its repository.
func TestInventoriesAreDroppedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := time.Duration(0)
		b := registry.NewInventories(func() time.Time { return time.Now().Add(ahead) })
		b.Ask(true, nth(t, "app", 0))
		first := b.Ask(true, nth(t, "app", 1))
		b.Add(first, nth(t, "app", 0))
		time.Sleep(10 * time.Second)
		ahead = 20 * time.Second // by the clock, half a minute is over before the timer fires
		second := b.Ask(true, nth(t, "app", 2))
		if second != nil {
			t.Error("a useless inventory is followed by another one")
		}
		ahead += 10 * time.Minute
		b.Ask(true, nth(t, "app", 3))
		if second = b.Ask(true, nth(t, "app", 4)); second == nil || second == first {
			t.Fatal("no new inventory")
		}
		b.Add(second, nth(t, "app", 4))
		time.Sleep(20 * time.Second) // the timer of the first inventory
		synctest.Wait()
		if got := b.Held(); got != entry || b.Ask(true, nth(t, "app", 4)) != second {
			t.Errorf("%d bytes are held, want those of one image, %d", got, entry)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := b.Held(); got != 0 {
			t.Errorf("%d bytes are held, want none", got)
		}
	})
}

// A list is read only if its compartment is known and there is room for it.
func TestInventoriesAreReadIfTheyHelp(t *testing.T) {
	for name, tt := range map[string]struct {
		held  int
		known [2]bool // whether the compartment is known at the second query and at the third
		made  bool    // an inventory
		reads bool    // whether the third query reads a page
	}{
		"a known compartment":    {known: [2]bool{true, true}, made: true, reads: true},
		"an unknown compartment": {},
		"an expired compartment": {known: [2]bool{true, false}, made: true},
		"room for a byte":        {held: registry.MaxBulkBytes - 1, known: [2]bool{true, true}, made: true, reads: true},
		"no room":                {held: registry.MaxBulkBytes, known: [2]bool{true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			b := registry.NewInventories(time.Now)
			b.Hold(tt.held)
			b.Ask(true, nth(t, "app", 0))
			inv := b.Ask(tt.known[0], nth(t, "app", 1))
			if (inv != nil) != tt.made {
				t.Fatalf("an inventory: %t, want %t", inv != nil, tt.made)
			}
			if inv != nil {
				b.Read(inv)
			}
			b.Ask(tt.known[1], nth(t, "app", 2))
			if got := inv != nil && b.Reading(inv); got != tt.reads {
				t.Errorf("a page is read: %t, want %t", got, tt.reads)
			}
		})
	}
}

// Too many repositories drop all inventories and interests.
func TestInventoriesAreBounded(t *testing.T) {
	b := registry.NewInventories(time.Now)
	b.Ask(true, nth(t, "app", 0))
	inv := b.Ask(true, nth(t, "app", 1))
	b.Add(inv, nth(t, "app", 0))
	for n := range 9_999 {
		b.Ask(true, nth(t, fmt.Sprint("app-", n), 0))
	}
	if got := b.Held(); got != entry || b.Interests() != 10_000 {
		t.Errorf("%d bytes and %d repositories, want %d and 10000", got, b.Interests(), entry)
	}
	b.Ask(true, nth(t, "one-more", 0))
	b.Add(inv, nth(t, "app", 1))
	if got := b.Held(); got != 0 || b.Interests() != 1 {
		t.Errorf("%d bytes and %d repositories, want none and one", got, b.Interests())
	}
}

func TestReadsOn(t *testing.T) {
	for name, tt := range map[string]struct {
		imagesOver, signaturesOver, dropped bool
		ahead, held                         int
		want                                bool
	}{
		"both lists go on":                   {ahead: 2, want: true},
		"the images are at their end":        {imagesOver: true, ahead: 2, want: true},
		"the signatures are at their end":    {signaturesOver: true, ahead: 2, want: true},
		"both lists are at their end":        {imagesOver: true, signaturesOver: true, ahead: 2},
		"this page was the last one to read": {ahead: 1},
		"the inventory was dropped":          {dropped: true, ahead: 2},
		"room for another byte":              {ahead: 2, held: registry.MaxBulkBytes - 1, want: true},
		"no room":                            {ahead: 2, held: registry.MaxBulkBytes},
	} {
		if got := registry.ReadsOn(tt.imagesOver, tt.signaturesOver, tt.dropped, tt.ahead, tt.held); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// Lists are read again after half a minute if they helped or failed. They are read
// again after ten minutes if they did not help, or if OCI rejected them.
func TestWhenListsAreReadAgain(t *testing.T) {
	for name, tt := range map[string]struct {
		fault *ocitest.Fault
		after time.Duration
		want  bool
	}{
		"lists that helped, half a minute later":                 {nil, 30 * time.Second, true},
		"lists that could not be read, half a minute later":      {&ocitest.Fault{Kind: ocitest.Status, Status: 501, Code: "MethodNotImplemented"}, 30 * time.Second, true},
		"signatures that could not be read, half a minute later": {&ocitest.Fault{Operation: lists, Kind: ocitest.Status, Status: 501, Code: "MethodNotImplemented"}, 30 * time.Second, true},
		"rejected lists, half a minute later":                    {&ocitest.Fault{Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound"}, 30 * time.Second, false},
		"rejected lists, nearly ten minutes later":               {&ocitest.Fault{Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound"}, 10*time.Minute - 1, false},
		"rejected lists, ten minutes later":                      {&ocitest.Fault{Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound"}, 10 * time.Minute, true},
		"lists of another repository's images, a minute later":   {&ocitest.Fault{Kind: ocitest.Set, Set: map[string]any{"repositoryName": "other"}}, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, 4, 100)
			if tt.fault != nil {
				tt.fault.Operation, tt.fault.Count = cmp.Or(tt.fault.Operation, images), 1
				c.tenancy.Fault(*tt.fault)
			}
			c.bulk(t, 0)
			if got, want := c.bulk(t, 1), 1; tt.fault == nil && got != want {
				t.Errorf("%d records, want %d", got, want)
			}
			c.pass(tt.after)
			before := c.tenancy.Calls()[images]
			c.bulk(t, 2)
			got := c.bulk(t, 3)
			if read := c.tenancy.Calls()[images] > before; read != tt.want || (got == 1) != tt.want {
				t.Errorf("read again: %t, %d records", read, got)
			}
		})
	}
}

// An image counts only if the list has one image of its digest and this image is
// available. Other items take no memory.
func TestImagesThatCount(t *testing.T) {
	type item map[string]any // what differs from the image's own item
	deleted, other := item{"lifecycleState": "DELETED"}, item{"id": "ocid1.containerimage.oc1..other"}
	second := "sha256:" + strings.Repeat("b", 64)
	for name, tt := range map[string]struct {
		items   []item
		records int
		held    []int // the items that take memory
	}{
		"the image":                         {[]item{nil}, 1, []int{0}},
		"the image twice":                   {[]item{nil, nil}, 1, []int{0}},
		"another image after it":            {[]item{nil, other}, 0, []int{0}},
		"another image before it":           {[]item{other, nil}, 0, []int{0}},
		"another image between":             {[]item{nil, other, nil}, 0, []int{0}},
		"the image, deleted":                {[]item{deleted}, 0, []int{0}},
		"the image, deleted and then not":   {[]item{deleted, nil}, 0, []int{0}},
		"an image of another repository":    {[]item{{"repositoryName": "other"}}, 0, nil},
		"an invalid digest":                 {[]item{nil, {"digest": "sha256:b"}}, 1, []int{0}},
		"another image with a long id":      {[]item{nil, {"id": strings.Repeat("i", 255), "digest": second}}, 1, []int{0, 1}},
		"another image with an id too long": {[]item{nil, {"id": strings.Repeat("i", 256), "digest": second}}, 1, []int{0}},
		"another digest with the same id":   {[]item{nil, {"digest": second}}, 1, []int{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, 2, 100)
			var items []item
			for _, change := range tt.items {
				whole := item{"id": c.images[1].ID, "digest": c.images[1].Digest, "repositoryName": "app", "lifecycleState": "AVAILABLE"}
				maps.Copy(whole, change)
				items = append(items, whole)
			}
			list, err := json.Marshal(map[string]any{"items": items, "remainingItemsCount": 0})
			if err != nil {
				t.Fatal(err)
			}
			c.tenancy.Fault(ocitest.Fault{Operation: images, Kind: ocitest.Body, Body: string(list)})
			c.bulk(t, 0)
			if got := c.bulk(t, 1); got != tt.records {
				t.Errorf("%d records, want %d", got, tt.records)
			}
			want := 0
			for _, img := range c.images { // the records of both
				want += 2*256 + len(img.ID) + c.textsOf(t, img)
			}
			for _, n := range tt.held {
				want += 256 + len(fmt.Sprint(items[n]["id"], items[n]["digest"]))
			}
			if got := c.client.Held(); got != want {
				t.Errorf("%d bytes are held, want %d", got, want)
			}
		})
	}
}

// textsOf returns how many bytes the image's one record takes.
func (c *crowd) textsOf(t *testing.T, img *ocitest.Image) int {
	t.Helper()
	records, _, err := c.client.Records(t.Context(), parse(t, img.Ref()))
	if err != nil || len(records) != 1 {
		t.Fatal(len(records), err)
	}
	return len(records[0].ID) + len(records[0].Message) + len(records[0].Signature)
}

// Only the newest record by each requested key counts, and only if Records would
// have read it. Other records take no memory.
func TestRecordsThatCount(t *testing.T) {
	for name, tt := range map[string]struct {
		add     func(c *crowd, img *ocitest.Image)
		records int
		held    int // records
	}{
		"one record":                    {func(*crowd, *ocitest.Image) {}, 1, 1},
		"two records by one key":        {func(c *crowd, img *ocitest.Image) { c.tenancy.Add(img.Sign(c.signers.keys[0], "SHA_384_RSA_PKCS_PSS")) }, 1, 1},
		"a record by a key not allowed": {func(c *crowd, img *ocitest.Image) { c.tenancy.Add(img.Sign(c.signers.keys[1], "SHA_256_RSA_PKCS_PSS")) }, 1, 1},
		"a deleted record": {func(c *crowd, _ *ocitest.Image) {
			c.tenancy.Fault(ocitest.Fault{Operation: lists, Kind: ocitest.Set, Set: map[string]any{"lifecycleState": "DELETED"}})
		}, 0, 0},
		"199 newer records": {func(c *crowd, img *ocitest.Image) { others(c, img, 199) }, 1, 1},
		"200 newer records": {func(c *crowd, img *ocitest.Image) { others(c, img, 200) }, 0, 0},
		"200 records and the newest": {func(c *crowd, img *ocitest.Image) {
			others(c, img, 198)
			c.tenancy.Add(img.Sign(c.signers.keys[0], "SHA_256_RSA_PKCS_PSS"))
		}, 1, 1},
		"201 records and the newest": {func(c *crowd, img *ocitest.Image) {
			others(c, img, 199)
			c.tenancy.Add(img.Sign(c.signers.keys[0], "SHA_256_RSA_PKCS_PSS"))
		}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, 1, 1000)
			c.tenancy.NewImage("app")
			texts := c.textsOf(t, c.images[0]) + 256
			tt.add(c, c.images[0])
			unsigned := parse(t, c.tenancy.NewImage("app").Ref())
			if got, _ := c.client.Bulk(t.Context(), unsigned, c.keys); len(got) > 0 {
				t.Errorf("got %v", got)
			}
			if got := c.bulk(t, 0); got != tt.records {
				t.Errorf("%d records, want %d", got, tt.records)
			}
			want := tt.held*texts + 256 + len(c.images[0].ID)
			for range 3 {
				want += 256 + len(c.images[0].ID) + len(c.images[0].Digest)
			}
			if got := c.client.Held(); got != want {
				t.Errorf("%d bytes are held, want %d", got, want)
			}
		})
	}
}

// others attaches n records by another key, newer than all others.
func others(c *crowd, img *ocitest.Image, n int) {
	for range n {
		c.tenancy.Add(ocitest.Record{ImageID: img.ID, KeyID: "k", KeyVersionID: "v", Algorithm: "a", Message: "m", Signature: "s"})
	}
}

// Records share the memory of equal texts.
func TestRecordsShareTheirTexts(t *testing.T) {
	c := newCrowd(t, 3, 100)
	c.bulk(t, 0)
	var keys []*byte
	for _, ref := range c.refs[1:] {
		records, _ := c.client.Bulk(t.Context(), ref, c.keys)
		if len(records) != 1 {
			t.Fatalf("got %v", records)
		}
		keys = append(keys, unsafe.StringData(records[0].KeyID))
	}
	if keys[0] != keys[1] {
		t.Error("two copies of a key's OCID")
	}
}

// Records from lists have the IDs of the calls that read the lists.
func TestBulkNamesItsCalls(t *testing.T) {
	c := newCrowd(t, 3, 100)
	c.bulk(t, 0)
	for _, ref := range c.refs[1:] {
		ctx, ids := oci.WithRequests(t.Context())
		if got, _ := c.client.Bulk(ctx, ref, c.keys); len(got) != 1 || len(strings.Fields(ids())) != 2 {
			t.Errorf("%d records from calls %q", len(got), ids())
		}
	}
}

// An image on pages that were read causes no other call.
func TestBulkReadsNoMoreThanItNeeds(t *testing.T) {
	c := newCrowd(t, 60, 10)
	c.bulk(t, 58)
	if got := c.bulk(t, 59) + c.bulk(t, 59) + c.bulk(t, 58); got != 3 || c.tenancy.Calls()[images] != 1 {
		t.Errorf("%d records from %d pages, want 3 from one", got, c.tenancy.Calls()[images])
	}
}

// A caller waits for a page in flight, although there is no room for another page.
func TestInventoriesAreAwaited(t *testing.T) {
	b := registry.NewInventories(time.Now)
	b.Ask(true, nth(t, "app", 0))
	inv := b.Ask(true, nth(t, "app", 1))
	b.Hold(registry.MaxBulkBytes)
	if !b.Waits(nth(t, "app", 2)) {
		t.Error("no caller waits for the page in flight")
	}
	b.Read(inv)
	if b.Waits(nth(t, "app", 3)) {
		t.Error("a caller waits for a page that nobody reads")
	}
}

// A client without Panicked survives a panic while it reads lists.
func TestAPanicWithoutPanicked(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	signers := signersOf(t, tenancy)
	c := explosive(t, tenancy.Admin(), registry.Config{})
	for range 2 {
		ref := parse(t, tenancy.NewImage("app").Ref())
		if _, err := c.Tenancy(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
		tenancy.Fault(ocitest.Fault{Operation: images, Kind: ocitest.Status, Status: 500, Code: "InternalServerError", Count: 1})
		if got, _ := c.Bulk(t.Context(), ref, signers.ids); len(got) > 0 {
			t.Errorf("got %v", got)
		}
	}
}

// finding is one look-up of a Compartments.
type finding struct {
	at  string
	err error
}

// Several callers look for one repository at once. Caller n asks for image n.
func TestFindingACompartment(t *testing.T) {
	down := errors.New("503")
	for name, tt := range map[string]struct {
		callers int
		known   string         // before
		fails   map[int]error  // by image
		want    map[int]string // by caller; a missing one gets an error
		looks   int64
		after   string // the cached compartment afterwards
	}{
		"a look-up for all":                    {callers: 3, want: map[int]string{0: "here", 1: "here", 2: "here"}, looks: 1, after: "here"},
		"an earlier look-up has just ended":    {callers: 1, known: "there", want: map[int]string{0: "there"}, after: "there"},
		"an error is the error of all callers": {callers: 3, fails: map[int]error{0: down}, looks: 1},
		"a missing image":                      {callers: 1, fails: map[int]error{0: registry.ErrNotFound}, looks: 1},
		"a missing image, and others":          {callers: 3, fails: map[int]error{0: registry.ErrNotFound}, want: map[int]string{1: "here", 2: "here"}, looks: 3, after: "here"},
		"missing images":                       {callers: 2, fails: map[int]error{0: registry.ErrNotFound, 1: registry.ErrNotFound}, looks: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := registry.NewCompartments()
				if tt.known != "" {
					p.Set(nth(t, "app", 0), tt.known)
				}
				var looks atomic.Int64
				release := make(chan struct{})
				look := func(_ context.Context, ref image.Reference) (registry.Image, error) {
					looks.Add(1)
					<-release
					for n, err := range tt.fails {
						if ref == nth(t, "app", n) {
							return registry.Image{}, err
						}
					}
					return registry.Image{CompartmentID: "here"}, nil
				}
				got := make([]finding, tt.callers)
				var wait sync.WaitGroup
				for n := range tt.callers {
					wait.Go(func() {
						at, err := p.Find(t.Context(), nth(t, "app", n), look)
						got[n] = finding{at, err}
					})
					synctest.Wait()
				}
				close(release)
				wait.Wait()
				for n, f := range got {
					if f.at != tt.want[n] || (f.err != nil) != (tt.want[n] == "") {
						t.Errorf("caller %d: %+v, want %q", n, f, tt.want[n])
					}
				}
				if looks.Load() != tt.looks || p.Get(nth(t, "app", 0)) != tt.after || p.Looking() != 0 {
					t.Errorf("%d looks, known %q, looking for %d; want %d, %q, 0", looks.Load(), p.Get(nth(t, "app", 0)), p.Looking(), tt.looks, tt.after)
				}
			})
		})
	}
}

// A look-up belongs to the callers that still wait for it.
func TestALookUpBelongsToItsWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := registry.NewCompartments()
		release := make(chan struct{})
		look := func(context.Context, image.Reference) (registry.Image, error) {
			<-release
			return registry.Image{CompartmentID: "here"}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		for n, ctx := range []context.Context{ctx, t.Context()} {
			wait.Go(func() {
				at, err := p.Find(ctx, nth(t, "app", n), look)
				if (at == "here") != (n == 1) || (err != nil) != (n == 0) {
					t.Errorf("caller %d: %q, %v", n, at, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if n := p.Looking(); n != 1 {
			t.Errorf("looking for %d repositories, want one", n)
		}
		close(release)
		wait.Wait()
		if n := p.Looking(); n != 0 {
			t.Errorf("looking for %d repositories, want none", n)
		}
	})
}

// Two simultaneous rejections count as one.
func TestSimultaneousRejections(t *testing.T) {
	c := newCrowd(t, 1, 100)
	c.check(c.refs[0])
	c.client.Refused(c.refs[0])
	c.client.Refused(c.refs[0])
	c.pass(30 * time.Second)
	if !c.client.MayListTenancy(c.refs[0]) {
		t.Error("the root is not listed after half a minute")
	}
}

// told returns a function that fails the test at a panic.
func told(t *testing.T) func(*contain.PanicError) {
	return func(p *contain.PanicError) { t.Errorf("told %v", p) }
}
