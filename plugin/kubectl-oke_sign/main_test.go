package main

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cmd"
)

// TestCVE_2026_44310_APanicIsNoSuccess makes the program panic while a command runs.
// The exit code is that of an unknown result, neither 0 nor 3. The output has
// nothing of the panic's value.
func TestCVE_2026_44310_APanicIsNoSuccess(t *testing.T) {
	for name, value := range map[string]any{"a text": "a secret", "an error": errSecret{}, "something": map[string]string{"password": "a secret"}} {
		t.Run(name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			panicked := false
			code := cmd.Run(t.Context(), cmd.Config{
				Args:    []string{"verify", "iad.ocir.io/ns/app@sha256:" + strings.Repeat("a", 64), "--key", "k"},
				Streams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut},
				Getenv:  func(string) string { panicked = true; panic(value) },
			})
			if !panicked {
				t.Fatal("it did not come to the panic")
			}
			if code != 1 || out.Len() > 0 || !strings.Contains(errOut.String(), "internal error: panic") {
				t.Errorf("exit code %d, printed %q and %q", code, out.String(), errOut.String())
			}
			if strings.Contains(errOut.String(), "secret") || strings.Contains(errOut.String(), "goroutine") {
				t.Errorf("printed what the panic holds: %s", errOut.String())
			}
		})
	}
}

type errSecret struct{}

func (errSecret) Error() string { return "a secret" }
