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
	// tokenMargin is how long before its expiry a token goes out of use. refusedAfter
	// is the age from which a token is replaced after a 401.
	tokenMargin  = time.Minute
	refusedAfter = 30 * time.Second
	// anotherWithin bounds the wait for a replacement of a token that OCI refused. A
	// request then has time left to try the old token.
	anotherWithin = 500 * time.Millisecond
)

// token is a session token with its key and its tenancy.
type token struct {
	credential
	tenancy      string
	began, until time.Time
}

// tokens caches the session token that a service issues to this process. Callers that
// need a token at the same time wait for the same answer.
type tokens struct {
	held    *cache.Cache[struct{}, token]
	doubted *atomic.Pointer[doubt]
}

// doubt is a token that OCI refused with 401. The token may be good: OCI also answers
// 401 in a region that the tenancy is not subscribed to, and the author of an image
// reference chooses the region.
type doubt struct {
	token
	alone bool // no replacement could be fetched
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

// get returns a valid token. It refreshes the token at half of its life. If OCI refused
// the token and a replacement does not come soon, get returns the refused one, while
// the next replacement is fetched.
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

// refused replaces a token that OCI answered with 401, unless the token is new.
func (t tokens) refused() {
	t.held.Discard(struct{}{}, func(held token) bool {
		if time.Since(held.began) <= refusedAfter {
			return false
		}
		t.doubted.Store(&doubt{token: held})
		return true
	})
}

// newToken returns a token with a new key, which never leaves this process. hold adds
// the text of the token.
func newToken() (token, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return token{}, fmt.Errorf("making a key: %w", err)
	}
	return token{credential: credential{key: key}, began: time.Now()}, nil
}

// hold sets the text that a service issued for the key. The token's own claims say its
// expiry and, if the tenancy is not known, its tenancy. OCI checks both.
func (t *token) hold(text, tenancy string) error {
	if checkToken(text, t.began) != nil {
		return fmt.Errorf("%w: not a valid token", oci.ErrMalformed)
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
		return fmt.Errorf("%w: the token has no expiry", oci.ErrMalformed)
	}
	t.keyID, t.tenancy = "ST$"+text, tenancy
	t.until = time.Unix(int64(claims.Expires), 0).Add(-tokenMargin)
	return nil
}

// pair caches the key of a token whose files another program replaces. It parses the
// key again whenever the PEM differs, since the two files do not change at the same
// moment.
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
