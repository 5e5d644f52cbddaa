package registry

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"golang.org/x/sync/errgroup"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// When a repository is read as a whole. A page of its images and one of its
// signatures cost two calls where a look-up costs one, so the second image within
// a short while costs one call more than it would, and each one after it none.
const (
	askedWithin = time.Minute
	// bulkFor is how long what was read is of use. It is no longer than a denial
	// is kept, so that nothing read before a denial can overrule it.
	bulkFor = 30 * time.Second
	// barrenFor is how long a repository is left alone whose lists helped nobody or
	// are refused, failedFor one whose lists could not be read.
	barrenFor = placeFor
	failedFor = 10 * time.Second
	// patience is how long a page is waited for before one look-up is the better
	// choice: what is left of a request's budget must suffice for it.
	patience = 400 * time.Millisecond
)

// Bounds of what is read and held.
const (
	maxBulkPages  = 20       // of each list; of a longer one, the first
	maxBlankPages = 3        // in a row
	maxBulkKeys   = 16       // whose records are held, one by each of an image
	maxBulkBytes  = 16 << 20 // of all repositories together, about
	entryBytes    = 256      // of a record or an image, beside its texts
)

// Bulk returns records of the image that ref pins which were read together with
// those of its repository's other images, newest first, and when that reading
// began, at most half a minute ago; or nothing. They are such as name one of keys.
// It is for callers that ask for many images: where it returns records, nobody
// asked OCI for this image.
//
// They suffice for a yes, never for a no: each is one that Records would have
// returned at that time, but there may be more of them. A page may have moved
// while the lists were read, a signature may be newer, a history may be too long
// to be read to its end. Nor is it an error if OCI does not answer: Records will
// tell.
//
// Each call waits for one page of either list at most. One that this may not help
// has twice as many read in the background as the one before it, up to the bounds,
// for those who come after it.
func (c *Client) Bulk(ctx context.Context, ref image.Reference, keys []signature.KeyID) ([]signature.Record, time.Time) {
	in, placed := c.place(ctx, ref)
	inv, page := c.bulk.ask(wanted{repositoryOf(ref), ref.Digest(), keys}, placed)
	if inv == nil {
		return nil, time.Time{}
	}
	if page.ours {
		go c.readAhead(context.WithoutCancel(ctx), ref, in, inv)
	}
	if page.done != nil {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-page.done:
		case <-timer.C:
			c.bulk.late(inv, page.done)
		case <-ctx.Done():
		}
	}
	return c.bulk.find(ctx, inv, wanted{repositoryOf(ref), ref.Digest(), keys})
}

// place is where a look-up would find the records of ref's repository, if that
// is known without a call.
func (c *Client) place(ctx context.Context, ref image.Reference) (place, bool) {
	tenancy, err := c.Tenancy(ctx, ref)
	switch {
	case err != nil || ref.Digest() == "":
		return place{}, false
	case len(c.compartments) == 1:
		return place{c.compartments[0], false}, true
	case len(c.compartments) == 0 && c.places.rooted(ref, tenancy):
		return place{tenancy, true}, true
	}
	known := c.places.recall(ref)
	return place{known, false}, known != ""
}

// wanted is what somebody asks for.
type wanted struct {
	repository repository
	digest     string
	keys       []signature.KeyID
}

// inventory is what was read of one repository: its images and their signatures,
// as far as the lists have been read. What it holds is guarded by bulk.mu; the
// cursors belong to whoever reads the next page.
type inventory struct {
	repository repository
	began      time.Time
	images     map[string]listedImage     // by digest
	records    map[string]*recordsOfImage // by image id
	keys       map[string]bool            // whose records are held; added to, and not taken from
	texts      map[string]string          // that many records have in common, each once
	size       int
	page       chan struct{} // being read; nil if none is
	late       bool          // it is not worth waiting for
	ahead      int           // pages to read before somebody asks for more
	last       int           // how many that was when it began
	requests   string        // ids of the calls
	helped     bool
	dropped    bool // what else is read counts for nothing

	imagesAt, signaturesAt     cursor
	imagesOver, signaturesOver bool // as the cursors say, for those who do not hold them
}

