package cmd

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/scan"
	"github.com/oke-sign/oke-sign/provider/scanning"
)

type scanResultsOptions struct {
	*global
	failOn string
	ignore []string
	all    bool
	out    output

	images []string
	refs   []image.Reference
}

func newScanResults(g *global) *cobra.Command {
	o := &scanResultsOptions{global: g, out: output{nothing: "no problems"}}
	cmd := &cobra.Command{
		Use:   "results IMAGE...",
		Short: "See what scans have found in images",
		Long: `See what the newest scan of each image has found, the worst problems first and
of those the newest: where to read about them, the packages they are in, and the
versions that mend them.

Results of scans name a tag, and tags move. A result is shown only if its scan
began when the tag pointed to this very image, and the tag has done so ever
since; where there is none, it says why nothing is known. An image that is named
by tag is looked up first.

Exit code 0: done. With --fail-on, 3: an image has such a problem, or nothing is
known of it. 1: it could not be found out. With -o name, the images that pass are
printed.`,
		Example: `  kubectl oke-sign scan results ` + exampleTag + `

  # In a pipeline, and for the security tab of a code hosting service
  kubectl oke-sign scan results $IMAGES --fail-on HIGH -o sarif > scan.sarif`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.failOn, "fail-on", "", "`SEVERITY` of problems that fail the command, and worse ones: LOW, MEDIUM, HIGH or CRITICAL.")
	flags.StringSliceVar(&o.ignore, "ignore", nil, "`ID`s of problems that do not fail it. May be repeated.")
	flags.BoolVar(&o.all, "all", false, "Show what is fixed, does not apply or is of no consequence, too.")
	flags.StringVarP(&o.out.format, "output", "o", "table", "`FORMAT` of the output: "+strings.Join(formats, ", ")+", sarif.")
	return cmd
}

// complete takes the images to look at. What finds images in manifests and in the
// cluster belongs here.
func (o *scanResultsOptions) complete(args []string) error {
	for _, s := range args {
		ref, err := image.Parse(s)
		if err != nil {
			return usage(fmt.Sprintf("%q: %v", s, err), "write it as <region>.ocir.io/<namespace>/<repository>:<tag> or @sha256:<digest>")
		}
		if ref.Tag() == "" && ref.Digest() == "" {
			return usage(fmt.Sprintf("%q names neither a tag nor a digest", s), "add :latest, or the tag that is meant")
		}
		o.images, o.refs = append(o.images, s), append(o.refs, ref)
	}
	o.failOn = strings.ToUpper(o.failOn)
	return nil
}

func (o *scanResultsOptions) validate() error {
	switch {
	case len(o.refs) == 0:
		return usage("no image named", "for instance kubectl oke-sign scan results "+exampleTag)
	case o.failOn != "" && !slices.Contains(scan.Severities(), scan.Severity(o.failOn)):
		return usage(fmt.Sprintf("--fail-on %q is no severity", o.failOn), "use LOW, MEDIUM, HIGH or CRITICAL")
	case len(o.ignore) > 0 && o.failOn == "":
		return usage("--ignore is for --fail-on", "add --fail-on HIGH, or leave it out")
	}
	if o.out.format != "sarif" {
		if err := o.out.validate(); err != nil {
			return usage(err.Error(), "use -o "+strings.Join(formats, ", -o ")+", -o sarif")
		}
	}
	return o.global.validate()
}

// scannedImage is an image with what its newest scan found.
type scannedImage struct {
	Image     string                `json:"image"`
	Reference string                `json:"reference"` // the image by its digest
	Known     bool                  `json:"known"`
	Reason    string                `json:"reason,omitempty"` // why nothing is known
	Detail    string                `json:"detail,omitempty"`
	ScannedAt string                `json:"scannedAt,omitempty"`
	Result    string                `json:"result,omitempty"` // its OCID
	Counts    map[scan.Severity]int `json:"counts,omitempty"`
	Problems  []listedProblem       `json:"problems"`
}

type listedProblem struct {
	ID            string          `json:"id"`
	Severity      string          `json:"severity"`
	State         string          `json:"state,omitempty"`
	Link          string          `json:"link,omitempty"`
	Description   string          `json:"description,omitempty"`
	FirstDetected string          `json:"firstDetected,omitempty"`
	Packages      []listedPackage `json:"packages,omitempty"`

	counts bool // it is one that the image has
}

type listedPackage struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	FixedIn  string `json:"fixedIn,omitempty"`
	Type     string `json:"type,omitempty"`
	Location string `json:"location,omitempty"`
}

var scanColumns = []column{{name: "severity"}, {name: "problem"}, {name: "package"}, {name: "version"}, {name: "fixed in"},
	{name: "state", wide: true}, {name: "first seen", wide: true}, {name: "link"}, {name: "description", wide: true}}

func (o *scanResultsOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	c, err := o.connectImages(ctx)
	var results []result
	if err != nil {
		results = allFailed(o.images, because(ctx, err))
	} else {
		scans := c.scans()
		done := o.progress("asked about %d of %d images", len(o.images))
		results = each(ctx, o.images, func(ctx context.Context, i int) result {
			defer done()
			return o.look(ctx, c, scans, i)
		})
	}
	if o.out.format == "sarif" {
		return o.finishSARIF(results)
	}
	return o.finish(o.out, scanColumns, results)
}

