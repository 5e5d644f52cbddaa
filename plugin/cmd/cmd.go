// Package cmd holds the commands of kubectl oke-sign: signing images of OCI
// Registry, verifying them, having them scanned, and looking at signatures, keys
// and what scans found.
//
// What a command finds out goes to Out, in the format that -o asks for, and
// remarks go to ErrOut. The commands decide nothing about signatures
// themselves: that is left to packages signature and verdict, which the provider
// in the cluster uses as well, so that both say the same of the same image.
//
// Text that comes from OCI is somebody else's: descriptions, names and error
// messages are stripped of what a terminal would obey before they are printed.
// The package neither exits nor reads the environment; its caller does.
package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/provider/contain"
)

// Exit codes. Of several targets the worst decides: what could not be found out
// outweighs a no, and a no outweighs a yes.
const (
	exitDone   = 0 // yes, or done
	exitFailed = 1 // could not find out, or could not do
	exitUsage  = 2 // wrong use; nothing was asked or done
	exitNo     = 3 // found out, and the answer is no
)

// Config is what the commands are given by their caller.
type Config struct {
	// Args are the command line's words after the program's name.
	Args []string
	// Streams are where data, remarks and input go and come from.
	Streams genericiooptions.IOStreams
	// Getenv reads the environment: OCI's variables that name a configuration
	// file and a profile.
	Getenv func(string) string
	// ConfigDir is the directory of the user's own configuration files, such as
	// ~/.config; empty if there is none, and then nothing is kept.
	ConfigDir string
	// Version is the released version, or empty for what the build recorded.
	Version string
	// Interrupts are those that end the context which Run is given. They are held off
	// while an editor is open; nil has nothing to hold off.
	Interrupts *Interrupts
}

// Run runs one command line and returns the exit code.
func Run(ctx context.Context, cfg Config) (code int) {
	defer func() {
		if p := recover(); p != nil {
			// Not the runtime's way out: it would print a stack, and exit as for wrong use.
			// Nor what the code that panicked has to say, which may hold a secret.
			complain(cfg.Streams.ErrOut, &contain.PanicError{Value: p}, "this is a mistake in kubectl oke-sign; please report it with the command")
			code = exitFailed
		}
	}()
	if len(cfg.Args) > 0 && (cfg.Args[0] == cobra.ShellCompRequestCmd || cfg.Args[0] == cobra.ShellCompNoDescRequestCmd) {
		cfg.Streams.ErrOut = io.Discard // it would land in the middle of a line
	}
	root := New(cfg)
	root.SetArgs(cfg.Args)
	help := &failing{Writer: cfg.Streams.Out}
	root.SetOut(help)
	err := root.ExecuteContext(ctx)
	if err == nil && help.err != nil {
		err = fmt.Errorf("writing the output: %w", help.err)
	}
	return report(cfg.Streams.ErrOut, err)
}

// failing keeps the first error of a writer, for those who do not look: cobra, which
// prints help and candidates of completion.
type failing struct {
	io.Writer
	err error
}

func (w *failing) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.err = cmp.Or(w.err, err)
	return n, err
}

// New makes the command tree.
func New(cfg Config) *cobra.Command {
	g := &global{
		terminal: terminal{streams: cfg.Streams, interrupts: cfg.Interrupts},
		kube:     newKube(cfg.Streams.ErrOut), configDir: cfg.ConfigDir, words: cfg.Args,
	}
	root := &cobra.Command{
		Use:   "kubectl-oke_sign",
		Short: "Sign and verify container images in OCI Registry",
		Long: `Sign container images in OCI Registry with keys of OCI Vault, and find out which
are signed, by the same rules that oke-sign enforces in a cluster.`,
		Example: `  # Which keys can sign images, and why can the others not?
  kubectl oke-sign keys list

  # Choose one, and sign the image that a tag points to now
  kubectl oke-sign keys use image-key
  kubectl oke-sign sign ` + exampleTag + ` --resolve

  # Which signatures does it have, and what is its digest?
  kubectl oke-sign signatures ` + exampleTag + ``,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl oke-sign"},
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetHelpCommand(newHelp())
	root.SetUsageTemplate(usageTemplate)
	root.SetIn(cfg.Streams.In)
	root.SetOut(cfg.Streams.Out)
	root.SetErr(cfg.Streams.ErrOut)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(err.Error(), "see "+cmd.CommandPath()+" --help")
	})
	g.bind(root.PersistentFlags(), cfg.Getenv)
	root.AddCommand(
		newSign(g),
		newVerify(g),
		newSignatures(g),
		newKeys(g),
		newPolicy(g, cfg.Getenv),
		newCheck(g),
		newVerdicts(g),
		newPin(g),
		newScan(g),
		newStatus(g),
		newBreakGlass(g),
		newClusterPolicy(g),
		newIAM(g),
		newRegistryToken(g),
		newExplain(g),
		newCompletion(g),
		newDoctor(g),
		newVersion(g, cfg.Version),
	)
	completion{g}.add(root)
	return root
}