// listedImage is the one image of a digest. A digest that was pushed again after
// its image was deleted has two, and only a look-up knows what OCI makes of that.
type listedImage struct {
	id       string
	doubtful bool
}

// recordsOfImage are the newest by each key, of those that are available.
type recordsOfImage struct {
	seen int
	kept []signature.Record
}

// cursor is how far a list has been read.
type cursor struct {
	next  *string
	pages int
	items int // on these pages
	left  int // items after them, as OCI says
	over  bool
}

// pagesLeft is how many there are likely to be.
func (cur *cursor) pagesLeft() int {
	each := max(1, cur.items/max(1, cur.pages))
	return (cur.left + each - 1) / each
}

// bulk remembers which repositories are much asked for, and what was read of them.
type bulk struct {
	now func() time.Time

	mu    sync.Mutex
	repos map[repository]*interest
	held  int // bytes
}

// interest is that in one repository.
type interest struct {
	digest string // asked for last
	at     time.Time
	rest   time.Time // nothing is read until then
	keys   map[string]bool
	inv    *inventory
}

// turn is a page that is to be waited for, if there is one, and whether the
// caller has to read it.
type turn struct {
	done chan struct{}
	ours bool
}

// ask returns what there is of a repository, or nil, and the page to wait for
// that may have the digest on it.
func (b *bulk) ask(w wanted, placed bool) (*inventory, turn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	i := b.repos[w.repository]
	if i == nil {
		if len(b.repos) >= maxPlaces {
			b.forget() // as places does
		}
		i = new(interest)
		b.repos[w.repository] = i
	}
	another := i.digest != w.digest && now.Sub(i.at) < askedWithin
	i.digest, i.at = w.digest, now
	i.want(w.keys)
	if i.inv != nil && now.Sub(i.inv.began) >= bulkFor {
		b.drop(i.inv)
	}
	if i.inv == nil {
		if !placed || !another || now.Before(i.rest) || b.held >= maxBulkBytes {
			return nil, turn{}
		}
		inv := &inventory{
			repository: w.repository, began: now, keys: i.keys,
			images: make(map[string]listedImage), records: make(map[string]*recordsOfImage), texts: make(map[string]string),
		}
		i.inv = inv
		time.AfterFunc(bulkFor, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.drop(inv)
		})
	}
	inv := i.inv
	switch _, more := inv.find(w); {
	case !more || !placed:
		return inv, turn{}
	case inv.late || inv.page == nil && b.held >= maxBulkBytes:
		return inv, turn{}
	case inv.page != nil:
		return inv, turn{done: inv.page}
	}
	inv.page, inv.last = make(chan struct{}), max(1, 2*inv.last)
	inv.ahead = inv.last
	return inv, turn{inv.page, true}
}

// forget drops all inventories and forgets all repositories. The caller holds b.mu.
func (b *bulk) forget() {
	for _, i := range b.repos {
		if i.inv != nil {
			b.drop(i.inv)
		}
	}
	clear(b.repos)
}

// drop removes an inventory from its repository, once. The caller holds b.mu.
func (b *bulk) drop(inv *inventory) {
	if inv.dropped {
		return
	}
	inv.dropped = true
	b.held -= inv.size
	i := b.repos[inv.repository]
	i.inv = nil
	if rest := b.now().Add(barrenFor); !inv.helped && i.rest.Before(inv.began) {
		i.rest = rest
	}
}

// find is for those who have waited.
func (b *bulk) find(ctx context.Context, inv *inventory, w wanted) ([]signature.Record, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	records, _ := inv.find(w)
	if len(records) == 0 {
		return nil, time.Time{}
	}
	inv.helped = true
	ociauth.AddRequests(ctx, inv.requests)
	return records, inv.began
}

// find returns the records of an image, and whether reading on may bring some.
func (inv *inventory) find(w wanted) (records []signature.Record, more bool) {
	img, known := inv.images[w.digest]
	switch {
	case !known:
		return nil, !inv.imagesOver
	case img.doubtful:
		return nil, false
	}
	of := inv.records[img.id]
	switch {
	case of == nil:
		return nil, !inv.signaturesOver
	case of.seen > newest: // a look-up would not have seen the rest
		return nil, false
	}
	for _, rec := range of.kept {
		if slices.ContainsFunc(w.keys, func(id signature.KeyID) bool { return id.String() == rec.KeyID }) {
			records = append(records, rec)
		}
	}
	return records, len(records) == 0 && !inv.signaturesOver
}

