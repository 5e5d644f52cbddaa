package ociauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/oracle/oci-go-sdk/v65/common"
)

var errPages = errors.New("the list does not end")

// Pages calls fetch with one page token after another until it returns none. A
// page with nothing in it is not the last one unless it says so. A token that
// comes back, or more than limit pages, ends it with an error: half a list must
// not pass for a whole one.
func Pages(fetch func(page *string) (*string, error), limit int) error {
	seen := make(map[string]bool)
	var page *string
	for range limit {
		next, err := fetch(page)
		if err != nil {
			return err
		}
		if next == nil {
			return nil
		}
		if seen[*next] {
			return fmt.Errorf("%w: the same page was offered twice", errPages)
		}
		seen[*next] = true
		page = next
	}
	return fmt.Errorf("%w: not after %d pages", errPages, limit)
}

// NextPage returns the token of the page that follows an answer, or nil.
func NextPage(header http.Header) *string {
	if next := header.Get("opc-next-page"); next != "" {
		return &next
	}
	return nil
}

// Page is what a page of a list says beside its items.
type Page struct {
	Items     int     // how many
	Remaining int     // on the pages after this one, if OCI says so
	Next      *string // the token of the page after this one, or nil
}

// ReadPage makes a call that answers with a page of a list in an object, as most
// services do. An item that is null is a malformed answer.
func ReadPage[T any](ctx context.Context, p *Principal, call Call, request common.OCIRequest) ([]T, Page, error) {
	var answer struct {
		Items     *[]*T `json:"items"`
		Remaining int   `json:"remainingItemsCount"`
	}
	header, err := p.Do(ctx, call, request, &answer)
	if err != nil {
		return nil, Page{}, err
	}
	if answer.Items == nil {
		return nil, Page{}, call.Malformed("a list without items")
	}
	items, err := whole(call, *answer.Items)
	return items, Page{len(items), answer.Remaining, NextPage(header)}, err
}

// ReadItems makes a call that answers with a page of a list and nothing around it. An
// item that is null is a malformed answer.
func ReadItems[T any](ctx context.Context, p *Principal, call Call, request common.OCIRequest) ([]T, *string, error) {
	var answer []*T
	header, err := p.Do(ctx, call, request, &answer)
	if err != nil {
		return nil, nil, err
	}
	items, err := whole(call, answer)
	return items, NextPage(header), err
}

// whole returns the items of a list in which none is null: that would look like an
// item with nothing in it.
func whole[T any](call Call, list []*T) ([]T, error) {
	items := make([]T, len(list))
	for i, item := range list {
		if item == nil {
			return nil, call.Malformed("a list with a null in place of an item")
		}
		items[i] = *item
	}
	return items, nil
}