// usageTemplate is cobra's, less the flags that all commands share under each of
// them, and folded for 80 columns.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if or .IsAvailableCommand (eq .Name "help")}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}

{{if .HasParent}}{{.Root.CommandPath}} --help lists the flags that all commands share.{{else}}All that kubectl's own flags say about the cluster can be said here as well,
such as --as, --server and --token.{{end}}
`

// Examples in help texts; the image is the one of the emulator's demonstration.
const (
	exampleTag = "iad.ocir.io/idwpqivumvev/scan-test:latest"
	exampleKey = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a"
)

// newHelp is cobra's help command, for which asking about what there is not is
// wrong use.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:                   "help COMMAND",
		Short:                 "Show the help of a command",
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || about == nil {
				return noArguments(cmd.Root(), args)
			}
			if about.HasSubCommands() && len(rest) > 0 {
				return noArguments(about, rest)
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// noArguments refuses what is neither a command nor wanted.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		hint := "see " + cmd.CommandPath() + " --help"
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = fmt.Sprintf("did you mean %s %s?", cmd.CommandPath(), strings.Join(near, " or "))
		}
		return usage(fmt.Sprintf("no command %q", args[0]), hint)
	}
	return usage(fmt.Sprintf("%s takes no arguments, got %q", cmd.CommandPath(), args[0]), "see "+cmd.CommandPath()+" --help")
}

// notEmpty refuses a flag that is given and empty, as by a variable that nobody
// set: what leaving it out means is not what was meant.
func notEmpty(cmd *cobra.Command, name string) error {
	if f := cmd.Flags().Lookup(name); f.Changed && strings.Trim(f.Value.String(), "[]") == "" {
		return usage("--"+name+" is given, and empty", "leave it out, or look where the value comes from")
	}
	return nil
}

// usageError is wrong use: what is wrong with the command line, and what to do
// instead.
type usageError struct{ what, hint string }

func (e *usageError) Error() string { return e.what }

func usage(what, hint string) error { return &usageError{what, hint} }

// refusal is an error that knows what to do about it.
type refusal struct {
	what error
	hint string
}

func (e *refusal) Error() string { return e.what.Error() }
func (e *refusal) Unwrap() error { return e.what }

// Outcomes that the command has already told.
var (
	errInterrupted = errors.New("interrupted")

	errFailed = errors.New("could not find out or failed")
	errNo     = errors.New("the answer is no")
)

// report tells an error to a person, and returns the exit code for it.
func report(w io.Writer, err error) int {
	var wrong *usageError
	var refused *refusal
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errFailed):
		return exitFailed
	case errors.Is(err, errNo):
		return exitNo
	case errors.As(err, &wrong):
		complain(w, wrong, wrong.hint)
		return exitUsage
	case errors.As(err, &refused):
		complain(w, err, refused.hint)
		return exitFailed
	default:
		complain(w, err, "")
		return exitFailed
	}
}

// complain writes an error and a hint. That it cannot is not worth a word:
// there is nowhere left to put it.
func complain(w io.Writer, err error, hint string) {
	// Errors that are joined have a line each.
	_, _ = fmt.Fprintf(w, "error: %s\n", printable(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")))
	for line := range strings.Lines(hint) { // one thing to type each
		_, _ = fmt.Fprintf(w, "hint: %s\n", printable(strings.TrimSuffix(line, "\n")))
	}
}

// remark tells a person something that is not data.
func (t *terminal) remark(format string, args ...any) {
	t.bar.clear(t.streams.ErrOut)
	_, _ = fmt.Fprintf(t.streams.ErrOut, "%s\n", printable(fmt.Sprintf(format, args...)))
}

// within bounds a command's work by --timeout.
func (t *terminal) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if t.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, t.timeout, timeoutError{t.timeout})
}

// timeoutError is the end of --timeout.
type timeoutError struct{ after time.Duration }

func (e timeoutError) Error() string { return fmt.Sprintf("not done within --timeout %s", e.after) }

// because says of an error that came of stopping everything why that was done.
func because(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	why := errInterrupted
	var late timeoutError
	if errors.As(context.Cause(ctx), &late) {
		why = late
	}
	if err == ctx.Err() || err == context.Cause(ctx) { //nolint:errorlint // one that wraps it says more
		return why
	}
	return fmt.Errorf("%w: %w", why, err)
}

// stopped reports whether an error says no more than that everything was stopped.
func stopped(err error) bool {
	var shared common
	if errors.As(err, &shared) {
		err = shared.error
	}
	_, late := err.(timeoutError)        //nolint:errorlint // one that wraps it says more
	return late || err == errInterrupted //nolint:errorlint // the same
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
