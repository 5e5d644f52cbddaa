package principal

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
// services do.
func ReadPage[T any](ctx context.Context, p *Principal, call Call, request common.OCIRequest) ([]T, Page, error) {
	var answer struct {
		Items     *[]T `json:"items"`
		Remaining int  `json:"remainingItemsCount"`
	}
	header, err := p.Do(ctx, call, request, &answer)
	if err != nil {
		return nil, Page{}, err
	}
	if answer.Items == nil {
		return nil, Page{}, call.Malformed("a list without items")
	}
	return *answer.Items, Page{len(*answer.Items), answer.Remaining, NextPage(header)}, nil
}
