package ci

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/simulate"
)

type verdictsOptions struct {
	*connect.Session
	input inputFlags
	out   cli.Output
}

// NewVerdicts makes the command.
func NewVerdicts(s *connect.Session) *cobra.Command {
	o := &verdictsOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "verdicts -f FILE|DIR|- (--key KEY|--constraints DIR)",
		Short: "Record verdicts on images, for checks without OCI",
		Long: `Ask OCI for the verdicts that constraints need about the images in manifests,
and print them as a ConfigMap. gator reads it with the recorded templates,
conftest reads it as data, and kubectl oke-sign check reads it with --verdicts.

A record says what was true when it was made. It admits nothing in a cluster.

Exit code 0: the record answers every question. 1: OCI gave no answer to some
questions, and they are not in the record.`,
		Example: `  kubectl oke-sign verdicts -f deploy/ --constraints policy/ > verdicts.yaml

  # Without access to OCI
  gator test -f policies/expansion.yaml -f recorded-templates/ -f policy/ \
    -f deploy/ -f verdicts.yaml
  conftest test --policy policies/conftest --data verdicts.yaml \
    --data constraints.yaml deploy/`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(cli.NotEmpty(cmd, "key"), o.validate(args)); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.input.bind(cmd.Flags())
	cmd.Flags().StringVarP(&o.out.Format, "output", "o", "yaml", "`FORMAT` of the record: yaml, json.")
	return cmd
}

func (o *verdictsOptions) validate(args []string) error {
	if o.out.Format != "yaml" && o.out.Format != "json" {
		return cli.Usage(fmt.Sprintf("--output %q is no format of a record", o.out.Format), "use -o yaml or -o json")
	}
	return cmp.Or(o.input.validate(args), o.ValidateFlags())
}

func (o *verdictsOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	answers, asking := o.ask(ctx)
	var wrong *cli.UsageError
	if errors.As(asking, &wrong) {
		return asking
	}
	entries := []simulate.RecordedVerdict{}
	var failed []cli.Result
	for _, a := range answers {
		if a.Err != nil {
			failed = append(failed, cli.Result{Target: a.Question.Image, Err: a.Err})
			continue
		}
		entries = append(entries, simulate.RecordedVerdict{Question: a.Question, Verdict: a.Value})
	}
	list, err := marshalIndented(entries)
	if err != nil {
		return err
	}
	record := map[string]any{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata":   map[string]any{"name": simulate.RecordName, "namespace": "oke-sign"},
		"data":       map[string]any{simulate.RecordKey: list},
	}
	out := o.out
	if err := out.Print(o.Streams.Out, cli.Document{Value: record}); err != nil {
		return err
	}
	o.Remark("%s recorded", cli.Count(len(entries), "verdict"))
	if len(failed) > 0 {
		o.ComplainAbout(failed)
		return cli.ErrFailed
	}
	return cli.StopCause(ctx, asking)
}

func (o *verdictsOptions) ask(ctx context.Context) ([]simulate.Answer, error) {
	p, err := o.input.read(ctx, o.Session)
	if err != nil {
		return nil, err
	}
	questions, err := simulate.Questions(ctx, p)
	if err != nil {
		return nil, err
	}
	return simulate.OCI(o.Session)(ctx, questions)
}

// marshalIndented writes each verdict on its own lines, for people to read and for a
// version control system to compare.
func marshalIndented(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.String(), err
}