// want adds keys to those whose records are held. The map is shared with the
// inventory.
func (i *interest) want(keys []signature.KeyID) {
	if i.keys == nil || i.inv == nil && len(i.keys) > maxBulkKeys-len(keys) {
		i.keys = make(map[string]bool)
	}
	for _, id := range keys {
		if len(i.keys) < maxBulkKeys {
			i.keys[id.String()] = true
		}
	}
}

// late has nobody else wait for a page.
func (b *bulk) late(inv *inventory, page chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	inv.late = inv.page == page
}

// readAhead reads pages until as many are there as were asked for.
func (c *Client) readAhead(ctx context.Context, ref image.Reference, in place, inv *inventory) {
	for more := true; more; {
		ctx, ids := ociauth.WithRequests(ctx)
		err := contain.Run(func() error { return c.readOn(ctx, ref, in, inv) })
		if p, ok := contain.Unlogged(err); ok && c.panicked != nil {
			c.panicked(p)
		}
		more = c.bulk.turned(inv, ids(), err)
	}
}

// turned takes note of how reading a page ended, and says whether there is another
// to be read.
func (b *bulk) turned(inv *inventory, requests string, err error) (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	inv.requests += " " + requests
	inv.imagesOver, inv.signaturesOver = inv.imagesAt.over, inv.signaturesAt.over
	if !inv.worthwhile() {
		inv.imagesOver, inv.signaturesOver = true, true
	}
	if err != nil {
		inv.imagesOver, inv.signaturesOver = true, true
		rest := failedFor
		if ociauth.IsNotFound(err) {
			rest = barrenFor
		}
		if !inv.dropped {
			b.repos[inv.repository].rest = b.now().Add(rest)
		}
	}
	close(inv.page)
	inv.page, inv.late = nil, false
	inv.ahead--
	if more = !inv.dropped && inv.ahead > 0 && (!inv.imagesOver || !inv.signaturesOver) && b.held < maxBulkBytes; more {
		inv.page = make(chan struct{})
	}
	return more
}

// worthwhile reports whether the rest of the lists costs less than half of what a
// look-up of each image would. Many signatures on small pages do not.
func (inv *inventory) worthwhile() bool {
	images, pages := &inv.imagesAt, 0
	for _, at := range []*cursor{images, &inv.signaturesAt} {
		if !at.over {
			pages += at.pagesLeft()
		}
	}
	return 2*pages <= images.items+images.left
}

// readOn reads the next page of both lists, side by side.
func (c *Client) readOn(ctx context.Context, ref image.Reference, in place, inv *inventory) error {
	group, ctx := errgroup.WithContext(ctx)
	if !inv.imagesAt.over {
		group.Go(func() (err error) {
			defer contain.Panic(&err)
			return inv.imagesAt.advance(func(page *string) (ociauth.Page, error) {
				items, p, err := c.imagesPage(ctx, ref, in, page)
				c.bulk.addImages(inv, items)
				return p, err
			})
		})
	}
	if !inv.signaturesAt.over {
		group.Go(func() (err error) {
			defer contain.Panic(&err)
			from, request := signaturesOf(ref, in, artifacts.ListContainerImageSignaturesSortOrderDesc)
			return inv.signaturesAt.advance(func(page *string) (ociauth.Page, error) {
				request.Page = page
				items, p, err := ociauth.ReadPage[summary](ctx, c.who, from, request)
				if err != nil {
					return p, err
				}
				records := make([]signature.Record, len(items))
				for i, item := range items {
					if records[i], err = item.record(from); err != nil {
						return p, err
					}
				}
				c.bulk.addRecords(inv, records)
				return p, nil
			})
		})
	}
	return group.Wait()
}

