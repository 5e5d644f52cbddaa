package registry

import (
	"fmt"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Remembered is how many places are remembered of n repositories that were found.
func Remembered(n int) (int, error) {
	p := newPlaces(time.Now)
	for i := range n {
		ref, err := image.Parse(fmt.Sprint("iad.ocir.io/ns/app-", i))
		if err != nil {
			return 0, err
		}
		p.remember(ref, "compartment")
	}
	return len(p.known), nil
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
	c.bulk.held = bytes
}

// Held is how many bytes that were read in bulk a client holds.
func (c *Client) Held() int {
	c.bulk.mu.Lock()
	defer c.bulk.mu.Unlock()
	return c.bulk.held
}

// Interests is how many repositories a client has an interest in.
func (c *Client) Interests() int {
	c.bulk.mu.Lock()
	defer c.bulk.mu.Unlock()
	return len(c.bulk.repos)
}

// Wanted is the keys that are wanted of one repository after each of the questions.
func Wanted(questions ...[]signature.KeyID) (wanted int) {
	i := new(interest)
	for _, keys := range questions {
		i.want(keys)
	}
	return len(i.keys)
}

// Cursor reads a list page by page.
type Cursor = cursor

// Advance reads on as far as Bulk does at once.
func (cur *cursor) Advance(read func(page *string) (ociauth.Page, error)) error {
	return cur.advance(read)
}

// Over is whether the list is at its end.
func (cur *cursor) Over() bool { return cur.over }

// Worthwhile is whether reading on costs less than look-ups, for lists of which some
// pages have been read.
func Worthwhile(images, signatures ociauth.Page) bool {
	var inv inventory
	for at, page := range map[*cursor]ociauth.Page{&inv.imagesAt: images, &inv.signaturesAt: signatures} {
		*at = cursor{pages: 1, items: page.Items, left: page.Remaining, over: page.Next == nil}
	}
	return inv.worthwhile()
}

// Rooted is whether a list at the root of an image's tenancy is worth trying.
func (c *Client) Rooted(ref image.Reference) bool {
	return c.places.rooted(ref, c.tenancies[ref.Namespace()])
}
