package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/oracle/oci-go-sdk/v65/artifacts"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// When Bulk reads the lists of a repository. A page of its images and a page of its
// signatures cost two calls, where a look-up costs one. So the second image within a
// minute costs one call more than a look-up, and each further image costs none.
const (
	interestTTL = time.Minute
	// bulkTTL is how long the lists are used. It is no longer than a denial is cached,
	// so that lists read before a denial cannot overrule it.
	bulkTTL = 30 * time.Second
	// unhelpfulPause is how long the lists are not read again if they helped nobody or
	// OCI refuses them, failurePause if reading them failed.
	unhelpfulPause = compartmentTTL
	failurePause   = 10 * time.Second
	// pageTimeout is how long a caller waits for a page. The rest of its time must
	// suffice for a look-up.
	pageTimeout = 400 * time.Millisecond
)

// Bounds of what is read and held in memory.
const (
	maxBulkPages  = 20       // of each list; of a longer list only the first page
	maxBlankPages = 3        // in a row
	maxBulkKeys   = 16       // whose records are held, one record by each key for an image
	maxBulkBytes  = 16 << 20 // of all repositories together, about
	entryBytes    = 256      // of a record or an image, beside its texts
)

// bulkQuery asks for the records of one image by some keys.
type bulkQuery struct {
	repository repository
	digest     string
	keys       []signature.KeyID
}

// inventory holds the images and signatures of one repository, as far as the lists have
// been read. bulk.mu guards it, except for the cursors: they belong to the goroutine that
// reads the next page.
type inventory struct {
	repository repository
	began      time.Time
	images     map[string]listedImage     // by digest
	records    map[string]*recordsOfImage // by image id
	keys       map[string]bool            // whose records are held; only added to
	texts      map[string]string          // shared copies, see intern
	size       int
	page       chan struct{} // closed when the page is read; nil if none is being read
	late       bool          // callers do not wait for page
	ahead      int           // pages to read without being asked
	batch      int           // ahead, when the last caller asked
	requests   string        // ids of the calls
	helped     bool          // a caller got records
	dropped    bool          // nothing that is read from now on counts

	imagesAt, signaturesAt     cursor
	imagesDone, signaturesDone bool // copies of the cursors' done, guarded by bulk.mu
}

// listedImage is the image of a digest. A digest that was pushed again after its image was
// deleted has two images: it is ambiguous, because only a look-up shows which one counts.
type listedImage struct {
	id        string
	ambiguous bool
}

// recordsOfImage holds the newest available record of an image by each key.
type recordsOfImage struct {
	seen  int // records on the pages read, of any key
	byKey []signature.Record
}

// cursor is how far a list has been read.
type cursor struct {
	next  *string
	pages int
	items int // on these pages
	left  int // items after them, as OCI says
	done  bool
}

// pagesLeft estimates the pages that are left.
func (cur *cursor) pagesLeft() int {
	each := max(1, cur.items/max(1, cur.pages))
	return (cur.left + each - 1) / each
}

// advance reads up to the next page that has items. A list that proves too long counts as
// done.
func (cur *cursor) advance(read func(page *string) (oci.Page, error)) error {
	for range maxBlankPages {
		got, err := read(cur.next)
		switch {
		case err != nil:
			return err
		case got.Next != nil && cur.next != nil && *got.Next == *cur.next:
			return fmt.Errorf("page %.80q names itself as the next page", *cur.next)
		}
		cur.next, cur.items, cur.left = got.Next, cur.items+got.Items, got.Remaining
		if got.Items > 0 {
			cur.pages++
		}
		if cur.done = got.Next == nil; cur.done {
			cur.left = 0
			return nil
		}
		if got.Items > 0 {
			cur.done = cur.pages+max(1, cur.pagesLeft()) > maxBulkPages
			return nil
		}
	}
	return fmt.Errorf("more than %d pages without items", maxBlankPages)
}

