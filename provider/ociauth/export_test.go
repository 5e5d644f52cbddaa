package ociauth

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/oke-sign/oke-sign/provider/oci"
)

// ParseProfile lets tests of hostile input skip the file.
func ParseProfile(data []byte, name string) (map[string]string, error) {
	p, err := parseProfile(data, name)
	return p.values, err
}

// Tokens returns tokens that fetch makes and that are valid for an hour.
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

// SignInOver is SignIn over another transport.
func SignInOver(ctx context.Context, cfg Config, transport *http.Transport) (*oci.Client, error) {
	cfg.Client.Concurrency = 4
	cfg.Client = cfg.Client.WithDefaults()
	return signIn(ctx, cfg, transport)
}

// ParseAnswer and ParseClaims are the parsers of answers and of tokens.
func ParseAnswer(data []byte) (map[string]json.RawMessage, error) {
	a, err := parseAnswer(data)
	return a, err
}

func ParseClaims(text string) (tenancy string, expires float64, err error) {
	c, err := readClaims(text)
	return c.Tenancy, c.Expires, err
}

var ParseDomain = parseDomain
