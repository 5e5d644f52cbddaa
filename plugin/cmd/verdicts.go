package cmd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

type verdictsOptions struct {
	*global
	manifests manifestFlags
	out       output
}

func newVerdicts(g *global) *cobra.Command {
	o := &verdictsOptions{global: g}
	cmd := &cobra.Command{
		Use:   "verdicts -f FILE|DIR|- [--constraints FILE|DIR]",
		Short: "Record verdicts on images, for checks that cannot ask OCI",
		Long: `Ask OCI what constraints would ask about the images in manifests, and write the
answers down: a ConfigMap that gator reads beside the recorded templates,
conftest as data, and kubectl oke-sign check with --verdicts.

A record says what was true when it was made. In a cluster it admits nothing.

Exit code 0: the record answers every question. 1: something could not be found
out, and is not in it.`,
		Example: `  kubectl oke-sign verdicts -f deploy/ --constraints policy/ > verdicts.yaml

  # Where OCI cannot be reached
  gator test -f policies/expansion.yaml -f recorded-templates/ -f policy/ -f deploy/ -f verdicts.yaml
  conftest test --policy policies/conftest --data verdicts.yaml --data constraints.yaml deploy/`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.manifests.bind(cmd.Flags())
	cmd.Flags().StringVarP(&o.out.format, "output", "o", "yaml", "`FORMAT` of the record: yaml, json.")
	return cmd
}

func (o *verdictsOptions) validate(args []string) error {
	if o.out.format != "yaml" && o.out.format != "json" {
		return usage(fmt.Sprintf("--output %q is no format of a record", o.out.format), "use -o yaml or -o json")
	}
	return cmp.Or(o.manifests.validate(args), o.global.validate())
}

func (o *verdictsOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	answers, asking := o.ask(ctx)
	var wrong *usageError
	if errors.As(asking, &wrong) {
		return asking
	}
	entries := []recorded{}
	var failed []result
	for _, a := range answers {
		if a.err != nil {
			failed = append(failed, result{target: a.question.Image, err: a.err})
			continue
		}
		entries = append(entries, recorded{a.question, a.value})
	}
	list, err := marshalIndented(entries)
	if err != nil {
		return err
	}
	record := map[string]any{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata":   map[string]any{"name": recordName, "namespace": "oke-sign"},
		"data":       map[string]any{recordKey: list},
	}
	out := o.out
	if err := out.print(o.streams.Out, data{value: record}); err != nil {
		return err
	}
	o.remark("%s recorded", count(len(entries), "verdict"))
	if len(failed) > 0 {
		o.complainAbout(failed)
		return errFailed
	}
	return because(ctx, asking)
}

func (o *verdictsOptions) ask(ctx context.Context) ([]answered, error) {
	p, err := o.manifests.read(ctx, o.global)
	if err != nil {
		return nil, err
	}
	questions, err := o.questions(ctx, p)
	if err != nil {
		return nil, err
	}
	return o.answer(ctx, questions)
}

// marshalIndented writes one verdict after the other, for people to read and for
// a version control system to compare.
func marshalIndented(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.String(), err
}
