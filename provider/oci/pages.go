package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/oracle/oci-go-sdk/v65/common"
)

var errPages = errors.New("the list does not end")

// Pages calls fetch with one page token after another until fetch returns none. An
// empty page may be followed by others. Pages returns an error if a token comes
// back, or after limit pages. A part of a list is therefore never taken for the
// whole.
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

// NextPage returns the token of the page after an answer, or nil.
func NextPage(header http.Header) *string {
	if next := header.Get("opc-next-page"); next != "" {
		return &next
	}
	return nil
}

// Page describes one page of a list.
type Page struct {
	Items     int     // how many it has
	Remaining int     // on the pages after this one, if OCI says so
	Next      *string // the token of the page after this one, or nil
}

// ReadPage makes a call whose answer is an object with a page of a list, as most
// services answer. An answer with a null item is malformed.
func ReadPage[T any](ctx context.Context, c *Client, call Call, request common.OCIRequest) ([]T, Page, error) {
	var answer struct {
		Items     *[]*T `json:"items"`
		Remaining int   `json:"remainingItemsCount"`
	}
	header, err := c.Do(ctx, call, request, &answer)
	if err != nil {
		return nil, Page{}, err
	}
	if answer.Items == nil {
		return nil, Page{}, call.Malformed("a list without items")
	}
	items, err := whole(call, *answer.Items)
	return items, Page{len(items), answer.Remaining, NextPage(header)}, err
}

// ReadItems makes a call whose answer is a page of a list without an object around it.
// An answer with a null item is malformed.
func ReadItems[T any](ctx context.Context, c *Client, call Call, request common.OCIRequest) ([]T, *string, error) {
	var answer []*T
	header, err := c.Do(ctx, call, request, &answer)
	if err != nil {
		return nil, nil, err
	}
	items, err := whole(call, answer)
	return items, NextPage(header), err
}

// whole returns the items of a list. It rejects a null item, which would look like an
// empty one.
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
