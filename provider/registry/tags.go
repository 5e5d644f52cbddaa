package registry

import (
	"context"
	"errors"
	"time"

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/image"
)

// tagFor is how long the digest of a tag is remembered: long enough for the Pods
// of one rollout to share a call, too short for anybody to notice who has just
// pushed.
const tagFor = 5 * time.Second

// Tags tells which image a tag points to now. It is safe for concurrent use.
type Tags struct {
	digests *cache.Cache[string, string] // by the reference with the tag
}

// NewTags makes a Tags that asks c.
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
		TTL:      func(string) time.Duration { return tagFor },
		Panicked: c.panicked,
	})}
}

// Digest is that of the image that ref, as a node reads it, points to. It is empty if
// there is no such image as far as the principal may know.
func (t *Tags) Digest(ctx context.Context, ref image.Reference) (string, error) {
	if ref.Digest() != "" {
		return ref.Digest(), nil
	}
	// A text of its own: the reference shares memory with the request that it came
	// in, which would stay for as long as the tag is remembered.
	return t.digests.Get(ctx, ref.Effective().String())
}
