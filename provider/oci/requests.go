package oci

import (
	"context"
	"strings"
	"sync"
)

// maxRequests is how many request ids one context collects.
const maxRequests = 8

type requests struct {
	mu  sync.Mutex
	ids []string
}

type requestsKey struct{}

// WithRequests returns a context that collects the request ids of its calls, by
// which Oracle's support finds them. The function returns the first few ids,
// separated by spaces.
func WithRequests(ctx context.Context) (context.Context, func() string) {
	r := new(requests)
	return context.WithValue(ctx, requestsKey{}, r), func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		return strings.Join(r.ids, " ")
	}
}

// AddRequests adds request ids, separated by spaces, to those that ctx collects. It
// is for calls that were made for ctx and for other contexts.
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
