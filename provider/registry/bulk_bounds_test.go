package registry_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// bulk asks a client for one image of a crowd, and returns the number of its
// records.
func (c *crowd) bulk(t *testing.T, n int) int {
	t.Helper()
	records, _ := c.client.Bulk(t.Context(), c.refs[n], c.keys)
	return len(records)
}

func TestBulkAsksOnlyWhereItHelps(t *testing.T) {
	t.Run("one image, any number of times", func(t *testing.T) {
		c := newCrowd(t, 5, 100)
		if got := c.cost(func() { c.bulk(t, 0); c.bulk(t, 0); c.bulk(t, 0) }); got != 0 {
			t.Errorf("%d calls", got)
		}
	})
	t.Run("images of another tenancy", func(t *testing.T) {
		c := newCrowd(t, 5, 100)
		c.bulk(t, 0) // the client learns its namespace
		for n := range c.refs {
			c.refs[n] = parse(t, strings.Replace(c.refs[n].String(), c.tenancy.Namespace, "elsewhere", 1))
		}
		if got := c.cost(func() { c.bulk(t, 0); c.bulk(t, 1); c.bulk(t, 2) }); got != 0 {
			t.Errorf("%d calls", got)
		}
	})
	t.Run("a tag after a digest", func(t *testing.T) {
		c := newCrowd(t, 5, 100)
		c.refs[1] = parse(t, c.refs[1].Name()+":v1")
		if got := c.cost(func() { c.bulk(t, 0); c.bulk(t, 1); c.bulk(t, 1) }); got != 0 {
			t.Errorf("%d calls", got)
		}
	})
	t.Run("the configured compartments", func(t *testing.T) {
		c := newCrowd(t, 5, 100)
		var compartments []string
		for _, name := range []string{"empty", "team"} {
			compartments = append(compartments, c.tenancy.NewCompartment(name, ""))
			c.tenancy.Allow("Allow user dev to read repos in compartment " + name)
		}
		c.tenancy.MoveRepository(c.images[0].RepositoryID, compartments[1])
		c.client = client(t, c.tenancy.NewUser("dev"), registry.Config{Compartments: compartments})
		if _, _, err := c.client.Records(t.Context(), c.refs[0]); err != nil {
			t.Fatal(err)
		}
		c.bulk(t, 0)
		if got := c.bulk(t, 1) + c.bulk(t, 2); got != 2 {
			t.Errorf("%d records of two images", got)
		}
	})
	t.Run("a repository whose compartment is found later", func(t *testing.T) {
		c := newCrowd(t, 5, 100)
		c.tenancy.MoveRepository(c.images[0].RepositoryID, c.tenancy.NewCompartment("team", ""))
		c.tenancy.Allow("Allow user dev to read repos in compartment team")
		c.askAs(t, c.tenancy.NewUser("dev"))
		for range 2 { // rejected at the root, the second time for ten minutes
			if _, _, err := c.client.Records(t.Context(), missing(t, c.images[0])); err != nil {
				t.Fatal(err)
			}
			c.pass(31 * time.Second)
		}
		if got := c.cost(func() { c.bulk(t, 0); c.bulk(t, 1) }); got != 0 {
			t.Errorf("%d calls without a compartment", got)
		}
		c.pass(31 * time.Second)
		if _, _, err := c.client.Records(t.Context(), c.refs[0]); err != nil {
			t.Fatal(err)
		}
		if got := c.bulk(t, 2) + c.bulk(t, 3); got != 2 {
			t.Errorf("%d records of two images", got)
		}
	})
}

func TestBulkWaitsOnceForAHangingList(t *testing.T) {
	c := newCrowd(t, 3, 100)
	c.tenancy.Fault(ocitest.Fault{Operation: images, Kind: ocitest.Hang})
	c.bulk(t, 0)
	began := time.Now()
	for range 10 {
		c.bulk(t, 1)
	}
	if took := time.Since(began); took > 3*time.Second { // the first one waits for 0.4 s
		t.Errorf("ten calls took %v", took)
	}
}

// A malformed list is abandoned at once. Its other pages are not read.
func TestBulkAbandonsMalformedLists(t *testing.T) {
	for _, lie := range []map[string]any{{"id": ""}, {"lifecycleState": ""}} {
		c := newCrowd(t, 25, 10)
		c.tenancy.Fault(ocitest.Fault{Operation: images, Kind: ocitest.Set, Set: lie})
		for n := range 10 {
			c.bulk(t, n)
		}
		if n := c.tenancy.Calls()[images]; n > 2 { // one page, and possibly an empty one
			t.Errorf("%v: %d pages were read", lie, n)
		}
	}
	for _, lie := range []map[string]any{{"id": ""}, {"lifecycleState": ""}} {
		c := newCrowd(t, 25, 10)
		c.tenancy.Fault(ocitest.Fault{Operation: lists, Kind: ocitest.Set, Set: lie})
		for n := range 10 {
			c.bulk(t, n)
		}
		if n := c.tenancy.Calls()[lists]; n > 2 {
			t.Errorf("signatures with %v: %d pages were read", lie, n)
		}
	}
}

