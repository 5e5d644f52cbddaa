package scan

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

type scanResultsOptions struct {
	*connect.Session
	targets workload.TargetFlags
	failOn  string
	ignore  []string
	unknown string
	all     bool
	out     cli.Output
}

func newScanResults(s *connect.Session) *cobra.Command {
	o := &scanResultsOptions{Session: s, out: cli.Output{Nothing: "no problems"}}
	cmd := &cobra.Command{
		Use:   "results (IMAGE|TYPE/NAME|-f FILE|-A)...",
		Short: "Show what scans found in images",
		Long: `Show what the newest scan of each image found. Name the images, the objects that
use them, or manifests; -A or -l alone is all Pods. The worst problems come
first, the newest of them first, with a link, their packages, and the versions
that fix them.

Results of scans name a tag, and tags move. The command shows a result only if
the tag pointed to this image when its scan began, and has since. Otherwise it
says why nothing is known. It looks up the digest of a tag first; of a running
Pod, it takes the digest that the node reports.

Exit code 0: done. With --fail-on, 3: an image has such a problem, or nothing is
known about it. 1: the command failed. -o name prints the images that pass.`,
		Example: `  kubectl oke-sign scan results ` + cli.ExampleTag + `

  # All running images of the cluster
  kubectl oke-sign scan results -A --fail-on CRITICAL --unknown Allow

  # In a pipeline, with the security tab of a code hosting service
  kubectl oke-sign scan results -f deploy/ --fail-on HIGH -o sarif > scan.sarif`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.complete()
			args = o.everything(args)
			if err := cmp.Or(cli.NotEmpty(cmd, "fail-on"), o.validate(args)); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	flags := cmd.Flags()
	o.targets.Bind(flags, s.Kube)
	flags.StringVar(&o.failOn, "fail-on", "", "Least `SEVERITY` of problems that fail the command: LOW, MEDIUM, HIGH or CRITICAL.")
	flags.StringSliceVar(&o.ignore, "ignore", nil, "`ID`s of problems that do not fail the command. May be repeated.")
	flags.StringVar(&o.unknown, "unknown", enforcement.DenyUnknown, "Whether an image fails if nothing is known about it, a `WORD`: Deny or Allow.")
	flags.BoolVar(&o.all, "all", false, "Show problems that are fixed, do not apply or have no severity too.")
	o.out.BindFormats(flags, cli.FormatsAnd("sarif"))
	return cmd
}

func (o *scanResultsOptions) complete() {
	o.failOn = strings.ToUpper(o.failOn)
	for _, word := range []string{enforcement.DenyUnknown, enforcement.AllowUnknown} {
		if strings.EqualFold(o.unknown, word) {
			o.unknown = word
		}
	}
}

// everything returns the arguments, or all Pods if only -A or -l select objects.
func (o *scanResultsOptions) everything(args []string) []string {
	if o.targets.Choose() && len(args) == 0 && len(o.targets.Files) == 0 && o.targets.Kustomize == "" {
		return []string{"pods"}
	}
	return args
}

func (o *scanResultsOptions) validate(args []string) error {
	if err := o.targets.Validate(args, "kubectl oke-sign scan results "+cli.ExampleTag); err != nil {
		return err
	}
	for _, s := range args {
		if workload.IsObject(s) || o.targets.IsType(s) {
			continue
		}
		ref, err := image.Parse(s)
		if err != nil {
			return cli.Usage(fmt.Sprintf("%q: %v", s, err), "write it as <region>.ocir.io/<namespace>/<repository>:<tag> or @sha256:<digest>")
		}
		if ref.Tag() == "" && ref.Digest() == "" {
			return cli.Usage(fmt.Sprintf("%q names neither a tag nor a digest", s), "add a tag, such as :latest, or a digest")
		}
	}
	switch {
	case o.failOn != "" && !slices.Contains(vulnreport.Severities(), vulnreport.Severity(o.failOn)):
		return cli.Usage(fmt.Sprintf("--fail-on %q is no severity", o.failOn), "use LOW, MEDIUM, HIGH or CRITICAL")
	case o.unknown != enforcement.DenyUnknown && o.unknown != enforcement.AllowUnknown:
		return cli.Usage(fmt.Sprintf("--unknown %q is not known", o.unknown), "use --unknown Deny or Allow")
	case len(o.ignore) > 0 && o.failOn == "":
		return cli.Usage("--ignore needs --fail-on", "add --fail-on HIGH, or omit --ignore")
	case o.unknown == enforcement.AllowUnknown && o.failOn == "":
		return cli.Usage("--unknown needs --fail-on", "add --fail-on HIGH, or omit --unknown")
	}
	return cmp.Or(o.out.ValidateFormats(cli.FormatsAnd("sarif")), o.ValidateFlags())
}

// scanSubject is an image whose scan is requested, with the objects that use it.
type scanSubject struct {
	image   string // as the user named it
	running string // its digest, if a node reports one for the tag
	users   []workload.Use
}

// subjects returns the targets. A target without a digest has one subject for each
// digest that nodes run for its tag, because the tag may have moved.
func subjects(targets []workload.Target) []scanSubject {
	var found []scanSubject
	for _, t := range targets {
		if len(t.Users) == 0 {
			found = append(found, scanSubject{image: t.Image})
		}
		at := make(map[string]int)
		for _, u := range t.Users {
			running := simulate.RunningDigests(u.Object)[t.Image]
			i, ok := at[running]
			if !ok {
				i = len(found)
				at[running] = i
				found = append(found, scanSubject{image: t.Image, running: running})
			}
			found[i].users = append(found[i].users, u)
		}
	}
	return found
}

// reference returns the reference to look up.
func (s scanSubject) reference() (image.Reference, error) {
	ref, err := image.Parse(cmp.Or(s.running, s.image))
	return ref.Effective(), err
}

// scannedImage is an image with the findings of its newest scan.
type scannedImage struct {
	Image     string                      `json:"image"`
	Reference string                      `json:"reference"` // the image by its digest
	Known     bool                        `json:"known"`
	Reason    string                      `json:"reason,omitempty"` // why nothing is known
	Detail    string                      `json:"detail,omitempty"`
	ScannedAt string                      `json:"scannedAt,omitempty"`
	Result    string                      `json:"result,omitempty"` // its OCID
	Counts    map[vulnreport.Severity]int `json:"counts,omitempty"`
	Problems  []listedProblem             `json:"problems"`
	UsedBy    []workload.ObjectName       `json:"usedBy,omitempty"`

	places []filePlace // the manifests that name it
}

type filePlace struct {
	file string
	line int
}

type listedProblem struct {
	ID            string          `json:"id"`
	Severity      string          `json:"severity"`
	State         string          `json:"state,omitempty"`
	Link          string          `json:"link,omitempty"`
	Description   string          `json:"description,omitempty"`
	FirstDetected string          `json:"firstDetected,omitempty"`
	Packages      []listedPackage `json:"packages,omitempty"`

	counts bool // the image has the problem
}

type listedPackage struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	FixedIn  string `json:"fixedIn,omitempty"`
	Type     string `json:"type,omitempty"`
	Location string `json:"location,omitempty"`
}

