package ociauth

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/oke-sign/oke-sign/provider/oci"
)

// Limits of files, so that a wrong path such as /dev/zero is an error.
const (
	maxConfigFile = 1 << 20
	maxKeyFile    = 64 << 10
	maxTokenFile  = 64 << 10
)

func expand(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~")
	if !ok || (rest != "" && rest[0] != '/' && rest[0] != filepath.Separator) {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", path, err)
	}
	return filepath.Join(home, rest), nil
}

// value returns an environment variable's text, or the content of the file that an
// absolute path names.
func value(s string, limit int64) ([]byte, error) {
	if !filepath.IsAbs(s) {
		return []byte(s), nil
	}
	return oci.ReadFile(s, limit)
}
