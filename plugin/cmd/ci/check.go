// Package ci has the commands that pipelines run on manifests: check, verdicts and
// pin.
package ci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
)

type checkOptions struct {
	*connect.Session
	input    inputFlags
	verdicts string
	live     bool
	provider string
	ca       string
	cert     string
	tlsKey   string
	out      cli.Output

	address *url.URL
}

// NewCheck makes the command.
func NewCheck(s *connect.Session) *cobra.Command {
	o := &checkOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "check -f FILE|DIR|- (--key KEY|--constraints DIR)",
		Short: "Check what a cluster would deny, before it does",
		Long: `Check manifests with the Gatekeeper engine and the policies of oke-sign, as a
cluster with these constraints would. With --key, the constraints are those that
kubectl oke-sign policy set --key makes. The command also checks the Pods that a
workload makes, because most constraints match Pods. Containers at a place that
no known kind of workload has are an error.

Verdicts on signatures and scans come from OCI, with your identity (--live, the
default with --key), from a record of kubectl oke-sign verdicts (--verdicts), or
from a provider (--provider). The command does not know who will send the
request: it checks everything of OKEBreakGlass but the user.

Exit code 0: the cluster would admit everything. 3: it would deny something. 1:
the command failed. -o name prints only the objects that would be admitted.`,
		Example: `  # Against a new policy with this key
  kubectl oke-sign check -f deploy/ --key image-key

  # Against the constraints of a repository
  kubectl oke-sign check -f deploy/ --constraints policy/ --live

  # The objects that a chart renders
  helm template web | kubectl oke-sign check -f - --constraints policy/ \
    --verdicts verdicts.yaml

  # For a code hosting service, which shows findings beside the lines:
  # sarif for GitHub, codequality for GitLab; junit for CI servers
  kubectl oke-sign check -f deploy/ --key image-key -o sarif > check.sarif`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(cli.NotEmpty(cmd, "key"), o.complete()); err != nil {
				return err
			}
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	o.input.bind(flags)
	flags.StringVar(&o.verdicts, "verdicts", "", "`FILE` with recorded verdicts.")
	flags.BoolVar(&o.live, "live", false, "Ask OCI for verdicts.")
	flags.StringVar(&o.provider, "provider", "", "`URL` of a running provider, such as https://localhost:8443.")
	flags.StringVar(&o.ca, "provider-ca", "", "`FILE` with the CA of the provider, in PEM.")
	flags.StringVar(&o.cert, "provider-cert", "", "`FILE` with the client certificate for the provider, in PEM.")
	flags.StringVar(&o.tlsKey, "provider-key", "", "`FILE` with the TLS key of --provider-cert, in PEM.")
	o.out.BindFormats(flags, checkFormats)
	return cmd
}

func (o *checkOptions) complete() (err error) {
	if o.provider != "" {
		o.address, err = url.Parse(o.provider)
	}
	if err != nil || o.address != nil && (o.address.Scheme != "https" || o.address.Host == "" || o.address.Path != "" && o.address.Path != "/") {
		return cli.Usage(fmt.Sprintf("--provider %q is not a URL", o.provider), "use https://HOST:PORT, without a path")
	}
	o.live = o.live || len(o.input.keys) > 0 && o.verdicts == "" && o.provider == ""
	return nil
}

func (o *checkOptions) validate(args []string) error {
	ways := 0
	for _, given := range []bool{o.live, o.verdicts != "", o.provider != ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways > 1:
		return cli.Usage("--live, --verdicts and --provider exclude each other", "use one of them")
	case o.provider != "" && o.ca == "":
		return cli.Usage("--provider-ca is missing", "name the file with the caBundle of the Provider object")
	case o.provider == "" && o.ca+o.cert+o.tlsKey != "":
		return cli.Usage("--provider-ca, --provider-cert and --provider-key need --provider", "add --provider URL, or omit them")
	case (o.cert == "") != (o.tlsKey == ""):
		return cli.Usage("--provider-cert and --provider-key belong together", "use both, or neither")
	}
	if err := o.input.validate(args); err != nil {
		return err
	}
	return cmp.Or(o.out.ValidateFormats(checkFormats), o.ValidateFlags())
}

// checkFormats are the values of -o: those of every command, and the formats of CI
// servers.
var checkFormats = cli.FormatsAnd("sarif", "junit", "codequality")

var checkColumns = []cli.Column{{Name: "object"}, {Name: "result"}, {Name: "file"}, {Name: "constraint"}, {Name: "message"}}

func (o *checkOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	p, err := o.input.read(ctx, o.Session)
	var results []cli.Result
	if err == nil {
		results, err = o.judge(ctx, p)
	}
	var wrong *cli.UsageError
	if errors.As(err, &wrong) {
		return err
	}
	if err != nil {
		results = cli.AllFailed([]string{""}, cli.StopCause(ctx, err))
	}
	switch o.out.Format {
	case "sarif":
		return o.finishSARIF(results)
	case "junit":
		return o.finishJUnit(results)
	case "codequality":
		return o.finishCodeQuality(results)
	}
	return o.Finish(o.out, checkColumns, results)
}