var scanColumns = []cli.Column{{Name: "severity"}, {Name: "problem"}, {Name: "package"}, {Name: "version"}, {Name: "fixed in"},
	{Name: "state", Wide: true}, {Name: "first seen", Wide: true}, {Name: "link"}, {Name: "description", Wide: true}}

func (o *scanResultsOptions) run(ctx context.Context, args []string) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	results := o.results(ctx, args)
	if len(results) > 1 {
		defer func() { o.Remark("%s", o.summary(results)) }()
	}
	if o.out.Format == "sarif" {
		return o.finishSARIF(results)
	}
	return o.Finish(o.out, scanColumns, results)
}

func (o *scanResultsOptions) results(ctx context.Context, args []string) []cli.Result {
	targets, err := o.targets.Find(ctx, o.Session, args)
	if err != nil {
		return cli.AllFailed([]string{""}, cli.StopCause(ctx, err))
	}
	all := subjects(targets)
	images := make([]string, len(all))
	for i, s := range all {
		images[i] = s.image
	}
	var c *connect.Cloud
	var scans *vulnreport.Checker
	if slices.ContainsFunc(all, func(s scanSubject) bool { _, err := s.reference(); return err == nil }) {
		if c, err = o.ConnectImages(ctx); err != nil {
			return cli.AllFailed(images, cli.StopCause(ctx, err))
		}
		scans = c.Scans()
	}
	done := o.Progress("asked about %d of %d images", len(all))
	return cli.ForEach(ctx, images, func(ctx context.Context, i int) cli.Result {
		defer done()
		v, err := o.look(ctx, c, scans, all[i])
		if err != nil {
			return cli.Result{Err: err}
		}
		return o.show(v)
	})
}

