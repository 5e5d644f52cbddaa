package registry

import (
	"context"
	"errors"
	"time"

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/image"
)

// tagTTL is how long the digest of a tag is cached. The Pods of one rollout share a call,
// and people who have just pushed do not notice.
const tagTTL = 5 * time.Second

// Tags finds the images to which tags point now. It is safe for concurrent use.
type Tags struct {
	digests *cache.Cache[string, string] // by the reference with the tag
}

// NewTags makes a Tags that calls c.
func NewTags(c *Client) *Tags {
	return &Tags{cache.New(cache.Config[string, string]{
		Load: func(ctx context.Context, tagged string) (string, error) {
			ref, err := image.Parse(tagged)
			if err != nil {
				return "", err
			}
			found, err := c.Image(ctx, ref)
			if errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotCovered) {
				return "", nil
			}
			return found.Digest, err
		},
		TTL:      func(string) time.Duration { return tagTTL },
		Panicked: c.panicked,
	})}
}

// Digest returns the digest of the image that ref points to for a node. It is empty if OCI
// has no such image, or this identity may not read it.
func (t *Tags) Digest(ctx context.Context, ref image.Reference) (string, error) {
	if ref.Digest() != "" {
		return ref.Digest(), nil
	}
	// String makes a copy. The reference shares the memory of the request that it came
	// in, and the cache would hold the whole request.
	return t.digests.Get(ctx, ref.Effective().String())
}