// judge makes an engine that gets its answers from the source that the user chose,
// and judges every manifest with it.
func (o *checkOptions) judge(ctx context.Context, p workload.Input) ([]cli.Result, error) {
	cfg := gatekeeper.Config{}
	switch {
	case o.live:
		questions, err := simulate.Questions(ctx, p)
		if err != nil {
			return nil, err
		}
		answers, err := simulate.OCI(o.Session)(ctx, questions)
		if err != nil {
			return nil, err
		}
		cfg.Ask = simulate.FromAnswers(answers)
	case o.verdicts != "":
		record, err := simulate.ReadRecord(o.Streams.In, o.verdicts)
		if err != nil {
			return nil, err
		}
		cfg.Ask = func(context.Context, string, []string) (map[string]any, error) {
			return record, errors.New("no recorded verdict for this question")
		}
	case o.provider != "":
		// The watch on the certificate logs. Without a logger it would complain.
		log.SetLogger(logr.Discard())
		cfg.Certificate, cfg.Key = o.cert, o.tlsKey
	default:
		cfg.Ask = func(context.Context, string, []string) (map[string]any, error) { return nil, simulate.ErrNotAsked }
	}
	e, err := gatekeeper.New(cfg)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	if o.provider != "" {
		if err := o.addProviders(e, p); err != nil {
			return nil, err
		}
	}
	if err := simulate.Load(ctx, p, e); err != nil {
		return nil, err
	}
	names := make([]string, len(p.Manifests))
	for i, m := range p.Manifests {
		names[i] = m.Name()
	}
	done := o.Progress("judged %d of %d objects", len(names))
	results := cli.ForEach(ctx, names, func(ctx context.Context, i int) cli.Result {
		defer done()
		return o.show(ctx, e, p, p.Manifests[i])
	})
	o.summarize(results)
	return results, nil
}

// addProviders adds the providers that the constraints name. Each gets the path for
// its kind of question.
func (o *checkOptions) addProviders(e *gatekeeper.Engine, p workload.Input) error {
	ca, err := cli.ReadFile(o.Streams.In, o.ca)
	if err != nil {
		return err
	}
	paths := make(map[string]string)
	for _, c := range p.Constraints {
		var name, path string
		switch c.Object.GetKind() {
		case policies.SignedImages:
			name, path = "oke-sign", "/v1/signatures"
		case policies.ScannedImages:
			name, path = "oke-sign-scans", "/v1/scans"
		default:
			continue
		}
		given, _, err := unstructured.NestedString(c.Object.Object, "spec", "parameters", "provider")
		if err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
		name = cmp.Or(given, name)
		if paths[name] != "" && paths[name] != path {
			return fmt.Errorf("%s: constraints name provider %s for signatures and for scans", c.File, name)
		}
		paths[name] = path
	}
	for name, path := range paths {
		at := *o.address
		at.Path = path
		if err := e.AddProvider(gatekeeper.Provider{Name: name, URL: at.String(), CABundle: ca, Timeout: 30 * time.Second}); err != nil {
			return err
		}
	}
	return nil
}

func (o *checkOptions) show(ctx context.Context, e *gatekeeper.Engine, p workload.Input, m workload.Document) cli.Result {
	v := simulate.ObjectResult{
		File: m.File, Line: m.Lines.Object, Lines: m.Lines, Result: "allowed", Violations: []workload.Violation{},
		Object: workload.ObjectName{APIVersion: m.Object.GetAPIVersion(), Kind: m.Object.GetKind(), Namespace: m.Object.GetNamespace(), Name: m.Object.GetName()},
	}
	r := cli.Result{Target: m.Name()}
	d, err := simulate.Review(ctx, p, e, m.Object)
	if path := manifest.Overlooked(m.Object); err == nil && path != "" {
		err = &cli.HintedError{
			What: fmt.Errorf("check does not read containers at %s, and so cannot judge their Pods", path),
			Hint: "the cluster judges these Pods when it creates them; to check the other objects, omit this one from -f",
		}
	}
	switch {
	case err != nil:
		v.Result, v.Error = "unknown", cli.Clip(cli.StopCause(ctx, err).Error(), 1000)
		r.PartialErr = cli.StopCause(ctx, err)
	case d.Constraints == 0 && simulate.HoldsImages(m.Object):
		v.Result = "unmatched"
		r.Notes = []string{"no constraint matches " + m.Name()}
	case d.Constraints == 0:
		r.Value = v // no constraint matches it, and it can hide no image: no row
		return r
	}
	v.Add("deny", d.Denied)
	v.Add("warn", d.Warnings)
	v.Add("dryrun", d.DryRun)
	for _, x := range v.Violations {
		switch {
		case x.Action == "deny" && x.Reason == simulate.NoAnswer:
			v.Result, r.PartialErr = "unknown", cmp.Or(r.PartialErr, errors.New(x.Message))
		case x.Action == "deny":
			r.Denied = true
			if v.Result != "unknown" {
				v.Result = "denied"
			}
		case v.Result == "allowed" && x.Action == "warn":
			v.Result = "warned"
		}
	}
	if v.Result == "allowed" || v.Result == "warned" {
		r.Names = []string{m.Name()}
	}
	for _, p := range problems(v.Violations) {
		r.Rows = append(r.Rows, []string{m.Name(), p.result(), m.At(p.Line), p.by(o.out.Format == "wide"), p.Message})
	}
	if len(r.Rows) == 0 {
		r.Rows = [][]string{{m.Name(), v.Result, m.At(v.Line), "", v.Error}}
	}
	r.Value = v
	return r
}

func (o *checkOptions) summarize(results []cli.Result) {
	tally := make(map[string]int)
	for _, r := range results {
		if v, ok := r.Value.(simulate.ObjectResult); ok {
			tally[v.Result]++
		} else {
			tally["unknown"]++
		}
	}
	var parts []string
	for _, word := range []string{"allowed", "warned", "denied", "unknown", "unmatched"} {
		if tally[word] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", tally[word], word))
		}
	}
	o.Remark("%s: %s", cli.Count(len(results), "object"), strings.Join(parts, ", "))
}
