package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

type checkOptions struct {
	*global
	manifests manifestFlags
	verdicts  string
	live      bool
	provider  string
	ca        string
	cert      string
	key       string
	out       output

	address *url.URL
}

func newCheck(g *global) *cobra.Command {
	o := &checkOptions{global: g}
	cmd := &cobra.Command{
		Use:   "check -f FILE|DIR|- [--constraints FILE|DIR]",
		Short: "Find out what a cluster would refuse, before it does",
		Long: `Judge manifests with Gatekeeper's own engine and the policies of oke-sign, as a
cluster with these constraints would. Of a workload, the Pods that come of it
are judged too, because that is what constraints mostly match. Containers where
no kind of workload that is known has them are not judged: that is an error.

Verdicts on signatures and scans come from OCI, asked as you (--live), from a
record that kubectl oke-sign verdicts made (--verdicts), or from a provider
(--provider). Who asks is not known here: OKEBreakGlass judges all but that.

Exit code 0: everything would be admitted. 3: something would be refused. 1: it
could not be found out. With -o name, what would be admitted is printed, and
nothing else.`,
		Example: `  kubectl oke-sign check -f deploy/ --constraints policy/ --live

  # What a chart renders
  helm template web | kubectl oke-sign check -f - --constraints policy/ \
    --verdicts verdicts.yaml

  # For a code hosting service, which shows it beside the lines
  kubectl oke-sign check -f deploy/ --constraints policy/ --live -o sarif > check.sarif`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	o.manifests.bind(flags)
	flags.StringVar(&o.verdicts, "verdicts", "", "`FILE` with recorded verdicts.")
	flags.BoolVar(&o.live, "live", false, "Ask OCI for verdicts.")
	flags.StringVar(&o.provider, "provider", "", "`URL` of a running provider to ask, such as https://localhost:8443.")
	flags.StringVar(&o.ca, "ca", "", "`FILE` with the CA of the provider, in PEM.")
	flags.StringVar(&o.cert, "cert", "", "`FILE` with the certificate to show to the provider, in PEM.")
	flags.StringVar(&o.key, "key", "", "`FILE` with the key of --cert, in PEM.")
	flags.StringVarP(&o.out.format, "output", "o", "table", "`FORMAT` of the output: "+strings.Join(formats, ", ")+", sarif.")
	return cmd
}

func (o *checkOptions) complete() (err error) {
	if o.provider != "" {
		o.address, err = url.Parse(o.provider)
	}
	if err != nil || o.address != nil && (o.address.Scheme != "https" || o.address.Host == "" || o.address.Path != "" && o.address.Path != "/") {
		return usage(fmt.Sprintf("--provider %q is no address", o.provider), "use https://HOST:PORT; policies know the paths")
	}
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
		return usage("--live, --verdicts and --provider exclude each other", "use one of them")
	case o.provider != "" && o.ca == "":
		return usage("--ca is missing", "name the file with the CA that the Provider object has as caBundle")
	case o.provider == "" && o.ca+o.cert+o.key != "":
		return usage("--ca, --cert and --key are for --provider", "add --provider URL, or leave them out")
	case (o.cert == "") != (o.key == ""):
		return usage("--cert and --key belong together", "use both, or neither")
	}
	if err := o.manifests.validate(args); err != nil {
		return err
	}
	if o.out.format != "sarif" {
		if err := o.out.validate(); err != nil {
			return usage(err.Error(), "use -o "+strings.Join(formats, ", -o ")+", -o sarif")
		}
	}
	return o.global.validate()
}

// checked is what would become of an object.
type checked struct {
	File       string      `json:"file"`
	Line       int         `json:"line"` // of the object's first field
	Object     objectName  `json:"object"`
	Result     string      `json:"result"` // allowed, warned, refused, unknown, unmatched
	Violations []violation `json:"violations"`
	Error      string      `json:"error,omitempty"`

	lines manifest.Lines `json:"-"`
}

type objectName struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

type violation struct {
	Kind       string `json:"kind"` // of the constraint
	Constraint string `json:"constraint"`
	Action     string `json:"action"` // deny, warn, dryrun
	Reason     string `json:"reason,omitempty"`
	Message    string `json:"message"`
	Line       int    `json:"line,omitempty"` // of the image, or of the object, in a file
}

var checkColumns = []column{{name: "object"}, {name: "result"}, {name: "file"}, {name: "constraint", wide: true}, {name: "message"}}

func (o *checkOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	p, err := o.manifests.read(ctx, o.global)
	var results []result
	if err == nil {
		results, err = o.judge(ctx, p)
	}
	var wrong *usageError
	if errors.As(err, &wrong) {
		return err
	}
	if err != nil {
		results = allFailed([]string{""}, because(ctx, err))
	}
	if o.out.format == "sarif" {
		return o.finishSARIF(results)
	}
	return o.finish(o.out, checkColumns, results)
}

