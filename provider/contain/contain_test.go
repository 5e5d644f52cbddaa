package contain_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/contain"
)

func TestPanicBecomesAnError(t *testing.T) {
	var nothing []int
	for name, test := range map[string]struct {
		panics func() error
		want   string
	}{
		"an error of the runtime": {func() error { nothing[1]++; return nil }, "internal error: panic: runtime error: index out of range [1] with length 0"},
		"a secret":                {func() error { panic("token abc") }, "internal error: panic with a value of type string"},
		"an error":                {func() error { panic(errors.New("token abc")) }, "internal error: panic with a value of type *errors.errorString"},
	} {
		t.Run(name, func(t *testing.T) {
			err := contain.Run(test.panics)
			if err == nil || err.Error() != test.want {
				t.Fatalf("got %v", err)
			}
			wrapped := fmt.Errorf("reading: %w", err)
			p, ok := contain.Unlogged(wrapped)
			if !ok || !strings.Contains(string(p.Stack), "contain_test.go") || strings.Contains(string(p.Stack), "abc") {
				t.Errorf("stack: %v", p)
			}
			if _, again := contain.Unlogged(wrapped); again {
				t.Error("the second call returns the panic again")
			}
		})
	}
	if err := contain.Run(func() error { return nil }); err != nil {
		t.Error(err)
	}
	if _, ok := contain.Unlogged(errors.New("another")); ok {
		t.Error("an error without a panic has one")
	}
}