func TestBulkMemoryIsBounded(t *testing.T) {
	t.Run("of bytes", func(t *testing.T) {
		for held, want := range map[int]int{registry.MaxBulkBytes - 1: 1, registry.MaxBulkBytes: 0} {
			c := newCrowd(t, 3, 100)
			c.client.Hold(held)
			c.bulk(t, 0)
			if got := c.bulk(t, 1); got != want {
				t.Errorf("with %d bytes held: %d records, want %d", held, got, want)
			}
		}
	})
	t.Run("while it reads ahead", func(t *testing.T) {
		for held, want := range map[int]int{0: 3, registry.MaxBulkBytes - 1: 2, registry.MaxBulkBytes: 1} {
			c := newCrowd(t, 60, 10)
			c.bulk(t, 59)
			c.bulk(t, 0) // the first page; the oldest image is on none of the next two
			if n := c.tenancy.Calls()[images]; n != 1 {
				t.Fatalf("%d pages", n)
			}
			c.client.Hold(held)
			c.bulk(t, 0)
			time.Sleep(300 * time.Millisecond) // the reading runs in the background
			if n := c.tenancy.Calls()[images]; n != want {
				t.Errorf("with %d bytes held: %d pages, want %d", held, n, want)
			}
		}
	})
	t.Run("which it counts", func(t *testing.T) {
		c := newCrowd(t, 3, 100)
		c.bulk(t, 0)
		c.bulk(t, 1)
		texts := 0
		for _, img := range c.images {
			records, _, err := c.client.Records(t.Context(), parse(t, img.Ref()))
			if err != nil || len(records) != 1 {
				t.Fatal(len(records), err)
			}
			texts += 2*len(img.ID) + len(img.Digest) + len(records[0].ID) + len(records[0].Message) + len(records[0].Signature)
		}
		if got, want := c.client.Held(), texts+3*3*256; got != want { // an image, its records and one record of it
			t.Errorf("%d bytes are held, want %d", got, want)
		}
		c.pass(2 * time.Minute)
		c.bulk(t, 0)
		if got := c.client.Held(); got != 0 {
			t.Errorf("%d bytes are held half a minute later", got)
		}
	})
	t.Run("of repositories", func(t *testing.T) {
		c := newCrowd(t, 1, 100)
		for n := range 10_001 {
			if _, at := c.client.Bulk(t.Context(), parse(t, fmt.Sprintf("iad.ocir.io/%s/app-%d@%s", c.tenancy.Namespace, n, c.refs[0].Digest())), c.keys); !at.IsZero() {
				t.Fatal("records")
			}
			if want := n + 1; c.client.Interests() != want && (n < 10_000 || c.client.Interests() != 1) {
				t.Fatalf("after %d repositories: %d", want, c.client.Interests())
			}
		}
	})
	t.Run("of keys", func(t *testing.T) {
		keys := make([]signature.KeyID, 20)
		for i := range keys {
			var err error
			if keys[i], err = signature.ParseKeyID("ocid1.key.oc1.iad.vault." + strings.Repeat("a", 58) + fmt.Sprintf("%02d", i)); err != nil {
				t.Fatal(err)
			}
		}
		for name, tt := range map[string]struct {
			questions   [][]signature.KeyID
			inventoried bool
			want, held  int
		}{
			"one by one":                  {[][]signature.KeyID{keys[:1], keys[1:2], keys[:2]}, false, 2, 2},
			"as many as the limit":        {[][]signature.KeyID{keys[:12], keys[12:16]}, false, registry.MaxBulkKeys, registry.MaxBulkKeys},
			"one more, in a question":     {[][]signature.KeyID{keys[:17]}, false, registry.MaxBulkKeys, registry.MaxBulkKeys},
			"one more, in another one":    {[][]signature.KeyID{keys[:12], keys[12:17]}, false, 5, 12}, // the earlier keys are dropped
			"one more, for an inventory":  {[][]signature.KeyID{keys[:12], keys[12:17]}, true, registry.MaxBulkKeys, registry.MaxBulkKeys},
			"many more, for an inventory": {[][]signature.KeyID{keys[:16], keys[16:]}, true, registry.MaxBulkKeys, registry.MaxBulkKeys},
		} {
			if got, held := registry.Wanted(tt.inventoried, tt.questions...); got != tt.want || held != tt.held {
				t.Errorf("%s: %d keys, %d of them in the first map; want %d, %d", name, got, held, tt.want, tt.held)
			}
		}
	})
}

