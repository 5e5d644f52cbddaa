package signature

import (
	"fmt"
	"slices"
	"strings"
	"unique"
)

// MaxKeys bounds the keys of a KeySet. A policy may list as many keys for an image.
const MaxKeys = 5

// KeySet is the set of allowed keys of an image, and how many of them must have signed.
// Sets with the same keys and the same number are equal, in any order. The zero KeySet is
// empty and allows nothing.
type KeySet struct {
	// A handle is as small as a pointer and shares no memory with the request that
	// listed the keys. Caches hold a hundred thousand handles of a few sets.
	content unique.Handle[keySet]
}

type keySet struct {
	keys    [MaxKeys]KeyID // sorted, the zero ids last
	atLeast int
}

// NewKeySet makes a set of keys of which one must have signed. It rejects more than MaxKeys
// keys and the zero KeyID.
func NewKeySet(keys ...KeyID) (KeySet, error) {
	if len(keys) == 0 {
		return KeySet{}, nil
	}
	sorted := slices.Clone(keys)
	slices.SortFunc(sorted, func(a, b KeyID) int { return strings.Compare(a.ocid, b.ocid) })
	sorted = slices.Compact(sorted)
	if len(sorted) > MaxKeys {
		return KeySet{}, fmt.Errorf("%d keys, at most %d are allowed", len(sorted), MaxKeys)
	}
	all := keySet{atLeast: 1}
	for i, id := range sorted {
		if id.IsZero() {
			return KeySet{}, fmt.Errorf("the id of no key among %d keys", len(keys))
		}
		all.keys[i] = id
	}
	return KeySet{unique.Make(all)}, nil
}

// WithAtLeast returns the set with another number of keys that must have signed. It rejects
// a number below 1 or above the number of keys.
func (s KeySet) WithAtLeast(n int) (KeySet, error) {
	if n < 1 || n > s.Len() {
		return KeySet{}, fmt.Errorf("at least %d of %d keys", n, s.Len())
	}
	all := s.content.Value()
	all.atLeast = n
	return KeySet{unique.Make(all)}, nil
}

// AtLeast returns how many different keys of the set must have signed: 1 or more.
func (s KeySet) AtLeast() int {
	if s == (KeySet{}) {
		return 1
	}
	return s.content.Value().atLeast
}

// Keys returns the keys in the order of their OCIDs.
func (s KeySet) Keys() []KeyID {
	if s == (KeySet{}) {
		return nil
	}
	all := s.content.Value().keys
	n := slices.IndexFunc(all[:], KeyID.IsZero)
	if n < 0 {
		n = len(all)
	}
	return all[:n]
}

// Contains reports whether id is one of the keys.
func (s KeySet) Contains(id KeyID) bool {
	if s == (KeySet{}) || id.IsZero() {
		return false
	}
	all := s.content.Value().keys
	return slices.Contains(all[:], id)
}

// Len returns the number of keys.
func (s KeySet) Len() int { return len(s.Keys()) }

// String lists the OCIDs, separated by spaces.
func (s KeySet) String() string { return s.list(KeyID.String, " ") }

// Short lists the ends of the OCIDs, for people.
func (s KeySet) Short() string { return s.list(KeyID.Short, ", ") }

func (s KeySet) list(name func(KeyID) string, separator string) string {
	names := make([]string, 0, MaxKeys)
	for _, id := range s.Keys() {
		names = append(names, name(id))
	}
	return strings.Join(names, separator)
}
