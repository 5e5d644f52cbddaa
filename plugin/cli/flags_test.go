package cli_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// tree is a small command tree: prog policy (set|get), prog version.
func tree() *cobra.Command {
	root := cli.NewGroup("prog", "Do things", "Do several things.")
	policy := cli.NewGroup("policy", "Change the policy", "Change the policy.")
	for _, name := range []string{"set", "get"} {
		policy.AddCommand(&cobra.Command{Use: name, RunE: func(*cobra.Command, []string) error { return nil }})
	}
	version := &cobra.Command{Use: "version", Args: cli.NoArguments, RunE: func(cmd *cobra.Command, _ []string) error { return cli.NotEmpty(cmd, "output") }}
	version.Flags().StringP("output", "o", "table", "format")
	version.Flags().StringSlice("key", nil, "keys")
	root.AddCommand(policy, version)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetOut(io.Discard)
	return root
}

// Unknown words on a command line are wrong use. The error suggests the probable
// word.
func TestCommandLines(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"a command":                    {[]string{"policy", "set"}, ""},
		"a group alone shows its help": {[]string{"policy"}, ""},
		"a typing mistake":             {[]string{"polcy"}, "error: no command \"polcy\"\nhint: did you mean prog policy?\n"},
		"a mistake in a group":         {[]string{"policy", "st"}, "error: no command \"st\"\nhint: did you mean prog policy set or get?\n"},
		"nothing like it":              {[]string{"frobnicate"}, "error: no command \"frobnicate\"\nhint: see prog --help\n"},
		"an unexpected argument":       {[]string{"version", "web"}, "error: prog version takes no arguments, got \"web\"\nhint: see prog version --help\n"},
		"a word that a terminal obeys": {[]string{"\x1b[2J"}, "error: no command \"\\x1b[2J\"\nhint: see prog --help\n"},
		"a flag with a value":          {[]string{"version", "-o", "json"}, ""},
		"a flag that is empty":         {[]string{"version", "-o", ""}, "error: --output is empty\nhint: give it a value, or omit the flag; in a script, check that the variable is set\n"},
	} {
		root := tree()
		root.SetArgs(tc.args)
		var said bytes.Buffer
		code := cli.Report(&said, root.Execute())
		if said.String() != tc.want || (code == cli.ExitUsage) != (tc.want != "") {
			t.Errorf("%s: got %d, %q, want %q", name, code, &said, tc.want)
		}
	}
}

// An empty value usually comes from a variable that a script has not set.
func TestNotEmpty(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		ok   bool
	}{
		"not given":               {nil, true},
		"a value":                 {[]string{"--key", "a"}, true},
		"several":                 {[]string{"--key", "a,b", "--key", "c"}, true},
		"an empty list":           {[]string{"--key", ""}, false},
		"an empty list, repeated": {[]string{"--key", "", "--key", ""}, false},
	} {
		version, _, err := tree().Find([]string{"version"})
		if err == nil {
			err = version.ParseFlags(tc.args)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := cli.NotEmpty(version, "key"); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