// bulk holds the inventories, and the interest in each repository.
type bulk struct {
	now func() time.Time

	mu    sync.Mutex
	repos map[repository]*interest
	bytes int // of all inventories
}

// interest is the interest in one repository.
type interest struct {
	digest    string // of the last query
	at        time.Time
	notBefore time.Time // no list is read until then
	keys      map[string]bool
	inv       *inventory
}

// pendingPage is a page to wait for, if done is not nil. The caller reads the page if it
// is mine.
type pendingPage struct {
	done chan struct{}
	mine bool
}

// ask returns the inventory of a repository, or nil, and the page to wait for that may
// have the image on it.
func (b *bulk) ask(q bulkQuery, known bool) (*inventory, pendingPage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	i := b.repos[q.repository]
	if i == nil {
		if len(b.repos) >= maxRepositories {
			b.reset() // as compartmentCache does
		}
		i = new(interest)
		b.repos[q.repository] = i
	}
	another := i.digest != q.digest && now.Sub(i.at) < interestTTL
	i.digest, i.at = q.digest, now
	i.addKeys(q.keys)
	if i.inv != nil && now.Sub(i.inv.began) >= bulkTTL {
		b.drop(i.inv)
	}
	if i.inv == nil {
		if !known || !another || now.Before(i.notBefore) || b.bytes >= maxBulkBytes {
			return nil, pendingPage{}
		}
		inv := &inventory{
			repository: q.repository, began: now, keys: i.keys,
			images: make(map[string]listedImage), records: make(map[string]*recordsOfImage), texts: make(map[string]string),
		}
		i.inv = inv
		time.AfterFunc(bulkTTL, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.drop(inv)
		})
	}
	inv := i.inv
	switch _, more := inv.find(q); {
	case !more || !known:
		return inv, pendingPage{}
	case inv.late || inv.page == nil && b.bytes >= maxBulkBytes:
		return inv, pendingPage{}
	case inv.page != nil:
		return inv, pendingPage{done: inv.page}
	}
	inv.page, inv.batch = make(chan struct{}), max(1, 2*inv.batch)
	inv.ahead = inv.batch
	return inv, pendingPage{inv.page, true}
}

// reset drops all inventories and all interests. The caller holds b.mu.
func (b *bulk) reset() {
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
	b.bytes -= inv.size
	i := b.repos[inv.repository]
	i.inv = nil
	if !inv.helped && i.notBefore.Before(inv.began) {
		i.notBefore = b.now().Add(unhelpfulPause)
	}
}

// find returns the records that answer a query, after the caller has waited for a page.
func (b *bulk) find(ctx context.Context, inv *inventory, q bulkQuery) ([]signature.Record, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	records, _ := inv.find(q)
	if len(records) == 0 {
		return nil, time.Time{}
	}
	inv.helped = true
	oci.AddRequests(ctx, inv.requests)
	return records, inv.began
}

// markLate stops other callers from waiting for a page.
func (b *bulk) markLate(inv *inventory, page chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	inv.late = inv.page == page
}

// pageEnded notes how reading a page ended, and reports whether to read another one.
func (b *bulk) pageEnded(inv *inventory, requests string, err error) (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	inv.requests += " " + requests
	inv.imagesDone, inv.signaturesDone = inv.imagesAt.done, inv.signaturesAt.done
	if !inv.worthwhile() {
		inv.imagesDone, inv.signaturesDone = true, true
	}
	if err != nil {
		inv.imagesDone, inv.signaturesDone = true, true
		pause := failurePause
		if oci.IsNotFound(err) {
			pause = unhelpfulPause
		}
		if !inv.dropped {
			b.repos[inv.repository].notBefore = b.now().Add(pause)
		}
	}
	close(inv.page)
	inv.page, inv.late = nil, false
	inv.ahead--
	if more = !inv.dropped && inv.ahead > 0 && (!inv.imagesDone || !inv.signaturesDone) && b.bytes < maxBulkBytes; more {
		inv.page = make(chan struct{})
	}
	return more
}

