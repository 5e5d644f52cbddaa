package main

import (
	"errors"
	"math"
	"testing"
)

// The limit follows the container's. Without a readable limit, garbage is collected
// at the usual rate.
func TestMemoryLimit(t *testing.T) {
	for name, tt := range map[string]struct {
		limit uint64
		err   error
		want  int64
	}{
		"512 MiB":            {limit: 512 << 20, want: 456340265 + ballast},
		"128 MiB":            {limit: 128 << 20, want: 114085045 + ballast},
		"no limit":           {err: errors.New("memory is not limited"), want: math.MaxInt64},
		"cgroup v1, without": {limit: math.MaxInt64 &^ 4095, want: math.MaxInt64},
		"all bits":           {limit: math.MaxUint64, want: math.MaxInt64},
	} {
		if got := memoryLimit(func() (uint64, error) { return tt.limit, tt.err }); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
