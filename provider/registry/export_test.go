package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// CachedAmong returns how many of n repositories have a cached compartment.
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

// Bounds of the lists that Bulk reads.
const (
	MaxBulkBytes  = maxBulkBytes
	MaxBulkKeys   = maxBulkKeys
	MaxBulkPages  = maxBulkPages
	MaxBlankPages = maxBlankPages
)

// Hold makes a client count a number of bytes as held by lists.
func (c *Client) Hold(bytes int) {
	c.bulk.mu.Lock()
	defer c.bulk.mu.Unlock()
	c.bulk.bytes = bytes
}

// Held returns how many bytes a client holds from lists.
func (c *Client) Held() int {
	c.bulk.mu.Lock()
	defer c.bulk.mu.Unlock()
	return c.bulk.bytes
}

// Interests returns the number of repositories in which a client has an interest.
func (c *Client) Interests() int {
	c.bulk.mu.Lock()
	defer c.bulk.mu.Unlock()
	return len(c.bulk.repos)
}

// Wanted returns how many keys of one repository are wanted after the questions. It
// also returns how many of them are in an inventory that was made after the first
// question.
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

// Advance makes one step of Bulk.
func (cur *cursor) Advance(read func(page *string) (oci.Page, error)) error {
	return cur.advance(read)
}

// Over reports whether the list is at its end.
func (cur *cursor) Over() bool { return cur.done }

// Worthwhile reports whether reading the next pages costs less than look-ups. Some
// pages of both lists have been read.
func Worthwhile(images, signatures oci.Page) bool {
	var inv inventory
	for at, page := range map[*cursor]oci.Page{&inv.imagesAt: images, &inv.signaturesAt: signatures} {
		*at = cursor{pages: 1, items: page.Items, left: page.Remaining, done: page.Next == nil}
	}
	return inv.worthwhile()
}

// MayListTenancy reports whether a list at the root of an image's tenancy may
// succeed.
func (c *Client) MayListTenancy(ref image.Reference) bool {
	return c.cached.mayListTenancy(ref, c.tenancies[ref.Namespace()])
}

// Refused records a rejection at the root of an image's tenancy.
func (c *Client) Refused(ref image.Reference) { c.cached.refused(ref, c.tenancies[ref.Namespace()]) }

// Inventories has the lists of whole repositories, without a client.
type Inventories struct{ *bulk }

// NewInventories returns an empty Inventories.
func NewInventories(now func() time.Time) Inventories {
	return Inventories{&bulk{now: now, repos: make(map[repository]*interest)}}
}

// Inventory has the lists of one repository.
type Inventory = inventory

// Ask asks for an image of a repository whose compartment may be known. It returns
// the repository's inventory, or nil.
func (b Inventories) Ask(known bool, ref image.Reference) *Inventory {
	inv, _ := b.ask(bulkQuery{repositoryOf(ref), ref.Digest(), nil}, known)
	return inv
}

// Waits reports whether a question for an image waits for a page that another caller
// reads.
func (b Inventories) Waits(ref image.Reference) bool {
	_, page := b.ask(bulkQuery{repositoryOf(ref), ref.Digest(), nil}, true)
	return page.done != nil && !page.mine
}

// Read ends the reading of the current page. The page has no item, and another page
// follows.
func (b Inventories) Read(inv *Inventory) { b.pageEnded(inv, "", nil) }

// Reading reports whether a page is being read.
func (b Inventories) Reading(inv *Inventory) bool { return inv.page != nil }

// Hold makes the inventories count a number of bytes as held.
func (b Inventories) Hold(bytes int) { b.bytes = bytes }

// Add adds an image to an inventory.
func (b Inventories) Add(inv *Inventory, ref image.Reference) {
	b.addImages(inv, []imageSummary{{ID: "id", Digest: ref.Digest(), RepositoryName: ref.Repository()}})
}

// Held returns how many bytes all inventories hold.
func (b Inventories) Held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes
}

// Interests returns the number of repositories with an interest.
func (b Inventories) Interests() int { return len(b.repos) }

// ReadsOn reports whether another page is read. Each of the two lists may be at its
// end.
func ReadsOn(imagesOver, signaturesOver, dropped bool, ahead, held int) bool {
	inv := &inventory{page: make(chan struct{}), ahead: ahead, dropped: dropped}
	inv.imagesAt.done, inv.signaturesAt.done = imagesOver, signaturesOver
	b := bulk{now: time.Now, repos: map[repository]*interest{{}: {inv: inv}}, bytes: held}
	return b.pageEnded(inv, "", nil)
}

// Compartments caches the compartments of repositories, without a client.
type Compartments struct{ *compartmentCache }

// NewCompartments returns an empty Compartments.
func NewCompartments() Compartments { return Compartments{newCompartmentCache(time.Now)} }

// Find finds the compartment of a repository.
func (p Compartments) Find(ctx context.Context, ref image.Reference, look func(context.Context, image.Reference) (Image, error)) (string, error) {
	return p.lookUp(ctx, ref, func(ctx context.Context, ref image.Reference) (string, error) {
		img, err := look(ctx, ref)
		return img.CompartmentID, err
	})
}

// Get returns the cached compartment of a repository, or "".
func (p Compartments) Get(ref image.Reference) string { return p.get(ref) }

// Set sets the compartment of a repository.
func (p Compartments) Set(ref image.Reference, compartment string) { p.set(ref, compartment) }

// Looking returns the number of repositories that callers look for.
func (p Compartments) Looking() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiters)
}
