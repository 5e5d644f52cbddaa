package ociauth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/oci"
)

const (
	// tokenMargin is how long before its end a token is no longer used, and
	// refusedAfter how old one must be for a 401 to be its fault.
	tokenMargin  = time.Minute
	refusedAfter = 30 * time.Second
	// anotherWithin is how long another is waited for in place of one that OCI
	// refused, which leaves a request time to try that one all the same.
	anotherWithin = 500 * time.Millisecond
)

// token is one that OCI takes, whose it is, and the key it is bound to.
type token struct {
	credential
	tenancy      string
	began, until time.Time
}

// tokens are had from a service that vouches for this process. Who needs one while
// it is being asked for waits for the same answer.
type tokens struct {
	held    *cache.Cache[struct{}, token]
	doubted *atomic.Pointer[doubt]
}

// doubt is a token that OCI refused. It may be good: OCI also says so of a region
// that the tenancy is not subscribed to, which whoever names an image chooses.
type doubt struct {
	token
	alone bool // another was not to be had
}

func newTokens(fetch func(context.Context) (token, error), timeout time.Duration) tokens {
	return tokens{doubted: new(atomic.Pointer[doubt]), held: cache.New(cache.Config[struct{}, token]{
		Load:         func(ctx context.Context, _ struct{}) (token, error) { return fetch(ctx) },
		TTL:          func(t token) time.Duration { return t.until.Sub(t.began) },
		RefreshAfter: func(t token) time.Duration { return t.until.Add(tokenMargin).Sub(t.began) / 2 },
		MaxEntries:   1,
		Timeout:      timeout,
	})}
}

// get returns the token that holds now. It is renewed at half of its life. One that OCI
// refused is used if another cannot be had soon, and while that is tried again.
func (t tokens) get(ctx context.Context) (token, error) {
	old := t.doubted.Load()
	if old == nil || !time.Now().Before(old.until) {
		return t.held.Get(ctx, struct{}{})
	}
	wait := anotherWithin
	if old.alone {
		wait = 0
	}
	soon, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	another, err := t.held.Get(soon, struct{}{})
	if err != nil {
		t.doubted.CompareAndSwap(old, &doubt{old.token, true})
		return old.token, nil
	}
	t.doubted.CompareAndSwap(old, nil)
	return another, nil
}

func (t tokens) identify(ctx context.Context) (credential, error) {
	held, err := t.get(ctx)
	return held.credential, err
}

// refused has the token that OCI does not take replaced, unless it is a new one.
func (t tokens) refused() {
	t.held.Discard(struct{}{}, func(held token) bool {
		if time.Since(held.began) <= refusedAfter {
			return false
		}
		t.doubted.Store(&doubt{token: held})
		return true
	})
}

// newToken is one for a new key that never leaves this process, and still without
// the token itself.
func newToken() (token, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return token{}, fmt.Errorf("making a key: %w", err)
	}
	return token{credential: credential{key: key}, began: time.Now()}, nil
}

// hold takes what was given for the key. Whose it is and how long it holds it says
// itself; OCI will check both. The tenancy may also be known from elsewhere.
func (t *token) hold(text, tenancy string) error {
	if checkToken(text, t.began) != nil {
		return fmt.Errorf("%w: not a token that holds now", oci.ErrMalformed)
	}
	claims, err := readClaims(text)
	if err != nil {
		return err
	}
	tenancy = cmp.Or(tenancy, claims.Tenancy)
	if !oci.IsOCID(tenancy, "tenancy") {
		return fmt.Errorf("%w: the token names no tenancy: %.80q", oci.ErrMalformed, tenancy)
	}
	if claims.Expires <= 0 || claims.Expires > 1e11 {
		return fmt.Errorf("%w: the token does not say when it ends", oci.ErrMalformed)
	}
	t.keyID, t.tenancy = "ST$"+text, tenancy
	t.until = time.Unix(int64(claims.Expires), 0).Add(-tokenMargin)
	return nil
}

// pair is a token and its key as somebody else replaces them. The key is read
// anew whenever it differs: the two are not replaced in one moment.
type pair struct {
	mu  sync.Mutex
	pem []byte
	key *rsa.PrivateKey
}

func (p *pair) credential(text string, pem []byte, passphrase, name string) (credential, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key == nil || !bytes.Equal(pem, p.pem) {
		key, err := parseKey(pem, passphrase, name)
		if err != nil {
			return credential{}, err
		}
		p.pem, p.key = pem, key
	}
	return credential{keyID: "ST$" + text, key: p.key}, nil
}
