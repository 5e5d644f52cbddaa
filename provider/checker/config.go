package checker

import (
	"context"
	"crypto/rsa"
	"time"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// TTLs. A deleted signature record counts for signedTTL at most, a disabled key for
// stateTTL at most, and a new signature counts after deniedTTL at most. Gatekeeper's own
// cache adds to each.
const (
	signedTTL = 10 * time.Minute
	stateTTL  = 60 * time.Second
	deniedTTL = 30 * time.Second
)

// Images calls OCI Registry for a Checker. It is safe for concurrent use.
type Images interface {
	// Covers reports whether the images of a namespace can be asked about.
	Covers(region image.Region, namespace string) bool
	// Records returns the signature records of the image that ref pins, newest
	// first, and whether some were left out because there are too many.
	Records(ctx context.Context, ref image.Reference) (records []signature.Record, truncated bool, err error)
	// Bulk returns signature records of the image by some of the keys, newest first,
	// that were read together with the records of other images, and when; or none.
	// The image may have more records. Therefore Bulk suffices for a yes only, and
	// the Checker calls Records otherwise.
	Bulk(ctx context.Context, ref image.Reference, keys []signature.KeyID) ([]signature.Record, time.Time)
	// Exists reports whether OCI has the image. The Checker calls it only if there is
	// no record, because OCI returns an empty list for an image that it does not have.
	Exists(ctx context.Context, ref image.Reference) (bool, error)
}

// Keys calls OCI Vault for a Checker. It is safe for concurrent use.
type Keys interface {
	// KeyState returns the present state of a key. A key that does not exist is a
	// state and no error.
	KeyState(ctx context.Context, id signature.KeyID) (verdict.Key, error)
	// PublicKey returns the public key of a version that KeyState listed.
	PublicKey(ctx context.Context, id signature.KeyID, version signature.KeyVersionID) (*rsa.PublicKey, error)
}

// Config configures a Checker.
type Config struct {
	Images Images
	Keys   Keys

	// MaxImages bounds the cached images. Zero means 100 000.
	MaxImages int
	// Timeout bounds the gathering for one image, which continues when its callers
	// have left. Zero means 15 seconds.
	Timeout time.Duration
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Panicked is called for a panic of Images or Keys. The panic is an error of one
	// question only. Nil reports no panic.
	Panicked func(*contain.PanicError)
}
