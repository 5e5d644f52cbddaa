package principal

import "context"

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
