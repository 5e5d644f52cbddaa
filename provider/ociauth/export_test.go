package ociauth

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httputil"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
)

// ParseProfile and Printable let tests of hostile input skip the files and the
// network around them.
func ParseProfile(data []byte, name string) (map[string]string, error) {
	p, err := parseProfile(data, name)
	return p.values, err
}

var Printable = printable

// RefusedByProxy is the error of a call that a proxy would not carry.
func RefusedByProxy(status int) error { return &proxyRefusal{proxy: "proxy:3128", status: status} }

// Explained is the error of a call of its own time whose connection ended with err.
func Explained(ctx context.Context, err error) error { return explain(ctx, &brokenError{err}, 0) }

// The gates of hosts, for tests by a clock of their own.
type Hosts = hosts

func NewHosts(limit int) *Hosts { return &hosts{limit: limit} }

func (h *hosts) Acquire(ctx context.Context, trouble func(context.Context, error)) (func(), error) {
	return h.acquire(ctx, "host", trouble)
}

func (h *hosts) Heard(err error) { h.heard("host", err) }

// Refusal is one of OCI's.
func Refusal(status int, retryAfter time.Duration) *Error {
	return &Error{Operation: "Get", Host: "host", Status: status, Code: "Code", RequestID: "id", retryAfter: retryAfter}
}

// RetryAfter is how long an answer with this header asks to wait at a time.
var RetryAfter = retryAfter

// Waits reports whether a call with this context is repeated after an answer that
// asks to wait so long.
func Waits(ctx context.Context, after time.Duration) bool {
	return pause(ctx, pauseAfter(Refusal(429, after), 1))
}

// Tokens are a workload's, of those that fetch makes; they hold an hour.
func Tokens(fetch func() (string, error)) (identify func(context.Context) (string, error), refused func()) {
	held := newTokens(func(context.Context) (token, error) {
		now := time.Now()
		id, err := fetch()
		return token{credential: credential{keyID: id}, began: now, until: now.Add(time.Hour)}, err
	}, time.Minute)
	return func(ctx context.Context) (string, error) {
		id, err := held.identify(ctx)
		return id.keyID, err
	}, held.refused
}

// Sent is a call as it is sent to OCI, byte for byte.
func Sent(ctx context.Context, p *Principal, call Call, request common.OCIRequest) (string, error) {
	req, err := p.build(ctx, call, request)
	if err != nil {
		return "", err
	}
	text, err := httputil.DumpRequestOut(req, true)
	return string(text), err
}

// NewOver is New over another way to OCI, and without what comes of the first.
func NewOver(ctx context.Context, cfg Config, transport *http.Transport) (*Principal, error) {
	p := &Principal{cfg: cfg, hosts: hosts{limit: 4}, refused: func() {}, transport: transport}
	p.cfg.Attempt, p.cfg.Timeout, p.cfg.Overdue, p.cfg.Concurrency = 10*time.Second, 10*time.Second, 10*time.Second, 4
	if err := p.signIn(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// ParseAnswer and ParseClaims are the parsers of what vouches for this process.
func ParseAnswer(data []byte) (map[string]json.RawMessage, error) {
	a, err := parseAnswer(data)
	return a, err
}

func ParseClaims(text string) (tenancy string, expires float64, err error) {
	c, err := readClaims(text)
	return c.Tenancy, c.Expires, err
}

var ParseDomain = parseDomain
