package cmd_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cmd"
)

// advised matches a command line of this program in a text.
var advised = regexp.MustCompile("kubectl oke-sign((?: +[^\\s\"'`|;,()<>]+)+)")

// prose are words that follow the program's name in sentences about the program.
var prose = []string{"is", "in", "and", "signs", "does", "with", "of", "itself", "as", "can", "asks", "has", "shows", "says", "cannot", "for", "…"}

// TestAdvisedCommandsExist reads each message, policy, chart and document that
// contains a command of this program. The command and its flags must exist.
func TestAdvisedCommandsExist(t *testing.T) {
	root := cmd.New(cmd.Config{Streams: genericiooptions.NewTestIOStreamsDiscard(), Getenv: func(string) string { return "" }})
	found := 0
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "bin", "dist", "testdata", "test"}, entry.Name()):
			return fs.SkipDir
		case entry.IsDir(), strings.HasSuffix(path, "_test.go"),
			!slices.Contains([]string{".go", ".rego", ".md", ".txt", ".yaml", ".yml", ".sh", ".tpl"}, filepath.Ext(path)):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
			if filepath.Ext(path) == ".go" && strings.HasPrefix(strings.TrimSpace(line), "//") {
				continue
			}
			for _, match := range advised.FindAllStringSubmatch(line, -1) {
				found++
				if wrong := wrongIn(root, strings.Fields(match[1])); wrong != "" {
					t.Errorf("%s: %s: %q", strings.TrimPrefix(path, "../../"), wrong, match[0])
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 100 {
		t.Errorf("found %d commands, want at least 100", found)
	}
	for line, want := range map[string]string{
		"policy get -o json":             "",
		"doctor fails while":             "",
		"sign $IMAGE --key=image-key":    "",
		"polcy get":                      "no command polcy",
		"keys lst":                       "no command lst",
		"policy set --kye image-key":     "no flag --kye",
		"doctor --fail-on HIGH":          "no flag --fail-on",
		"doctor. --fail-on is of others": "",
	} {
		if got := wrongIn(root, strings.Fields(line)); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

// wrongIn returns why a command line with these words is invalid, or "".
func wrongIn(root *cobra.Command, words []string) string {
	at := root
	word := regexp.MustCompile(`^[a-z][a-z-]*[.:]?$`)
	path := true
	for _, w := range words {
		switch name, isFlag := strings.CutPrefix(w, "--"); {
		case w == "#", w == "&&", w == "\\n":
			return ""
		case isFlag:
			name, _, _ = strings.Cut(strings.TrimRight(name, ".:!?"), "=")
			if name != "help" && at.Flag(name) == nil && at.InheritedFlags().Lookup(name) == nil {
				return "no flag --" + name
			}
			path = false
		case path && word.MatchString(w):
			next, _, err := at.Find([]string{strings.TrimRight(w, ".:")})
			switch {
			case err == nil && next != at:
				at = next
			case at.HasSubCommands() && !slices.Contains(prose, w):
				return "no command " + w
			default:
				path = false
			}
		default:
			path = false
		}
		if strings.HasSuffix(w, ".") || strings.HasSuffix(w, ":") {
			return ""
		}
	}
	return ""
}
