package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
)

type policyEditOptions struct {
	changeOptions
	editor string
}

func newEdit(s *connect.Session, editor string) *cobra.Command {
	o := &policyEditOptions{changeOptions: changeOptions{Session: s}, editor: editor}
	cmd := &cobra.Command{
		Use:   "edit",
		Short: "Edit the image policy in an editor",
		Long: `Edit the image policy as one small YAML document, in the editor of KUBE_EDITOR
or EDITOR, or in vi. If the edit is not valid, the editor opens again and shows
the errors. An edit that could not be applied stays in a file.`,
		Example: `  kubectl oke-sign policy edit

  KUBE_EDITOR="code --wait" kubectl oke-sign policy edit --preview`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(cmd); err != nil {
				return err
			}
			return cli.WithErrorDocument(&o.Terminal, &o.out, func() error { return o.run(cmd.Context()) })
		},
	}
	o.bind(cmd.Flags())
	o.bindFiles(cmd.Flags())
	o.bindAllowAny(cmd.Flags())
	return cmd
}

const editHelp = `# The image policy. Lines that begin with # are ignored; an empty file cancels.
`

func (o *policyEditOptions) run(ctx context.Context) error {
	var draft string // the file with an edit that was not applied
	err := o.changed(ctx, func(ctx context.Context, before Enforced) (*constraint.Policy, error) {
		p, err := before.existing()
		if err != nil {
			return nil, err
		}
		text, err := p.YAML()
		if err != nil {
			return nil, err
		}
		file, err := os.CreateTemp("", "oke-sign-policy-*.yaml")
		if err != nil {
			return nil, err
		}
		draft = file.Name()
		if err := file.Close(); err != nil {
			return nil, err
		}
		return o.edit(ctx, draft, text, p)
	})
	switch {
	case draft == "":
	case err == nil || errors.Is(err, errNotEdited):
		err = errors.Join(err, os.Remove(draft))
	default:
		o.Remark("the edit is saved in %s", draft)
	}
	if errors.Is(err, errNotEdited) {
		o.Remark("%v; nothing was changed", errNotEdited)
		return o.printChanges(nil)
	}
	return err
}

var errNotEdited = errors.New("the policy was not edited")

// edit opens the editor until the text is a valid policy.
func (o *policyEditOptions) edit(ctx context.Context, file string, text []byte, before constraint.Policy) (*constraint.Policy, error) {
	shown := append([]byte(editHelp), text...)
	var mistake error
	var wrong []byte // the last rejected text
	for {
		if err := os.WriteFile(file, shown, 0o600); err != nil {
			return nil, err
		}
		if err := o.open(ctx, file); err != nil {
			return nil, err
		}
		edited, err := os.ReadFile(file) //nolint:gosec // it is ours
		if err != nil {
			return nil, err
		}
		plain := uncommented(edited)
		switch {
		case len(bytes.TrimSpace(plain)) == 0, mistake == nil && bytes.Equal(plain, text):
			return nil, errNotEdited
		case mistake != nil && bytes.Equal(plain, wrong): // the user gave up, or a program writes the same text each time
			return nil, fmt.Errorf("the policy was not fixed: %w", mistake)
		}
		p, err := constraint.Parse(plain)
		if err == nil {
			err = o.sound(ctx, p, before)
		}
		if err == nil {
			return &p, nil
		}
		if ctx.Err() != nil {
			return nil, cli.StopCause(ctx, err)
		}
		mistake, wrong = err, plain
		var b bytes.Buffer
		b.WriteString(editHelp)
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(&b, "# WRONG: %s\n", cli.Printable(strings.TrimSuffix(line, "\n")))
		}
		b.Write(plain)
		shown = b.Bytes()
	}
}

// sound checks a policy against OCI and against the schemas of the constraints.
func (o *policyEditOptions) sound(ctx context.Context, p, before constraint.Policy) error {
	if err := schemasAccept(ctx, p); err != nil {
		return err
	}
	_, err := addable(ctx, o.Session, p.Keys, before.Keys)
	return err
}

func uncommented(text []byte) []byte {
	var plain []byte
	for line := range bytes.Lines(text) {
		if !bytes.HasPrefix(line, []byte("#")) {
			plain = append(plain, line...)
		}
	}
	return plain
}

// open opens a file in the user's editor and waits for it to be closed.
func (o *policyEditOptions) open(ctx context.Context, file string) error {
	// The shell shares the terminal, and survives an interrupt that is for the editor.
	command := []string{"sh", "-c", "trap : INT; " + o.editor + ` "$1"`, "sh", file}
	if runtime.GOOS == "windows" {
		command = append(strings.Fields(o.editor), file)
	}
	run := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // the user's own choice
	run.Stdin, run.Stdout, run.Stderr = o.Streams.In, o.Streams.ErrOut, o.Streams.ErrOut
	defer o.Interrupts.Hold()()
	if err := run.Run(); err != nil {
		return &cli.HintedError{What: fmt.Errorf("running the editor %q: %w", o.editor, err), Hint: "name another with KUBE_EDITOR"}
	}
	return nil
}
