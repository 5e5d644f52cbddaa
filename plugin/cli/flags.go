package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// NoArguments refuses what is neither a command nor wanted.
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

// NotEmpty refuses a flag that is given and empty, as by a variable that nobody
// set: what leaving it out means is not what was meant.
func NotEmpty(cmd *cobra.Command, name string) error {
	if f := cmd.Flags().Lookup(name); f.Changed && strings.Trim(f.Value.String(), "[]") == "" {
		return Usage("--"+name+" is given, and empty", "leave it out, or look where the value comes from")
	}
	return nil
}

// NewGroup is a command that only holds others.
func NewGroup(use, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long,

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
}