// look looks one image up.
func (o *scanResultsOptions) look(ctx context.Context, c *connect.Cloud, scans *vulnreport.Checker, s scanSubject) (scannedImage, error) {
	v := scannedImage{Image: s.image, Reference: cmp.Or(s.running, s.image), Problems: []listedProblem{}}
	for _, u := range s.users {
		if name := workload.NameOf(u.Object); !slices.Contains(v.UsedBy, name) {
			v.UsedBy = append(v.UsedBy, name)
		}
		at := filePlace{u.File, u.Lines.Image(u.Place, s.image)}
		if u.File != "" && !slices.Contains(v.places, at) {
			v.places = append(v.places, at)
		}
	}
	ref, err := s.reference()
	if err != nil {
		v.Reason, v.Detail = string(vulnreport.NotOCIRegistry), err.Error()
		return v, nil
	}
	if ref.Digest() == "" {
		if _, ref, err = c.Pinned(ctx, ref); err != nil {
			return scannedImage{}, err
		}
	}
	report, err := scans.Check(ctx, ref)
	if err != nil {
		return scannedImage{}, err
	}
	v.Reference, v.Known, v.Reason, v.Detail = ref.String(), report.Known, string(report.Reason), report.Detail
	v.ScannedAt, v.Result, v.Counts = report.ScannedAt, report.Result, report.Counts
	if !report.Known {
		return v, nil
	}
	findings, err := c.Scanning.Findings(ctx, ref.Region(), report.Result)
	v.Problems = o.listed(findings)
	return v, err
}

func (o *scanResultsOptions) show(v scannedImage) cli.Result {
	r := cli.Result{Value: v, Denied: o.failed(v)}
	if !r.Denied {
		r.Names = []string{v.Reference}
	}
	if !v.Known {
		r.Title = fmt.Sprintf("%s%s: not known: %s", v.Reference, v.users(), v.Detail)
		r.Rows = [][]string{{"unknown", v.Reason, "", "", "", "", "", "", v.Detail}}
		if o.out.Format == "name" { // which says nothing of it
			r.Notes = []string{cli.Brief(v.Reference) + ": " + v.Reason + ": " + v.Detail}
		}
		return r
	}
	r.Title = fmt.Sprintf("%s%s: scanned at %s: %s", v.Reference, v.users(), v.ScannedAt, simulate.SeverityCounts(v.Counts))
	// A cluster has thousands of images, and an image thousands of problems. Each is
	// stored only in the form that is printed.
	switch o.out.Format {
	case "json", "yaml", "sarif":
		return r
	case "table", "wide":
		r.Rows = v.rows(o.out.Format == "wide")
	}
	v.Problems = nil
	r.Value = v
	return r
}

