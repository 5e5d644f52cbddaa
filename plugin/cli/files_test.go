package cli_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// A file is read completely or not at all, and up to a bound.
func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.yaml")
	if err := os.WriteFile(file, []byte("kind: Pod"), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 64<<20+1); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		file, want string
		err        string
	}{
		"a file":                   {file, "kind: Pod", ""},
		"the standard input":       {"-", "kind: Job", ""},
		"a missing file":           {filepath.Join(dir, "gone"), "", "no such file"},
		"a directory":              {dir, "", "reading " + dir},
		"a file that is too large": {large, "", "more than 67108864 bytes"},
	} {
		for call, read := range map[string]func() ([]byte, error){
			"ReadFile":  func() ([]byte, error) { return cli.ReadFile(strings.NewReader("kind: Job"), tc.file) },
			"ReadInput": func() ([]byte, error) { return cli.ReadInput(t.Context(), strings.NewReader("kind: Job"), tc.file) },
		} {
			got, err := read()
			if string(got) != tc.want || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %s: got %.80q, %v", name, call, got, err)
			}
		}
	}
	if _, err := cli.ReadFile(nil, filepath.Join(dir, "gone")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("callers recognise a missing file by fs.ErrNotExist: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cli.ReadInput(ctx, silent{t.Context()}, "-"); !errors.Is(err, context.Canceled) {
		t.Errorf("an endless input: %v", err)
	}
}
