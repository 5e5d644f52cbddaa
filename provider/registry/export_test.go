package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// CachedAmong is how many compartments are cached of n repositories.
func CachedAmong(n int) (int, error) {
	c := newCompartmentCache(time.Now)
	for i := range n {
		ref, err := image.Parse(fmt.Sprint("iad.ocir.io/ns/app-", i))
		if err != nil {
			return 0, err
		}
		c.set(ref, "compartment")
	}
	return len(c.compartments), nil
}

// Bounds of what is read in bulk.
const (
	MaxBulkBytes  = maxBulkBytes
	MaxBulkKeys   = maxBulkKeys
	MaxBulkPages  = maxBulkPages
	MaxBlankPages = maxBlankPages
)

// Hold has a client hold a number of bytes that were read in bulk.
func (c *Client) Hold(bytes int) {
	c.bulk.mu.Lock()
	defer c.bulk.mu.Unlock()
	c.bulk.bytes = bytes
}

// Held is how many bytes that were read in bulk a client holds.
func (c *Client) Held() int {
	c.bulk.mu.Lock()
	defer c.bulk.mu.Unlock()
	return c.bulk.bytes
}

// Interests is how many repositories a client has an interest in.
func (c *Client) Interests() int {
	c.bulk.mu.Lock()
	defer c.bulk.mu.Unlock()
	return len(c.bulk.repos)
}

// Wanted is how many keys are wanted of one repository after each of the questions, and
// how many of them an inventory has that was made after the first one.
func Wanted(inventoried bool, questions ...[]signature.KeyID) (wanted, held int) {
	i := new(interest)
	var first map[string]bool
	for n, keys := range questions {
		if i.addKeys(keys); n == 0 {
			first = i.keys
			if inventoried {
				i.inv = &inventory{keys: i.keys}
			}
		}
	}
	return len(i.keys), len(first)
}

// Cursor reads a list page by page.
type Cursor = cursor

// Advance reads on as far as Bulk does at once.
func (cur *cursor) Advance(read func(page *string) (oci.Page, error)) error {
	return cur.advance(read)
}

// Over is whether the list is at its end.
func (cur *cursor) Over() bool { return cur.done }

// Worthwhile is whether reading on costs less than look-ups, for lists of which some
// pages have been read.
func Worthwhile(images, signatures oci.Page) bool {
	var inv inventory
	for at, page := range map[*cursor]oci.Page{&inv.imagesAt: images, &inv.signaturesAt: signatures} {
		*at = cursor{pages: 1, items: page.Items, left: page.Remaining, done: page.Next == nil}
	}
	return inv.worthwhile()
}

// MayListTenancy is whether a list at the root of an image's tenancy is worth trying.
func (c *Client) MayListTenancy(ref image.Reference) bool {
	return c.cached.mayListTenancy(ref, c.tenancies[ref.Namespace()])
}

// Refused notes a refusal at the root of an image's tenancy.
func (c *Client) Refused(ref image.Reference) { c.cached.refused(ref, c.tenancies[ref.Namespace()]) }

// Inventories are what is read of repositories as a whole, without a client.
type Inventories struct{ *bulk }

// NewInventories returns none.
func NewInventories(now func() time.Time) Inventories {
	return Inventories{&bulk{now: now, repos: make(map[repository]*interest)}}
}

// Inventory is what was read of one repository.
type Inventory = inventory

// Ask asks for an image of a repository whose compartment is known or not. It returns the
// inventory of the repository, nil if there is none.
func (b Inventories) Ask(known bool, ref image.Reference) *Inventory {
	inv, _ := b.ask(bulkQuery{repositoryOf(ref), ref.Digest(), nil}, known)
	return inv
}

// Waits reports whether a caller who asks for an image waits for a page that another
// caller reads.
func (b Inventories) Waits(ref image.Reference) bool {
	_, page := b.ask(bulkQuery{repositoryOf(ref), ref.Digest(), nil}, true)
	return page.done != nil && !page.mine
}

// Read ends the page that is being read, with nothing on it and more to follow.
func (b Inventories) Read(inv *Inventory) { b.pageEnded(inv, "", nil) }

// Reading is whether a page is being read.
func (b Inventories) Reading(inv *Inventory) bool { return inv.page != nil }

// Hold has the inventories hold a number of bytes.
func (b Inventories) Hold(bytes int) { b.bytes = bytes }

// Add adds an image to an inventory.
func (b Inventories) Add(inv *Inventory, ref image.Reference) {
	b.addImages(inv, []imageSummary{{ID: "id", Digest: ref.Digest(), RepositoryName: ref.Repository()}})
}

// Held is how many bytes all inventories have.
func (b Inventories) Held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// Interests is how many repositories somebody has an interest in.
func (b Inventories) Interests() int { return len(b.repos) }

// ReadsOn is whether another page is read after one, of two lists that may be over.
func ReadsOn(imagesOver, signaturesOver, dropped bool, ahead, held int) bool {
	inv := &inventory{page: make(chan struct{}), ahead: ahead, dropped: dropped}
	inv.imagesAt.done, inv.signaturesAt.done = imagesOver, signaturesOver
	b := bulk{now: time.Now, repos: map[repository]*interest{{}: {inv: inv}}, bytes: held}
	return b.pageEnded(inv, "", nil)
}

// Compartments knows the compartments of repositories, without a client.
type Compartments struct{ *compartmentCache }

// NewCompartments returns a Compartments that knows none.
func NewCompartments() Compartments { return Compartments{newCompartmentCache(time.Now)} }

// Find looks for the compartment of a repository.
func (p Compartments) Find(ctx context.Context, ref image.Reference, look func(context.Context, image.Reference) (Image, error)) (string, error) {
	return p.lookUp(ctx, ref, func(ctx context.Context, ref image.Reference) (string, error) {
		img, err := look(ctx, ref)
		return img.CompartmentID, err
	})
}

// Get is the compartment of a repository, if it is known.
func (p Compartments) Get(ref image.Reference) string { return p.get(ref) }

// Set sets the compartment of a repository.
func (p Compartments) Set(ref image.Reference, compartment string) { p.set(ref, compartment) }

// Looking is for how many repositories somebody looks.
func (p Compartments) Looking() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiters)
}