func (b *bulk) addImages(inv *inventory, items []imageSummary) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, item := range items {
		if item.RepositoryName != inv.repository.name || !image.ValidDigest(item.Digest) || len(item.ID) > maxField {
			continue
		}
		img, again := inv.images[item.Digest]
		if !again {
			img.id = item.ID
			b.count(inv, len(item.ID)+len(item.Digest))
		}
		img.ambiguous = img.ambiguous || img.id != item.ID || item.LifecycleState != string(artifacts.ContainerImageLifecycleStateAvailable)
		inv.images[item.Digest] = img
	}
}

func (b *bulk) addRecords(inv *inventory, records []signature.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, rec := range records {
		of := inv.records[rec.ImageID]
		if of == nil {
			of = new(recordsOfImage)
			inv.records[inv.intern(rec.ImageID)] = of
			b.count(inv, len(rec.ImageID))
		}
		of.seen++
		sameKey := func(r signature.Record) bool { return r.KeyID == rec.KeyID }
		if !inv.keys[rec.KeyID] || rec.State != signature.StateAvailable || of.seen > newest || slices.ContainsFunc(of.byKey, sameKey) {
			continue
		}
		for _, s := range []*string{&rec.ImageID, &rec.KeyID, &rec.KeyVersionID, &rec.Algorithm, &rec.State} { // the same in many
			*s = inv.intern(*s)
		}
		rec.DisplayName = ""
		of.byKey = append(of.byKey, rec)
		b.count(inv, len(rec.ID)+len(rec.Message)+len(rec.Signature))
	}
}

// count adds an entry's memory to the sizes. The caller holds b.mu.
func (b *bulk) count(inv *inventory, texts int) {
	inv.size += texts + entryBytes
	if !inv.dropped {
		b.bytes += texts + entryBytes
	}
}

// find returns the records that answer a query, and whether reading on may find some.
func (inv *inventory) find(q bulkQuery) (records []signature.Record, more bool) {
	img, listed := inv.images[q.digest]
	switch {
	case !listed:
		return nil, !inv.imagesDone
	case img.ambiguous:
		return nil, false
	}
	of := inv.records[img.id]
	switch {
	case of == nil:
		return nil, !inv.signaturesDone
	case of.seen > newest: // Records would not have read all of them
		return nil, false
	}
	for _, rec := range of.byKey {
		if slices.ContainsFunc(q.keys, func(id signature.KeyID) bool { return id.String() == rec.KeyID }) {
			records = append(records, rec)
		}
	}
	return records, len(records) == 0 && !inv.signaturesDone
}

// worthwhile reports whether the rest of the lists costs at most half of the calls that a
// look-up of each image costs. Many signatures on small pages cost more.
func (inv *inventory) worthwhile() bool {
	images, pages := &inv.imagesAt, 0
	for _, at := range []*cursor{images, &inv.signaturesAt} {
		if !at.done {
			pages += at.pagesLeft()
		}
	}
	return 2*pages <= images.items+images.left
}

// intern returns the shared copy of s, and stores s on its first use.
func (inv *inventory) intern(s string) string {
	if shared, ok := inv.texts[s]; ok {
		return shared
	}
	inv.texts[s] = s
	return s
}

// addKeys adds keys to those whose records are held. The inventory shares the map.
func (i *interest) addKeys(keys []signature.KeyID) {
	if i.keys == nil || i.inv == nil && len(i.keys) > maxBulkKeys-len(keys) {
		i.keys = make(map[string]bool)
	}
	for _, id := range keys {
		if len(i.keys) < maxBulkKeys {
			i.keys[id.String()] = true
		}
	}
}

// imageSummary has the fields of artifacts.ContainerImageSummary that are used.
type imageSummary struct {
	ID             string `json:"id"`
	Digest         string `json:"digest"`
	RepositoryName string `json:"repositoryName"`
	LifecycleState string `json:"lifecycleState"`
}
