package cli_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	version.Flags().Bool("client", false, "client")
	version.Flags().Int("bits", 0, "bits")
	version.Flags().StringP("hidden", "x", "", "hidden")
	_ = version.Flags().MarkHidden("hidden")
	cli.BindDryRun(version.Flags(), new(cli.DryRun), "checks")
	cli.BindDuration(version.Flags(), new(time.Duration), "for", "time")
	root.SetFlagErrorFunc(cli.FlagError)
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
		"a flag that is misspelt":      {[]string{"version", "--dryrun"}, "error: unknown flag --dryrun\nhint: did you mean --dry-run?\n"},
		"a flag that is cut off":       {[]string{"version", "--clien=true"}, "error: unknown flag --clien\nhint: did you mean --client?\n"},
		"a flag like a hidden one":     {[]string{"version", "--hiden"}, "error: unknown flag --hiden\nhint: see prog version --help\n"},
		"a flag of another program":    {[]string{"version", "--frobnicate"}, "error: unknown flag --frobnicate\nhint: see prog version --help\n"},
		"a letter of none":             {[]string{"version", "-q"}, "error: unknown shorthand flag: 'q' in -q\nhint: see prog version --help\n"},
		"a flag without its value":     {[]string{"version", "--output"}, "error: flag needs an argument: --output\nhint: see prog version --help\n"},
		"a word for a yes":             {[]string{"version", "--client=perhaps"}, "error: --client \"perhaps\" is not true or false\nhint: use --client, or --client=false\n"},
		"a word for a number":          {[]string{"version", "--bits", "many"}, "error: --bits \"many\" is not a number\nhint: use a number, such as --bits 10\n"},
		"a word that is not known":     {[]string{"version", "--dry-run=perhaps"}, "error: --dry-run \"perhaps\" is not known\nhint: use --dry-run none, or client, or server\n"},
		"a time without a unit":        {[]string{"version", "--for", "2"}, "error: --for \"2\" is not a time\nhint: use a time such as --for 30m, 8h or 2d\n"},
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

// A time may have days, as people write them.
func TestDuration(t *testing.T) {
	const bad = time.Duration(-1)
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "0": 0, "0d": 0, "36500d": 36500 * 24 * time.Hour, "-1h": -time.Hour,
		"": bad, "d": bad, "2": bad, "two": bad, "-2d": bad, "1d-1h": bad, "1.5d": bad, "36501d": bad, "99999999999999999999d": bad, "1h2d": bad, "2d2d": bad,
	} {
		var got time.Duration
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		cli.BindDuration(flags, &got, "for", "time")
		err := flags.Set("for", text)
		if want == bad {
			if err == nil || got != 0 {
				t.Errorf("%q: got %s, %v, want an error", text, got, err)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
}

// Without a value, --dry-run means client, and without the flag the command is real.
func TestDryRun(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want cli.DryRun
		on   bool
	}{
		"not given": {nil, "none", false},
		"none":      {[]string{"--dry-run=none"}, "none", false},
		"bare":      {[]string{"--dry-run"}, "client", true},
		"client":    {[]string{"--dry-run=client"}, "client", true},
		"server":    {[]string{"--dry-run=server"}, "server", true},
	} {
		var got cli.DryRun
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		cli.BindDryRun(flags, &got, "checks")
		if err := flags.Parse(tc.args); err != nil || got != tc.want || got.On() != tc.on {
			t.Errorf("%s: got %q, %t, %v", name, got, got.On(), err)
		}
	}
}