// advance reads up to the next page that has something on it. A list that turns
// out to be too long is at its end.
func (cur *cursor) advance(read func(page *string) (ociauth.Page, error)) error {
	for range maxBlankPages {
		got, err := read(cur.next)
		switch {
		case err != nil:
			return err
		case got.Next != nil && cur.next != nil && *got.Next == *cur.next:
			return fmt.Errorf("the page %.80q is followed by itself", *cur.next)
		}
		cur.next, cur.items, cur.left = got.Next, cur.items+got.Items, got.Remaining
		if got.Items > 0 {
			cur.pages++
		}
		if cur.over = got.Next == nil; cur.over {
			cur.left = 0
			return nil
		}
		if got.Items > 0 {
			cur.over = cur.pages+max(1, cur.pagesLeft()) > maxBulkPages
			return nil
		}
	}
	return fmt.Errorf("more than %d pages with nothing on them", maxBlankPages)
}

// imageSummary is what is used of artifacts.ContainerImageSummary.
type imageSummary struct {
	ID             string `json:"id"`
	Digest         string `json:"digest"`
	RepositoryName string `json:"repositoryName"`
	LifecycleState string `json:"lifecycleState"`
}

// imagesPage reads a page of the images of ref's repository, newest first.
func (c *Client) imagesPage(ctx context.Context, ref image.Reference, in place, page *string) ([]imageSummary, ociauth.Page, error) {
	from := call(ref, "ListContainerImages", http.MethodGet, "/container/images")
	request := artifacts.ListContainerImagesRequest{
		CompartmentId:  common.String(in.compartment),
		RepositoryName: common.String(ref.Repository()),
		SortBy:         artifacts.ListContainerImagesSortByTimecreated,
		SortOrder:      artifacts.ListContainerImagesSortOrderDesc,
		Page:           page,
	}
	if in.below {
		request.CompartmentIdInSubtree = common.Bool(true)
	}
	items, p, err := ociauth.ReadPage[imageSummary](ctx, c.who, from, request)
	if err != nil {
		return nil, p, err
	}
	for _, item := range items {
		if item.ID == "" || item.LifecycleState == "" {
			return nil, p, from.Malformed("an image without an id or a lifecycleState")
		}
	}
	return items, p, nil
}

func (b *bulk) addImages(inv *inventory, items []imageSummary) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, item := range items {
		if item.RepositoryName != inv.repository.name || !image.ValidDigest(item.Digest) || len(item.ID) > maxField {
			continue
		}
		known, again := inv.images[item.Digest]
		if !again {
			known.id = item.ID
			b.grow(inv, len(item.ID)+len(item.Digest))
		}
		known.doubtful = known.doubtful || known.id != item.ID || item.LifecycleState != string(artifacts.ContainerImageLifecycleStateAvailable)
		inv.images[item.Digest] = known
	}
}

func (b *bulk) addRecords(inv *inventory, records []signature.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, rec := range records {
		of := inv.records[rec.ImageID]
		if of == nil {
			of = new(recordsOfImage)
			inv.records[inv.once(rec.ImageID)] = of
			b.grow(inv, len(rec.ImageID))
		}
		of.seen++
		sameKey := func(r signature.Record) bool { return r.KeyID == rec.KeyID }
		if !inv.keys[rec.KeyID] || rec.State != signature.StateAvailable || of.seen > newest || slices.ContainsFunc(of.kept, sameKey) {
			continue
		}
		for _, s := range []*string{&rec.ImageID, &rec.KeyID, &rec.KeyVersionID, &rec.Algorithm, &rec.State} { // the same in many
			*s = inv.once(*s)
		}
		rec.DisplayName = ""
		of.kept = append(of.kept, rec)
		b.grow(inv, len(rec.ID)+len(rec.Message)+len(rec.Signature))
	}
}

// once returns the one copy of a text that is held.
func (inv *inventory) once(s string) string {
	if held, ok := inv.texts[s]; ok {
		return held
	}
	inv.texts[s] = s
	return s
}

// grow counts what is held. The caller holds b.mu.
func (b *bulk) grow(inv *inventory, texts int) {
	inv.size += texts + entryBytes
	if !inv.dropped {
		b.held += texts + entryBytes
	}
}
