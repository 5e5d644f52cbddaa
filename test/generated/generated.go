// Package generated lists the files that .gitattributes marks as generated. The tests of
// each generator compare them with the files that the generator writes.
package generated

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// Marked returns the marked files below a folder, by their paths from there, in order.
// It needs git, and a checkout.
func Marked(ctx context.Context, folder string) ([]string, error) {
	git := func(stdin []byte, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", folder}, args...)...)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("git %s: %w", args[0], err)
		}
		return out, nil
	}
	tracked, err := git(nil, "ls-files")
	if err != nil {
		return nil, err
	}
	attributes, err := git(tracked, "check-attr", "--stdin", "linguist-generated")
	if err != nil {
		return nil, err
	}
	var marked []string
	for line := range strings.Lines(string(attributes)) {
		if name, isMarked := strings.CutSuffix(line, ": linguist-generated: set\n"); isMarked {
			marked = append(marked, name)
		}
	}
	return marked, nil
}
