// Package cmd assembles the commands of kubectl oke-sign: the tree, its help, completion
// and version. It is the only package that knows all commands. Each group of commands
// has a package below this one, and no group imports another.
//
// A command prints its data to Out, in the format that -o asks for, and remarks to
// ErrOut. Commands decide nothing about signatures: packages signature and verdict do,
// as they do for the provider in the cluster, so that both say the same of an image.
// The package neither exits nor reads the environment; its caller does.
package cmd

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/cmd/breakglass"
	"github.com/oke-sign/oke-sign/plugin/cmd/ci"
	"github.com/oke-sign/oke-sign/plugin/cmd/doctor"
	"github.com/oke-sign/oke-sign/plugin/cmd/iam"
	"github.com/oke-sign/oke-sign/plugin/cmd/inspect"
	"github.com/oke-sign/oke-sign/plugin/cmd/keys"
	"github.com/oke-sign/oke-sign/plugin/cmd/okepolicy"
	"github.com/oke-sign/oke-sign/plugin/cmd/policy"
	"github.com/oke-sign/oke-sign/plugin/cmd/scan"
	"github.com/oke-sign/oke-sign/plugin/cmd/signing"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/contain"
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
	Interrupts *cli.Interrupts
}

// Run runs one command line and returns the exit code.
func Run(ctx context.Context, cfg Config) (code int) {
	defer func() {
		if p := recover(); p != nil {
			// Not the runtime's way out: it would print a stack, and exit as for wrong use.
			// Nor what the code that panicked has to say, which may hold a secret.
			cli.Complain(cfg.Streams.ErrOut, &contain.PanicError{Value: p}, "this is a mistake in kubectl oke-sign; please report it with the command")
			code = cli.ExitFailed
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
	return cli.Report(cfg.Streams.ErrOut, err)
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
	g := &connect.Session{
		Terminal: cli.Terminal{Streams: cfg.Streams, Interrupts: cfg.Interrupts},
		Kube:     connect.NewKube(cfg.Streams.ErrOut), ConfigDir: cfg.ConfigDir, Words: cfg.Args,
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
  kubectl oke-sign sign ` + cli.ExampleTag + ` --resolve

  # Which signatures does it have, and what is its digest?
  kubectl oke-sign signatures ` + cli.ExampleTag + ``,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl oke-sign"},
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetHelpCommand(newHelp())
	root.SetUsageTemplate(usageTemplate)
	root.SetIn(cfg.Streams.In)
	root.SetOut(cfg.Streams.Out)
	root.SetErr(cfg.Streams.ErrOut)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return cli.Usage(err.Error(), "see "+cmd.CommandPath()+" --help")
	})
	g.Bind(root.PersistentFlags(), cfg.Getenv)
	root.AddCommand(
		signing.NewSign(g),
		signing.NewVerify(g),
		signing.NewSignatures(g),
		keys.New(g),
		policy.New(g, cfg.Getenv),
		ci.NewCheck(g),
		ci.NewVerdicts(g),
		ci.NewPin(g),
		scan.New(g),
		inspect.NewStatus(g),
		breakglass.New(g),
		okepolicy.New(g),
		iam.New(g),
		newRegistryToken(g),
		inspect.NewExplain(g),
		newCompletion(g),
		doctor.New(g),
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
				return cli.NoArguments(cmd.Root(), args)
			}
			if about.HasSubCommands() && len(rest) > 0 {
				return cli.NoArguments(about, rest)
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}
