package ocitest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/oke-sign/oke-sign/provider/image"
)

// call is an authenticated and routed request to one operation of OCI.
type call struct {
	*world
	sw     Switches
	region image.Region
	host   string
	vault  *vault // set on a vault's own endpoint
	op     string // an operation such as "artifacts.GetContainerImage"

	method string
	path   map[string]string
	query  url.Values
	in     http.Header
	body   []byte
	who    *user // nil if the request is not authenticated

	out    http.Header
	status int // the status of a success
	cloud  *Cloud
}

// failure is an error that OCI answers.
type failure struct {
	status  int
	code    string
	message string
	why     string // for debugging; OCI does not say it
	oauth   bool   // whether the answer has the form of RFC 6749
}

func (f *failure) Error() string { return fmt.Sprintf("%d %s: %s", f.status, f.code, f.message) }

func notFound(why string) error {
	// A missing resource and a resource that the caller may not see get the same
	// answer.
	return &failure{status: 404, code: "NotAuthorizedOrNotFound", message: "Authorization failed or requested resource not found.", why: why}
}

func invalid(format string, args ...any) error {
	return &failure{status: 400, code: "InvalidParameter", message: fmt.Sprintf(format, args...)}
}

func missing(name string) error {
	return &failure{status: 400, code: "MissingParameter", message: "Missing required parameter " + name}
}

func conflict(code, format string, args ...any) error {
	return &failure{status: 409, code: code, message: fmt.Sprintf(format, args...)}
}

// decode reads the request's JSON body.
func (c *call) decode(into any) error {
	if err := json.Unmarshal(c.body, into); err != nil {
		return &failure{status: 400, code: "CannotParseRequest", message: "Incorrectly formatted request. Please refer to our documentation for help.", why: err.Error()}
	}
	return nil
}

// required rejects a request in which a mandatory field is empty.
func required(fields ...string) error {
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] == "" {
			return missing(fields[i])
		}
	}
	return nil
}

func oneOf(name, value string, allowed ...string) error {
	if value != "" && !slices.Contains(allowed, value) {
		return invalid("%s: %.80q is not one of %s", name, value, strings.Join(allowed, ", "))
	}
	return nil
}

// ifMatch compares the request's if-match with the etag of a resource before a
// change.
func (c *call) ifMatch(resource any) error {
	tag := shortHash(resource)
	if want := c.in.Get("If-Match"); want != "" && want != "*" && want != tag {
		return &failure{status: 412, code: "NoEtagMatch", message: "The value of the If-Match header does not match the current ETag.", why: "etag is " + tag}
	}
	return nil
}

// tagged answers with a resource and its etag.
func (c *call) tagged(resource any) (any, error) {
	c.out.Set("Etag", shortHash(resource))
	return resource, nil
}

// page cuts a list to the requested page, and returns the number of items after it.
// A page token is valid only for the query that returned it.
func page[T any](c *call, items []T) ([]T, int, error) {
	limit := c.sw.PageLimit
	if text := c.query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		switch {
		case err != nil || n < 1:
			return nil, 0, invalid("limit: %.40q is no positive number", text)
		case n > c.sw.PageLimit && c.sw.OverLimit == "400":
			return nil, 0, invalid("limit: %d is above %d", n, c.sw.PageLimit)
		case n < limit:
			limit = n
		}
	}
	query := url.Values{}
	for name, values := range c.query {
		if name != "page" && name != "limit" {
			query[name] = values
		}
	}
	bound := shortHash([]any{c.op, c.path, query})[:12]

	start, blank := 0, c.sw.EmptyPages
	if token := c.query.Get("page"); token != "" {
		var err error
		if start, blank, err = parsePage(token, bound); err != nil {
			return nil, 0, invalid("page: %.80q is no page of this list", token)
		}
	}
	start = min(start, len(items))
	if blank {
		// A page may be empty although another page follows.
		c.out.Set("Opc-Next-Page", formatPage(start, false, bound))
		return items[start:start], len(items) - start, nil
	}
	end := min(start+limit, len(items))
	if end < len(items) {
		c.out.Set("Opc-Next-Page", formatPage(end, c.sw.EmptyPages, bound))
	}
	return items[start:end], len(items) - end, nil
}

func formatPage(start int, blank bool, bound string) string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d %t %s", start, blank, bound))
}

func parsePage(token, bound string) (start int, blank bool, err error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return 0, false, err
	}
	var got string
	if _, err := fmt.Sscanf(string(b), "%d %t %s", &start, &blank, &got); err != nil {
		return 0, false, err
	}
	if got != bound || start < 0 {
		return 0, false, fmt.Errorf("handed out for another list")
	}
	return start, blank, nil
}

// sorted puts a list into the requested order. Names ascend and times descend unless
// the caller says otherwise. A switch sets the order of lists without a requested
// order.
func sorted[T interface{ seq() int64 }](c *call, items []T, name func(T) string) error {
	by, order := c.query.Get("sortBy"), c.query.Get("sortOrder")
	if err := oneOf("sortBy", by, "TIMECREATED", "DISPLAYNAME", "NAME"); err != nil {
		return err
	}
	if err := oneOf("sortOrder", order, "ASC", "DESC"); err != nil {
		return err
	}
	byName := by == "DISPLAYNAME" || by == "NAME"
	switch {
	case order != "":
	case byName:
		order = "ASC"
	case by == "TIMECREATED":
		order = "DESC"
	default:
		order = c.sw.Order
	}
	slices.SortStableFunc(items, func(a, b T) int {
		n := int(a.seq() - b.seq())
		if byName {
			n = strings.Compare(name(a), name(b))
		}
		if order == "DESC" {
			return -n
		}
		return n
	})
	return nil
}

// matches compares a name with a filter that may end in an asterisk.
func matches(filter, name string) bool {
	if filter == "" {
		return true
	}
	if prefix, ok := strings.CutSuffix(filter, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return filter == name
}

func exactly(filter, value string) bool { return filter == "" || filter == value }

func requestID(client string) string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	own := strings.ToUpper(hex.EncodeToString(b[:16]) + "/" + hex.EncodeToString(b[16:]))
	// OCI puts the caller's ID before the ID that it makes.
	if client != "" && len(client) <= 98 && !strings.ContainsFunc(client, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return client + "/" + own
	}
	return own
}