// pages returns a list whose pages have these numbers of items, and count the items
// after them.
func pages(items ...int) func(page *string) (oci.Page, error) {
	n := 0
	return func(*string) (oci.Page, error) {
		got := oci.Page{Items: items[n]}
		for _, later := range items[n+1:] {
			got.Remaining += later
		}
		if n++; n < len(items) {
			token := fmt.Sprint("page-", n)
			got.Next = &token
		}
		return got, nil
	}
}

func TestBulkReadsAPageAtATime(t *testing.T) {
	full := func(n int) []int {
		items := make([]int, n)
		for i := range items {
			items[i] = 10
		}
		return items
	}
	for name, tt := range map[string]struct {
		items []int
		steps int // number of steps until the list ends or fails
		fails bool
	}{
		"one page":                      {[]int{7}, 1, false},
		"an empty list":                 {[]int{0}, 1, false},
		"blank pages before an item":    {[]int{0, 0, 1, 1}, 2, false},
		"too many blank pages":          {[]int{0, 0, 0, 1}, 1, true},
		"a blank page at the end":       {[]int{1, 0}, 2, false},
		"blank pages among many":        {slices.Repeat([]int{10, 0}, registry.MaxBulkPages), registry.MaxBulkPages, false},
		"as many pages as the limit":    {full(registry.MaxBulkPages), registry.MaxBulkPages, false},
		"one page more: only the first": {full(registry.MaxBulkPages + 1), 1, false},
	} {
		var cur registry.Cursor
		read := pages(tt.items...)
		var err error
		steps := 0
		for !cur.Over() && err == nil {
			err = cur.Advance(read)
			steps++
		}
		if steps != tt.steps || (err != nil) != tt.fails {
			t.Errorf("%s: %d steps, %v", name, steps, err)
		}
	}
	var cur registry.Cursor
	token := "again"
	again := func(*string) (oci.Page, error) { return oci.Page{Items: 1, Remaining: 1, Next: &token}, nil }
	if err := cur.Advance(again); err != nil {
		t.Error(err)
	}
	if err := cur.Advance(again); err == nil || !strings.Contains(err.Error(), "names itself as the next page") {
		t.Errorf("a page that follows itself: %v", err)
	}
	failed := errors.New("503")
	if err := new(registry.Cursor).Advance(func(*string) (oci.Page, error) { return oci.Page{}, failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

func TestBulkReadsWhileItIsWorthIt(t *testing.T) {
	more := "more"
	page := func(items, left int) oci.Page { return oci.Page{Items: items, Remaining: left, Next: &more} }
	over := func(items int) oci.Page { return oci.Page{Items: items} }
	for name, tt := range map[string]struct {
		images, signatures oci.Page
		want               bool
	}{
		"all pages were read":           {over(3), over(3), true},
		"two pages for four images":     {over(4), page(10, 20), true},
		"two pages for three images":    {over(3), page(10, 20), false},
		"part of a page counts as one":  {over(4), page(10, 11), true},
		"part of a page too many":       {over(4), page(10, 21), false},
		"pages of both lists":           {page(2, 2), page(10, 10), true},
		"pages of both lists, one more": {page(2, 2), page(10, 11), false},
		"images on later pages":         {page(10, 10), page(10, 80), true},
		"more signatures than look-ups": {page(10, 10), page(10, 100), false},
	} {
		if got := registry.Worthwhile(tt.images, tt.signatures); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A rejection at a tenancy's root counts for half a minute, and a second one for ten
// minutes. An answer at the root removes both.
func TestRejectionsAtTheRoot(t *testing.T) {
	c := newCrowd(t, 1, 100)
	ask := func(refused bool) {
		t.Helper()
		if refused {
			c.tenancy.Fault(ocitest.Fault{Operation: lists, Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound", Count: 1})
		}
		if got, _, err := c.client.Records(t.Context(), c.refs[0]); err != nil || len(got) != 1 {
			t.Fatal(got, err)
		}
	}
	rooted := func(after time.Duration, want bool) {
		t.Helper()
		c.pass(after)
		if got := c.client.MayListTenancy(c.refs[0]); got != want {
			t.Errorf("%s later: %t", after, got)
		}
	}
	ask(true)
	rooted(29*time.Second, false)
	rooted(time.Second, true)
	ask(true) // again
	rooted(10*time.Minute-1, false)
	rooted(1, true)
	ask(false)
	ask(true) // as at the first time
	rooted(29*time.Second, false)
	rooted(time.Second, true)
}
