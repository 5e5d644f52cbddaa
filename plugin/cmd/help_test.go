package cmd_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cmd"
)

// Every help text fits 80 columns, wraps between words, and starts with the purpose
// of the command.
func TestHelp(t *testing.T) {
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	root := cmd.New(cmd.Config{Streams: streams, Getenv: func(string) string { return "" }})
	commands := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		commands++
		var text bytes.Buffer
		c.SetOut(&text)
		c.InitDefaultHelpFlag()
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text.String()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > 80 || line != strings.TrimRight(line, " \t") {
				t.Errorf("%s: a line of %d characters: %q", c.CommandPath(), n, line)
			}
		}
		words := strings.Fields(text.String())
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			for _, word := range strings.Fields(strings.ReplaceAll(f.Usage, "`", "")) {
				if !f.Hidden && !slices.Contains(words, word) {
					t.Errorf("%s: --%s: the word %q is broken", c.CommandPath(), f.Name, word)
				}
			}
			if first, _ := utf8.DecodeRuneInString(strings.TrimPrefix(f.Usage, "`")); !f.Hidden && f.Name != "help" && (!unicode.IsUpper(first) || !strings.HasSuffix(f.Usage, ".")) {
				t.Errorf("%s: --%s is no sentence: %s", c.CommandPath(), f.Name, f.Usage)
			}
		})
		verb, _, _ := strings.Cut(c.Short, " ")
		if first, _ := utf8.DecodeRuneInString(verb); !unicode.IsUpper(first) || strings.HasSuffix(c.Short, ".") || strings.HasSuffix(verb, "s") || strings.HasSuffix(verb, "ing") {
			t.Errorf("%s: %q does not begin with a verb in the imperative, or ends with a full stop", c.CommandPath(), c.Short)
		}
		for _, sub := range c.Commands() {
			if !sub.Hidden {
				walk(sub)
			}
		}
	}
	walk(root)
	if commands < 40 {
		t.Errorf("%d commands: the walk missed some", commands)
	}
	for _, c := range root.Commands() {
		if !root.ContainsGroup(c.GroupID) || c.GroupID == "" {
			t.Errorf("%s is in no group", c.Name())
		}
	}
}