func (o *scanResultsOptions) look(ctx context.Context, c *cloud, scans *scan.Checker, i int) result {
	ref := o.refs[i]
	if ref.Digest() == "" {
		var err error
		if _, ref, err = c.pinned(ctx, ref); err != nil {
			return result{err: err}
		}
	}
	report, err := scans.Check(ctx, ref)
	var findings []scanning.Finding
	if err == nil && report.Known {
		findings, err = c.scanning.Findings(ctx, ref.Region(), report.Result)
	}
	if err != nil {
		return result{err: err}
	}
	v := scannedImage{
		Image: o.images[i], Reference: ref.String(), Known: report.Known, Reason: string(report.Reason), Detail: report.Detail,
		ScannedAt: report.ScannedAt, Result: report.Result, Counts: report.Counts, Problems: o.listed(findings),
	}
	r := result{value: v, no: o.failed(v)}
	if !r.no {
		r.names = []string{v.Reference}
	}
	if !v.Known {
		r.title = v.Reference + ": not known"
		r.rows = [][]string{{"unknown", v.Reason, "", "", "", "", "", "", v.Detail}}
		r.notes = []string{brief(v.Reference) + ": " + v.Reason + ": " + v.Detail}
		return r
	}
	r.title = fmt.Sprintf("%s: scanned at %s: %s", v.Reference, v.ScannedAt, tally(v.Counts))
	for _, p := range v.Problems {
		packages := p.Packages
		if len(packages) == 0 {
			packages = []listedPackage{{}}
		}
		for _, pkg := range packages {
			r.rows = append(r.rows, []string{p.Severity, p.ID, clip(pkg.Name, 40), clip(pkg.Version, 30), clip(pkg.FixedIn, 30), p.State, p.FirstDetected, p.Link, clip(p.Description, 200)})
		}
	}
	return r
}

// listed are findings, the worst first and of those the newest.
func (o *scanResultsOptions) listed(findings []scanning.Finding) []listedProblem {
	findings = slices.Clone(findings)
	rank := func(f scanning.Finding) int {
		if f.Severity == "" {
			return len(scan.Severities())
		}
		return slices.Index(scan.Severities(), f.Severity)
	}
	slices.SortStableFunc(findings, func(a, b scanning.Finding) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), b.FirstDetected.Compare(a.FirstDetected), strings.Compare(b.ID, a.ID))
	})
	problems := []listedProblem{}
	for _, f := range findings {
		counts := f.Severity != "" && scan.Open(f.State)
		if !counts && !o.all {
			continue
		}
		p := listedProblem{
			ID: f.ID, Severity: cmp.Or(string(f.Severity), "NONE"), State: f.State, Link: link(f), Description: f.Description,
			FirstDetected: timestamp(f.FirstDetected), counts: counts,
		}
		for _, pkg := range f.Packages {
			p.Packages = append(p.Packages, listedPackage{pkg.Name, pkg.Version, pkg.FixedIn, pkg.Type, pkg.Location})
		}
		problems = append(problems, p)
	}
	return problems
}

// link is where to read about a problem: what OCI says, if that is an address, or
// the national database for what has a number there.
func link(f scanning.Finding) string {
	if strings.HasPrefix(f.Reference, "https://") || strings.HasPrefix(f.Reference, "http://") {
		return f.Reference
	}
	if regexp.MustCompile(`^CVE-\d{4}-\d{4,}$`).MatchString(f.ID) {
		return "https://nvd.nist.gov/vuln/detail/" + f.ID
	}
	return ""
}

// failed reports whether an image has what --fail-on asks about, or may have it.
func (o *scanResultsOptions) failed(v scannedImage) bool {
	if o.failOn == "" {
		return false
	}
	return !v.Known || slices.ContainsFunc(v.Problems, func(p listedProblem) bool {
		return p.counts && scan.Severity(p.Severity).AtLeast(scan.Severity(o.failOn)) && !slices.Contains(o.ignore, p.ID)
	})
}

// tally is how many problems there are of each severity.
func tally(counts map[scan.Severity]int) string {
	var parts []string
	for _, s := range scan.Severities() {
		if n := counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "nothing found")
}

// finishSARIF prints the problems, and makes of the results what finish does.
func (o *scanResultsOptions) finishSARIF(results []result) error {
	var rules []sarifRule
	var found []sarifResult
	known := make(map[string]bool)
	for _, r := range results {
		v, _ := r.value.(scannedImage)
		for _, p := range v.Problems {
			if !known[p.ID] {
				known[p.ID] = true
				rules = append(rules, sarifRule{ID: p.ID, HelpURI: p.Link, Properties: securitySeverity(p.Severity)})
			}
			text := p.Severity + ": " + cmp.Or(p.Description, p.ID)
			for _, pkg := range p.Packages {
				text += fmt.Sprintf("; %s %s, fixed in %s", pkg.Name, pkg.Version, cmp.Or(pkg.FixedIn, "no version"))
			}
			name, _, _ := strings.Cut(v.Reference, "@")
			found = append(found, sarifResult{
				RuleID:    p.ID,
				Level:     map[string]string{"CRITICAL": "error", "HIGH": "error", "MEDIUM": "warning"}[p.Severity],
				Message:   sarifText{clip(text, 1000)},
				Locations: []sarifLocation{{Physical: sarifPhysical{sarifArtifact{name}, sarifRegion{1}}, Logical: []sarifLogical{{v.Reference, "resource"}}}},
			})
			if last := &found[len(found)-1]; last.Level == "" {
				last.Level = "note"
			}
		}
	}
	return o.printSARIF("kubectl oke-sign scan results", rules, found, results)
}

// securitySeverity is a severity as a number, which code hosting services sort by.
func securitySeverity(severity string) *sarifProperties {
	return &sarifProperties{map[string]string{"CRITICAL": "9.5", "HIGH": "8.0", "MEDIUM": "5.5", "LOW": "2.0"}[severity]}
}
