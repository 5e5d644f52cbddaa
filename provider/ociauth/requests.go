package ociauth

import (
	"context"
	"net/http"
	"strings"
	"sync"
)

// maxRequests is how many ids of requests one context collects.
const maxRequests = 8

type requests struct {
	mu  sync.Mutex
	ids []string
}

type requestsKey struct{}

// WithRequests returns a context whose calls leave the ids that OCI gave to them,
// by which Oracle's support finds them, and what returns the first few of these,
// separated by spaces.
func WithRequests(ctx context.Context) (context.Context, func() string) {
	r := new(requests)
	return context.WithValue(ctx, requestsKey{}, r), func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		return strings.Join(r.ids, " ")
	}
}

// AddRequests leaves ids, separated by spaces, with ctx as the calls of it do: of
// calls that were made for it and for others.
func AddRequests(ctx context.Context, ids string) {
	r, ok := ctx.Value(requestsKey{}).(*requests)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range strings.FieldsSeq(ids) {
		if len(r.ids) < maxRequests {
			r.ids = append(r.ids, id)
		}
	}
}

func collect(ctx context.Context, answer http.Header) { AddRequests(ctx, requestID(answer)) }

func requestID(answer http.Header) string { return printable(answer.Get("opc-request-id"), 120) }