// rows returns the problems, one line for each package.
func (v scannedImage) rows(described bool) [][]string {
	var rows [][]string
	for _, p := range v.Problems {
		packages, description := p.Packages, ""
		if len(packages) == 0 {
			packages = []listedPackage{{}}
		}
		if described {
			description = cli.Clip(p.Description, 200)
		}
		for _, pkg := range packages {
			rows = append(rows, []string{p.Severity, p.ID, cli.Clip(pkg.Name, 40), cli.Clip(pkg.Version, 30), cli.Clip(pkg.FixedIn, 30), p.State, p.FirstDetected, p.Link, description})
		}
	}
	return rows
}

// users returns the names of a few objects that use the image.
func (v scannedImage) users() string {
	const most = 2
	var names []string
	for _, u := range v.UsedBy[:min(len(v.UsedBy), most)] {
		names = append(names, u.Title())
	}
	if more := len(v.UsedBy) - most; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// summary summarises the results of many images.
func (o *scanResultsOptions) summary(results []cli.Result) string {
	tally := make(map[string]int)
	for _, r := range results {
		v, _ := r.Value.(scannedImage)
		switch {
		case r.Err != nil:
			tally["with an error"]++
		case !v.Known:
			tally["unknown"]++
		case r.Denied:
			tally["with problems of severity "+o.failOn+" or worse"]++
		case slices.Max(slices.Collect(maps.Values(v.Counts))) > 0:
			tally["with problems"]++
		default:
			tally["without problems"]++
		}
	}
	var parts []string
	for _, word := range slices.Backward(slices.Sorted(maps.Keys(tally))) {
		parts = append(parts, fmt.Sprintf("%d %s", tally[word], word))
	}
	return cli.Count(len(results), "image") + ": " + strings.Join(parts, ", ")
}

// listed returns the findings, the worst first, and equal ones by age.
func (o *scanResultsOptions) listed(findings []vulnscan.Finding) []listedProblem {
	findings = slices.Clone(findings)
	rank := func(f vulnscan.Finding) int {
		if f.Severity == "" {
			return len(vulnreport.Severities())
		}
		return slices.Index(vulnreport.Severities(), f.Severity)
	}
	slices.SortStableFunc(findings, func(a, b vulnscan.Finding) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.FirstDetected.Compare(a.FirstDetected), strings.Compare(b.ID, a.ID))
	})
	problems := []listedProblem{}
	for _, f := range findings {
		counts := f.Severity != "" && vulnreport.Open(f.State)
		if !counts && !o.all {
			continue
		}
		p := listedProblem{
			ID: f.ID, Severity: cmp.Or(string(f.Severity), "NONE"), State: f.State, Link: link(f), Description: f.Description,
			FirstDetected: cli.Timestamp(f.FirstDetected), counts: counts,
		}
		for _, pkg := range f.Packages {
			p.Packages = append(p.Packages, listedPackage{pkg.Name, pkg.Version, pkg.FixedIn, pkg.Type, pkg.Location})
		}
		problems = append(problems, p)
	}
	return problems
}

// link returns an address with more about a problem: OCI's, if it is one, or that of
// the national database if the problem has a number there.
func link(f vulnscan.Finding) string {
	if strings.HasPrefix(f.Reference, "https://") || strings.HasPrefix(f.Reference, "http://") {
		return f.Reference
	}
	if regexp.MustCompile(`^CVE-\d{4}-\d{4,}$`).MatchString(f.ID) {
		return "https://nvd.nist.gov/vuln/detail/" + f.ID
	}
	return ""
}

// failed reports whether an image has, or may have, a problem that --fail-on names.
func (o *scanResultsOptions) failed(v scannedImage) bool {
	if o.failOn == "" {
		return false
	}
	if !v.Known {
		return o.unknown != enforcement.AllowUnknown
	}
	return slices.ContainsFunc(v.Problems, func(p listedProblem) bool {
		return p.counts && vulnreport.Severity(p.Severity).AtLeast(vulnreport.Severity(o.failOn)) && !slices.Contains(o.ignore, p.ID)
	})
}