// judge makes an engine that answers in the way that was asked for, and judges
// every manifest with it.
func (o *checkOptions) judge(ctx context.Context, p policy) ([]result, error) {
	cfg := gatekeeper.Config{}
	switch {
	case o.live:
		questions, err := o.questions(ctx, p)
		if err != nil {
			return nil, err
		}
		answers, err := o.answer(ctx, questions)
		if err != nil {
			return nil, err
		}
		cfg.Ask = fromAnswers(answers)
	case o.verdicts != "":
		record, err := readRecord(o.streams.In, o.verdicts)
		if err != nil {
			return nil, err
		}
		cfg.Ask = func(context.Context, string, []string) (map[string]any, error) {
			return record, errors.New("no recorded verdict for this question")
		}
	case o.provider != "":
		// The watch on the certificate logs, and would complain of no logger.
		log.SetLogger(logr.Discard())
		cfg.Certificate, cfg.Key = o.cert, o.key
	default:
		cfg.Ask = func(context.Context, string, []string) (map[string]any, error) { return nil, errNotAsked }
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
	if err := p.load(ctx, e); err != nil {
		return nil, err
	}
	names := make([]string, len(p.manifests))
	for i, m := range p.manifests {
		names[i] = m.name()
	}
	done := o.progress("judged %d of %d objects", len(names))
	results := each(ctx, names, func(ctx context.Context, i int) result {
		defer done()
		return o.show(ctx, e, p, p.manifests[i])
	})
	o.summarize(results)
	return results, nil
}

// fromAnswers answers with what OCI said. What could not be found out is the
// system error, as the provider has it.
func fromAnswers(answers []answered) func(context.Context, string, []string) (map[string]any, error) {
	values, failed := make(map[string]any), make(map[string]error)
	for _, a := range answers {
		if a.err != nil {
			failed[a.question.key()] = a.err
		} else {
			values[a.question.key()] = a.value
		}
	}
	return func(_ context.Context, _ string, questions []string) (map[string]any, error) {
		var errs []error
		for _, q := range questions {
			errs = append(errs, failed[q])
		}
		return values, errors.Join(errs...)
	}
}

// addProviders adds those that the constraints name, each under the path that its
// kind of question has.
func (o *checkOptions) addProviders(e *gatekeeper.Engine, p policy) error {
	ca, err := readFile(o.streams.In, o.ca)
	if err != nil {
		return err
	}
	paths := make(map[string]string)
	for _, c := range p.constraints {
		var name, path string
		switch c.object.GetKind() {
		case policies.SignedImages:
			name, path = "oke-sign", "/v1/signatures"
		case policies.ScannedImages:
			name, path = "oke-sign-scans", "/v1/scans"
		default:
			continue
		}
		given, _, err := unstructured.NestedString(c.object.Object, "spec", "parameters", "provider")
		if err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		name = cmp.Or(given, name)
		if paths[name] != "" && paths[name] != path {
			return fmt.Errorf("%s: provider %s is named for signatures and for scans", c.file, name)
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

func (o *checkOptions) show(ctx context.Context, e *gatekeeper.Engine, p policy, m document) result {
	v := checked{
		File: m.file, Line: m.lines.Object, lines: m.lines, Result: "allowed", Violations: []violation{},
		Object: objectName{m.object.GetAPIVersion(), m.object.GetKind(), m.object.GetNamespace(), m.object.GetName()},
	}
	r := result{target: m.name()}
	d, err := p.review(ctx, e, m.object)
	if path := manifest.Overlooked(m.object); err == nil && path != "" {
		err = &refusal{
			fmt.Errorf("containers stand at %s, where none are looked for: what Pods come of them cannot be judged here", path),
			"the cluster judges its Pods when they are made; to check the rest, leave it out of -f",
		}
	}
	switch {
	case err != nil:
		v.Result, v.Error = "unknown", clip(because(ctx, err).Error(), 1000)
		r.part = because(ctx, err)
	case d.Constraints == 0 && holdsImages(m.object):
		v.Result = "unmatched"
		r.notes = []string{m.name() + " is matched by no constraint"}
	case d.Constraints == 0:
		r.value = v // of no concern, and not worth a row
		return r
	}
	v.add("deny", d.Denied)
	v.add("warn", d.Warnings)
	v.add("dryrun", d.DryRun)
	for _, x := range v.Violations {
		switch {
		case x.Action == "deny" && x.Reason == "no-answer":
			v.Result, r.part = "unknown", cmp.Or(r.part, errors.New(x.Message))
		case x.Action == "deny":
			r.no = true
			if v.Result != "unknown" {
				v.Result = "refused"
			}
		case v.Result == "allowed" && x.Action == "warn":
			v.Result = "warned"
		}
	}
	if v.Result == "allowed" || v.Result == "warned" {
		r.names = []string{m.name()}
	}
	for _, x := range v.Violations {
		r.rows = append(r.rows, []string{m.name(), v.Result, m.at(x.Line), x.Kind + "/" + x.Constraint, x.Action + ": " + x.Message})
	}
	if len(r.rows) == 0 {
		r.rows = [][]string{{m.name(), v.Result, m.at(v.Line), "", v.Error}}
	}
	r.value = v
	return r
}

// add adds violations. What a workload and its Pod are both told is said once.
func (c *checked) add(action string, violations []gatekeeper.Violation) {
	for _, v := range violations {
		place, _ := v.Details["place"].(string)
		image, _ := v.Details["subject"].(string)
		x := violated(action, v)
		x.Line = c.lines.Image(place, image)
		if !slices.Contains(c.Violations, x) {
			c.Violations = append(c.Violations, x)
		}
	}
}

func (o *checkOptions) summarize(results []result) {
	tally := make(map[string]int)
	for _, r := range results {
		if v, ok := r.value.(checked); ok {
			tally[v.Result]++
		} else {
			tally["unknown"]++
		}
	}
	var parts []string
	for _, word := range []string{"allowed", "warned", "refused", "unknown", "unmatched"} {
		if tally[word] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", tally[word], word))
		}
	}
	o.remark("%s: %s", count(len(results), "object"), strings.Join(parts, ", "))
}
