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
		Long: `Edit the image policy as one small YAML document, in the editor that KUBE_EDITOR
or EDITOR names, or vi. What is wrong with it is shown there, and it is opened
again. An edit that could not be made is kept in a file.`,
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

const editHelp = `# The image policy. Lines that begin with # are left out; an empty file gives up.
`

func (o *policyEditOptions) run(ctx context.Context) error {
	var kept string // the file with an edit that was not made
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
		kept = file.Name()
		if err := file.Close(); err != nil {
			return nil, err
		}
		return o.edit(ctx, kept, text, p)
	})
	switch {
	case kept == "":
	case err == nil || errors.Is(err, errNotEdited):
		err = errors.Join(err, os.Remove(kept))
	default:
		o.Remark("the edit is kept in %s", kept)
	}
	if errors.Is(err, errNotEdited) {
		o.Remark("%v; nothing was changed", errNotEdited)
		return o.printChanges(nil)
	}
	return err
}

var errNotEdited = errors.New("the policy was not edited")

// edit has a person edit the text in a file until it is a policy.
func (o *policyEditOptions) edit(ctx context.Context, file string, text []byte, before constraint.Policy) (*constraint.Policy, error) {
	shown := append([]byte(editHelp), text...)
	var mistake error
	var wrong []byte // what was written last time
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
		case mistake != nil && bytes.Equal(plain, wrong): // given up, or a program that writes what it always does
			return nil, fmt.Errorf("the policy was not mended: %w", mistake)
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

// sound checks what only OCI and the schemas of the constraints know.
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
	// The shell, too, is on the terminal, and outlives an interrupt that is the editor's.
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
