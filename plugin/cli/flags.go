package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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

// Word is a flag whose value is one of several words.
type Word struct {
	to    *string
	words []string
}

// NewWord returns a flag that stores one of the words in to.
func NewWord(to *string, words ...string) *Word { return &Word{to, words} }

func (w *Word) String() string {
	if w.to == nil {
		return ""
	}
	return *w.to
}

// Set stores a word. It rejects others.
func (w *Word) Set(word string) error {
	if !slices.Contains(w.words, word) {
		return errors.New("not one of " + strings.Join(w.words, ", "))
	}
	*w.to = word
	return nil
}

// Type is the name of the value in help.
func (w *Word) Type() string { return "WORD" }

// DryRun says whether a command only shows or checks what it would do.
type DryRun string

// Dry runs, with kubectl's words.
const (
	DryRunNone   DryRun = "none"
	DryRunClient DryRun = "client"
	DryRunServer DryRun = "server"
)

// On reports whether the command must change nothing.
func (d DryRun) On() bool { return d == DryRunClient || d == DryRunServer }

// BindDryRun adds --dry-run. server says what the command does with --dry-run=server. As
// in kubectl, the flag without a value means client.
func BindDryRun(flags *pflag.FlagSet, dryRun *DryRun, server string) {
	*dryRun = DryRunNone
	flags.Var(NewWord((*string)(dryRun), string(DryRunNone), string(DryRunClient), string(DryRunServer)), "dry-run",
		"`HOW` to change nothing: client shows what the command would do, and server "+server+".")
	flags.Lookup("dry-run").NoOptDefVal = string(DryRunClient)
}

// duration is a flag with a time, in Go's units and days.
type duration time.Duration

// BindDuration adds a flag with a time, such as 90s, 30m, 8h or 2d.
func BindDuration(flags *pflag.FlagSet, to *time.Duration, name, usage string) {
	flags.Var((*duration)(to), name, usage)
}

func (d *duration) String() string {
	if *d == 0 {
		return "0" // help omits a default of 0
	}
	return time.Duration(*d).String()
}

// maxDays keeps days within what a time.Duration can hold.
const maxDays = 36500

// Set reads a time. A day has 24 hours.
func (d *duration) Set(s string) error {
	days, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 16)
	var part time.Duration
	if err == nil && (rest != "" || !hasDays) {
		part, err = time.ParseDuration(rest)
	}
	if err != nil || n > maxDays || hasDays && part < 0 {
		return errors.New("not a time")
	}
	*d = duration(time.Duration(n)*24*time.Hour + part)
	return nil
}

// Type is the name of the value in help.
func (d *duration) Type() string { return "duration" }

// FlagError makes wrong use of an error of the flag parser: it names the flag and what to
// type instead.
func FlagError(cmd *cobra.Command, err error) error {
	hint := "see " + cmd.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		if near := Near(unknown.GetSpecifiedName(), flagNames(cmd)); len(near) > 0 {
			hint = "did you mean --" + strings.Join(near, " or --") + "?"
		}
		return Usage("unknown flag --"+unknown.GetSpecifiedName(), hint)
	case errors.As(err, &invalid):
		what, instead := expects(invalid.GetFlag())
		return Usage(fmt.Sprintf("--%s %q is not %s", invalid.GetFlag().Name, invalid.GetValue(), what), "use "+instead)
	}
	return Usage(err.Error(), hint)
}

// expects says what a flag takes, and how to write it.
func expects(f *pflag.Flag) (what, instead string) {
	switch v := f.Value.(type) {
	case *Word:
		return "known", fmt.Sprintf("--%s %s", f.Name, strings.Join(v.words, ", or "))
	case *duration:
		return "a time", fmt.Sprintf("a time such as --%s 30m, 8h or 2d", f.Name)
	}
	switch f.Value.Type() {
	case "bool":
		return "true or false", fmt.Sprintf("--%s, or --%s=false", f.Name, f.Name)
	case "int":
		return "a number", fmt.Sprintf("a number, such as --%s 10", f.Name)
	}
	return "valid", "a " + f.Value.Type()
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return names
}

// Near returns the names that a misspelt name may mean.
func Near(typed string, names []string) []string {
	all := &cobra.Command{} // cobra has the rule that commands follow
	for _, name := range names {
		all.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	for all.SuggestionsMinimumDistance = 1; all.SuggestionsMinimumDistance <= 2; all.SuggestionsMinimumDistance++ {
		if near := all.SuggestionsFor(typed); len(near) > 0 {
			return near
		}
	}
	return nil
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
