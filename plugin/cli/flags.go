package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// BindYes adds --yes. skips says what the command skips besides its question, if
// anything.
func BindYes(flags *pflag.FlagSet, yes *bool, skips string) {
	usage := "Do not ask for confirmation"
	if skips != "" {
		usage += ", and skip " + skips
	}
	flags.BoolVarP(yes, "yes", "y", false, usage+".")
}

// BindDryRun adds --dry-run.
func BindDryRun(flags *pflag.FlagSet, dryRun *bool) {
	flags.BoolVar(dryRun, "dry-run", false, "Show what the command would do, and change nothing.")
}

// NoArguments rejects arguments: unknown commands, and arguments of a command that
// takes none.
func NoArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		hint := "see " + cmd.CommandPath() + " --help"
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf("did you mean %s %s?", cmd.CommandPath(), strings.Join(near, " or "))
		}
		return Usage(fmt.Sprintf("no command %q", args[0]), hint)
	}
	return Usage(fmt.Sprintf("%s takes no arguments, got %q", cmd.CommandPath(), args[0]), "see "+cmd.CommandPath()+" --help")
}

// NotEmpty rejects a flag with an empty value. In a script, the value is mostly a
// variable that is not set, and the flag's default is not what the author meant.
func NotEmpty(cmd *cobra.Command, name string) error {
	if f := cmd.Flags().Lookup(name); f.Changed && strings.Trim(f.Value.String(), "[]") == "" {
		return Usage("--"+name+" is empty", "give it a value, or omit the flag; in a script, check that the variable is set")
	}
	return nil
}

// NewGroup makes a command that only has subcommands.
func NewGroup(use, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long,

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}
