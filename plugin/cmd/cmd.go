// Package cmd assembles the commands of kubectl oke-sign: the tree, its help, completion
// and version. It is the only package that knows all commands. Each group of commands
// has a package below this one, and no group imports another.
//
// A command prints its data to Out, in the format of -o, and remarks to ErrOut. Packages
// signature and verdict decide about signatures, here and in the provider, so both give
// the same verdict. The package neither exits nor reads the environment; its caller does.
package cmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

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

// Config is what the caller gives the commands.
type Config struct {
	// Args are the command line's words after the program's name.
	Args []string
	// Streams are the input, the output for data, and the output for remarks.
	Streams genericiooptions.IOStreams
	// Getenv reads the environment: OCI's variables that name a configuration
	// file and a profile.
	Getenv func(string) string
	// ConfigDir is the directory of the user's configuration files, such as ~/.config.
	// Without one, commands store nothing.
	ConfigDir string
	// Version is the released version, or empty for what the build recorded.
	Version string
	// Interrupts end the context of Run. Commands hold them while an editor is open; nil
	// holds nothing.
	Interrupts *cli.Interrupts
}

// Run runs one command line and returns the exit code.
func Run(ctx context.Context, cfg Config) (code int) {
	defer func() {
		if p := recover(); p != nil {
			// The runtime would print a stack, and exit with the code of wrong use. The
			// panic's value may contain a secret, so PanicError hides it.
			cli.Complain(cfg.Streams.ErrOut, &contain.PanicError{Value: p}, "this is a bug in kubectl oke-sign; please report it with the command")
			code = cli.ExitFailed
		}
	}()
	if len(cfg.Args) > 0 && (cfg.Args[0] == cobra.ShellCompRequestCmd || cfg.Args[0] == cobra.ShellCompNoDescRequestCmd) {
		cfg.Streams.ErrOut = io.Discard // remarks would appear in the middle of a line
	}
	root := New(cfg)
	root.SetArgs(cfg.Args)
	help := &failing{Writer: cfg.Streams.Out}
	root.SetOut(help)
	err := root.ExecuteContext(ctx)
	if err == nil && help.err != nil {
		err = fmt.Errorf("writing the output: %w", help.err)
	}
	return cli.Report(cfg.Streams.ErrOut, connect.Advised(err))
}

// failing records the first error of a writer. cobra, which prints help and completion
// candidates, ignores write errors.
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
		Terminal: cli.Terminal{Streams: cfg.Streams, Interrupts: cfg.Interrupts, Advise: connect.Advised},
		Kube:     connect.NewKube(cfg.Streams.ErrOut), ConfigDir: cfg.ConfigDir, Words: cfg.Args,
	}
	g.Streams.Out = cli.Screen(&g.Terminal)
	root := &cobra.Command{
		Use:   "kubectl-oke_sign",
		Short: "Sign container images in OCI Registry, and enforce signatures in OKE",
		Long: `Sign container images in OCI Registry with keys of OCI Vault. Verify them by the
rules that oke-sign enforces in a cluster, and manage the cluster's image
policy.`,
		Example: `  # List the keys, and which can sign images
  kubectl oke-sign keys list

  # Choose a default key, and sign the image that a tag points to now
  kubectl oke-sign keys use image-key
  kubectl oke-sign sign ` + cli.ExampleTag + ` --resolve

  # Show the image's signatures and its digest
  kubectl oke-sign signatures ` + cli.ExampleTag + ``,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl oke-sign"},
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.Help(); err != nil {
				return err
			}
			for line := range strings.Lines(g.FirstSteps(cmd.Context())) {
				g.Remark("%s", strings.TrimSuffix(line, "\n"))
			}
			return nil
		},
	}
	root.SetHelpCommand(newHelp())
	root.SetUsageTemplate(usageTemplate)
	root.SetIn(cfg.Streams.In)
	root.SetOut(cfg.Streams.Out)
	root.SetErr(cfg.Streams.ErrOut)
	root.SetFlagErrorFunc(cli.FlagError)
	g.Bind(root.PersistentFlags(), cfg.Getenv)
	cli.BindColor(root.PersistentFlags(), cfg.Getenv)
	root.Version = build(cfg.Version).String()
	root.SetVersionTemplate("{{.Version}}\n")
	root.Flags().Bool("version", false, "Print the version of this program.") // -v would be cobra's, and is kubectl's for logs
	for _, group := range []struct {
		title    string
		commands []*cobra.Command
	}{
		{"Sign:", []*cobra.Command{keys.New(g), signing.NewSign(g), signing.NewVerify(g), signing.NewSignatures(g)}},
		{"Enforce:", []*cobra.Command{policy.New(g, cfg.Getenv), breakglass.New(g), okepolicy.New(g)}},
		{"Inspect:", []*cobra.Command{doctor.New(g), inspect.NewStatus(g), inspect.NewExplain(g), scan.New(g)}},
		{"CI:", []*cobra.Command{ci.NewCheck(g), ci.NewVerdicts(g), ci.NewPin(g)}},
		{otherCommands, []*cobra.Command{iam.New(g), newRegistryToken(g), newCompletion(g), newVersion(g, cfg.Version)}},
	} {
		root.AddGroup(&cobra.Group{ID: group.title, Title: group.title})
		for _, c := range group.commands {
			c.GroupID = group.title
			root.AddCommand(c)
		}
	}
	completion{g}.add(root)
	return root
}

// otherCommands is the title of the last group of commands.
const otherCommands = "Other:"

// usageTemplate is cobra's template, wrapped at 80 columns. It leaves out the flags that
// all commands share, except at the root.
const usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{else}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}

{{if .HasParent}}{{.Root.CommandPath}} --help lists the flags that all commands share.{{else}}The commands take kubectl's own flags for the cluster too, such as --as,
--server and --token.{{end}}
`

// newHelp makes cobra's help command. Here help for an unknown command is wrong use.
func newHelp() *cobra.Command {
	return &cobra.Command{
		GroupID:               otherCommands,
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
