package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/meaning"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

type explainOptions struct {
	*connect.Session
	watch bool
	out   cli.Output
}

// NewExplain makes the command.
func NewExplain(s *connect.Session) *cobra.Command {
	o := &explainOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "explain (TYPE/NAME|IMAGE)...",
		Short: "Explain step by step why an image or a workload may run, or not",
		Long: `Explain step by step what the cluster would do now with a workload, a Pod or an
image: whether Gatekeeper is asked and answers, which constraints match and what
each of them says, which signatures each image has and whether they count, what
its newest scan found if a constraint requires scans, and what to do. The last
denial is from the events of the objects that make the workload's Pods.

explain simulates a workload with the Pods that it creates, and an image as the
only one of a Pod in the namespace. It asks OCI as you. The provider in the
cluster may be allowed to read less: kubectl oke-sign doctor checks that. It
needs the rights to get Providers and to list EndpointSlices of the namespaces
of Gatekeeper and the provider.

Exit codes:

  0  the image policy admits it, and the cluster can say so now
  3  it is denied, also because the provider or Gatekeeper does not answer; or
     it is admitted without a check: not-asked, unmatched or unchecked
  1  unknown: OCI or the cluster did not answer, or the provider gave Gatekeeper
     no answer in the last five minutes`,
		Example: `  kubectl oke-sign explain deployment/web -n shop

  # Before it is deployed
  kubectl oke-sign explain ` + cli.ExampleTag + ` -n shop`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cli.Usage("no object or image is named", "name a workload, a Pod or an image: kubectl oke-sign explain deployment/web")
			}
			if err := cmp.Or(o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			if o.watch {
				return cli.Watch(cmd.Context(), &o.Terminal, func(ctx context.Context) error { return o.run(ctx, args) })
			}
			return o.run(cmd.Context(), args)
		},
	}
	cli.BindWatch(cmd.Flags(), &o.watch)
	o.out.Bind(cmd.Flags())
	return cmd
}

// explanation is the simulated admission of an object, with all that led to it.
type explanation struct {
	Target      string                `json:"target"`
	Result      string                `json:"result"`
	NotAsked    string                `json:"notAsked,omitempty"` // why Gatekeeper is not asked
	Problems    []string              `json:"problems,omitempty"` // of the cluster, which decide whatever OCI says
	LastDenial  *workload.Denial      `json:"lastDenial,omitempty"`
	Constraints []explainedConstraint `json:"constraints"`
	Images      []explainedImage      `json:"images"`
	ToDo        []string              `json:"toDo,omitempty"`
}

type explainedConstraint struct {
	Kind       string               `json:"kind"`
	Name       string               `json:"name"`
	Answer     string               `json:"answer"` // passes, denies, warns, counts, unknown, unmatched
	Violations []workload.Violation `json:"violations,omitempty"`
}

type explainedImage struct {
	Place      string              `json:"place"`
	Image      string              `json:"image"`
	Registry   string              `json:"registry"`
	Pinned     bool                `json:"pinned"`
	Ambiguity  string              `json:"ambiguity,omitempty"` // in which two ways readers could understand the reference
	Verdicts   []explainedAnswer   `json:"verdicts,omitempty"`
	Signatures []keyring.Signature `json:"signatures,omitempty"`
	Scan       *explainedScan      `json:"scan,omitempty"` // if a constraint requires scans
}

// allowed returns the allowed keys of the image, of all constraints.
func (i explainedImage) allowed() []string {
	var keys []string
	for _, a := range i.Verdicts {
		keys = append(keys, a.Keys...)
	}
	return keys
}

// explainedAnswer is OCI's answer to one question of a constraint.
type explainedAnswer struct {
	Keys    []string         `json:"keys"`
	Names   []string         `json:"keyNames,omitempty"` // of the keys; "" if unknown
	Verdict *verdict.Verdict `json:"verdict,omitempty"`
	Error   string           `json:"error,omitempty"`
}

// explainedScan is what is known about an image's scan.
type explainedScan struct {
	Report *vulnreport.Report `json:"report,omitempty"`
	Error  string             `json:"error,omitempty"`
}

var explainColumns = []cli.Column{{Name: "step"}, {Name: "answer"}, {Name: "why"}}

func (o *explainOptions) run(ctx context.Context, args []string) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	e, err := enforcement.Read(ctx, o.Session)
	var subjects []workload.Document
	if err == nil {
		subjects, err = o.subjects(ctx, args, e)
	}
	if err != nil {
		return o.Finish(o.out, explainColumns, cli.AllFailed([]string{strings.Join(args, " ")}, cli.StopCause(ctx, err)))
	}
	e.Live = enforcement.ReadLive(ctx, o.Session, e)
	p := e.Input
	p.Manifests = subjects
	questions, err := simulate.Questions(ctx, p)
	if err != nil {
		return o.Finish(o.out, explainColumns, cli.AllFailed([]string{strings.Join(args, " ")}, cli.StopCause(ctx, err)))
	}
	answers, failed := simulate.OCI(o.Session)(ctx, questions)
	w := &explainer{explainOptions: o, e: e, answers: answers, ask: simulate.FromAnswers(answers)}
	if failed != nil {
		w.ask = func(context.Context, string, []string) (map[string]any, error) { return nil, failed }
	} else if len(questions) > 0 {
		// The questions above connected the same way, so this succeeds.
		if w.cloud, failed = o.ConnectImages(ctx); failed == nil {
			w.examiner = keyring.NewRecordVerifier(w.cloud, sync.OnceValue(func() *keyring.Inventory { return keyring.NewInventory(ctx, o.Session, w.cloud) }), w.allowed()...)
		}
	}
	w.ask = simulate.AskNow(e.Live, w.ask)
	results := make([]cli.Result, len(subjects))
	for i, s := range subjects {
		results[i] = w.explain(ctx, s)
		if !results[i].Denied { // a denial is known, whatever OCI would have said
			results[i].PartialErr = cmp.Or(cli.StopCause(ctx, failed), results[i].PartialErr)
		}
	}
	return o.Finish(o.out, explainColumns, results)
}

// subjects returns the objects that arguments name, and a Pod for each image.
func (o *explainOptions) subjects(ctx context.Context, args []string, e enforcement.State) ([]workload.Document, error) {
	namespace, err := o.Kube.CurrentNamespace()
	if err != nil {
		return nil, err
	}
	var subjects []workload.Document
	var named []string
	for _, arg := range args {
		if workload.IsObject(arg) {
			named = append(named, arg)
			continue
		}
		if workload.IsWord(arg) && o.Kube.Knows(arg) { // as an image reference it could be allowed
			return nil, &cli.HintedError{What: fmt.Errorf("%s is a type of objects, and no object is named", arg),
				Hint: fmt.Sprintf("name one, such as %s/NAME; kubectl oke-sign status shows all Pods that run", arg)}
		}
		if err := existing(e, namespace); err != nil {
			return nil, err
		}
		pod := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": map[string]any{"name": "of-" + arg, "namespace": namespace},
			"spec":     map[string]any{"containers": []any{map[string]any{"name": "image", "image": arg}}},
		}}
		subjects = append(subjects, workload.Document{File: arg, Object: pod})
	}
	if len(named) == 0 {
		return subjects, nil
	}
	found, err := (&workload.TargetFlags{}).Running(ctx, o.Session, named)
	return append(subjects, found...), err
}

// existing returns an error for a namespace that does not exist.
func existing(e enforcement.State, namespace string) error {
	if e.Unlisted != nil || e.Namespaces[namespace] != nil {
		return nil
	}
	return &cli.HintedError{What: fmt.Errorf("the cluster has no namespace %q", namespace), Hint: "name another with -n: kubectl get namespaces"}
}

// explainer has the answers to all questions, and explains with them.
type explainer struct {
	*explainOptions
	e        enforcement.State
	answers  []simulate.Answer
	ask      func(context.Context, string, []string) (map[string]any, error)
	cloud    *connect.Cloud
	examiner *keyring.RecordVerifier
}

func (w *explainer) explain(ctx context.Context, of workload.Document) cli.Result {
	title := of.Name()
	if of.File != "" {
		title = of.File
	}
	x := explanation{Target: title, NotAsked: w.e.WhyNotAsked(of.Object.GetNamespace()), Constraints: []explainedConstraint{}, Images: []explainedImage{}}
	r := cli.Result{Target: title}
	images, err := manifest.Images(of.Object)
	if err != nil {
		return cli.Result{Target: title, Err: err}
	}
	for _, c := range w.e.Constraints {
		said, err := w.constraint(ctx, of, c)
		r.PartialErr = cmp.Or(r.PartialErr, err)
		x.Constraints = append(x.Constraints, said)
	}
	if of.File == "" && x.NotAsked == "" {
		x.LastDenial, err = workload.LastDenial(ctx, w.Session, of.Object)
		if err != nil {
			w.Remark("the last denial is unknown: %v", err)
		}
	}
	var unknown error
	x.Result, unknown = w.result(&x)
	if r.PartialErr = cmp.Or(r.PartialErr, unknown); x.Result != simulate.UnknownImage {
		r.PartialErr = nil
	}
	seen := make(map[string]bool)
	for _, i := range images {
		if !seen[i.Ref] {
			seen[i.Ref] = true
			x.Images = append(x.Images, w.image(ctx, i))
		}
	}
	x.ToDo = w.remediation(x)
	// Without a check, the answer to whether the image policy admits it is no, too.
	r.Denied = slices.Contains([]string{simulate.DeniedImage, simulate.OutsideImage, simulate.UnmatchedImage, simulate.UncheckedImage}, x.Result)
	r.Value, r.Title, r.Rows = x, title+": "+x.Result, w.rows(x)
	if !r.Denied && r.PartialErr == nil {
		r.Names = []string{title}
	}
	return r
}

// result returns the result of an explanation, and why it is unknown. It adds the problems
// of the cluster.
func (w *explainer) result(x *explanation) (string, error) {
	live := w.e.Live
	if x.NotAsked != "" {
		return simulate.OutsideImage, nil
	}
	if live.Loose != "" && live.Unchecked == "" {
		x.Problems = append(x.Problems, live.Loose)
	}
	switch {
	case live.Gatekeeper.Err != nil:
		return simulate.UnknownImage, cli.SharedError(live.Gatekeeper.Err)
	case live.Unchecked != "":
		x.Problems = append(x.Problems, live.Unchecked+": the API server admits every object unchecked")
		return simulate.UncheckedImage, nil
	case live.Gatekeeper.Down != "":
		x.Problems = append(x.Problems, live.Gatekeeper.Down+", and failurePolicy is Fail, so the API server denies every Pod")
		return simulate.DeniedImage, nil
	}
	tally := make(map[string]int)
	for _, c := range x.Constraints {
		tally[c.Answer]++
	}
	switch last := x.LastDenial; {
	case tally["unknown"] > 0:
		return simulate.UnknownImage, w.noAnswer(x.Constraints)
	case tally["denies"] > 0:
		return simulate.DeniedImage, nil
	case tally["unmatched"] == len(x.Constraints):
		return simulate.UnmatchedImage, nil
	case last != nil && !last.Over && unanswered(last.Message) && time.Since(last.Time) < recent:
		return simulate.UnknownImage, &cli.HintedError{
			What: fmt.Errorf("the provider gave Gatekeeper no answer %s ago: %s", duration.HumanDuration(time.Since(last.Time)), cli.Clip(last.Message, 300)),
			Hint: "the cluster's problems: kubectl oke-sign doctor",
		}
	case tally["warns"]+tally["counts"] > 0:
		return simulate.WarnedImage, nil
	}
	return simulate.AllowedImage, nil
}

// unanswered reports whether a denial is for lack of an answer.
func unanswered(message string) bool {
	return strings.Contains(message, ": "+string(noAnswerCame)+": ") || strings.Contains(message, "failed calling webhook")
}

// recent is how old a denial without an answer may be to count against a yes.
const recent = 5 * time.Minute

// noAnswer returns why a constraint has no answer.
func (w *explainer) noAnswer(constraints []explainedConstraint) error {
	for i, c := range constraints {
		if err := w.e.Live.Answers(w.e.Constraints[i].Object).Err; err != nil && c.Answer == "unknown" {
			return cli.SharedError(err)
		}
		for _, v := range c.Violations {
			if c.Answer == "unknown" && v.Reason == string(noAnswerCame) {
				return errors.New(v.Message)
			}
		}
	}
	return nil
}

// constraint simulates one constraint alone. It is unknown with an error.
func (w *explainer) constraint(ctx context.Context, of, c workload.Document) (explainedConstraint, error) {
	said := explainedConstraint{Kind: c.Object.GetKind(), Name: c.Object.GetName(), Answer: "unknown"}
	engine, err := gatekeeper.New(gatekeeper.Config{Ask: w.ask})
	if err != nil {
		return said, err
	}
	defer engine.Close()
	alone := workload.Input{Constraints: []workload.Document{c}, Namespaces: w.e.Namespaces}
	if err := simulate.Load(ctx, alone, engine); err != nil {
		return said, err
	}
	d, err := simulate.Review(ctx, alone, engine, of.Object)
	if err != nil {
		return said, err
	}
	var all simulate.ObjectResult
	all.Add("deny", d.Denied)
	all.Add("warn", d.Warnings)
	all.Add("dryrun", d.DryRun)
	said.Violations = all.Violations
	down := w.e.Live.Answers(c.Object).Down != "" // so that Gatekeeper has no answer either
	switch {
	case d.Constraints == 0:
		said.Answer = "unmatched"
	case !down && slices.ContainsFunc(all.Violations, func(v workload.Violation) bool { return v.Action == "deny" && v.Reason == string(noAnswerCame) }):
		said.Answer = "unknown"
	case len(d.Denied) > 0:
		said.Answer = "denies"
	case len(d.Warnings) > 0:
		said.Answer = "warns"
	case len(d.DryRun) > 0:
		said.Answer = "counts"
	default:
		said.Answer = "passes"
	}
	return said, nil
}

// image returns the answers to the questions about an image, and the signatures behind
// these answers.
func (w *explainer) image(ctx context.Context, i manifest.Image) explainedImage {
	x := explainedImage{Place: i.Place(), Image: i.Ref, Registry: image.Classify(i.Ref).String()}
	_, digest, _ := strings.Cut(i.Ref, "@")
	x.Pinned = image.ValidDigest(digest)
	for _, a := range w.answers {
		if a.Question.Image != i.Ref {
			continue
		}
		if a.Question.Keys == nil {
			x.Scan = explainScan(a)
			continue
		}
		said := explainedAnswer{Keys: a.Question.Keys, Names: w.names(ctx, a.Question.Keys)}
		if v, ok := a.Value.(verdict.Verdict); ok && a.Err == nil {
			said.Verdict = &v
		} else {
			said.Error = cli.Clip(fmt.Sprint(a.Err), 1000)
		}
		x.Verdicts = append(x.Verdicts, said)
	}
	ref, err := image.Parse(i.Ref)
	if errors.Is(err, image.ErrAmbiguous) {
		x.Ambiguity = strings.TrimPrefix(err.Error(), image.ErrAmbiguous.Error()+": ")
	}
	if err != nil || len(x.Verdicts) == 0 || w.examiner == nil {
		return x
	}
	records, _, err := w.cloud.Registry.Records(ctx, ref)
	if err != nil {
		return x // the verdict has the error
	}
	for _, rec := range records[:min(len(records), maxShownRecords)] {
		s, _ := keyring.SignatureOf(ctx, w.examiner, ref, rec) // s says what is unknown
		x.Signatures = append(x.Signatures, s)
	}
	return x
}

// names returns the names of keys in OCI Vault, "" for an unknown one.
func (w *explainer) names(ctx context.Context, keys []string) []string {
	if w.examiner == nil {
		return nil
	}
	names := make([]string, len(keys))
	group := cli.Limited()
	for i, key := range keys {
		group.Go(func() error {
			if id, err := signature.ParseKeyID(key); err == nil {
				found, _ := w.examiner.Keys.Get(ctx, id) // the verdict has the error
				names[i] = found.Name
			}
			return nil
		})
	}
	_ = group.Wait()
	return names
}

func explainScan(a simulate.Answer) *explainedScan {
	if r, ok := a.Value.(vulnreport.Report); ok && a.Err == nil {
		return &explainedScan{Report: &r}
	}
	return &explainedScan{Error: cli.Clip(fmt.Sprint(a.Err), 1000)}
}

// row returns the scan, its age and its worst problems, or why no scan is known.
func (s *explainedScan) row() []string {
	if s.Report == nil {
		return []string{"  scanned", "unknown", s.Error}
	}
	r := s.Report
	if !r.Known {
		return []string{"  scanned", "not known", string(r.Reason) + ": " + r.Detail}
	}
	age := ""
	if at, err := time.Parse(time.RFC3339, r.ScannedAt); err == nil {
		age = ", " + duration.HumanDuration(time.Since(at)) + " ago"
	}
	const most = 3
	var worst []string
	for _, p := range r.Problems[:min(len(r.Problems), most)] {
		worst = append(worst, p.ID)
	}
	if len(r.Problems) > most {
		worst = append(worst, "…")
	}
	return []string{"  scanned " + r.ScannedAt + age, simulate.SeverityCounts(r.Counts), strings.Join(worst, ", ")}
}

// maxShownRecords bounds the signature records of an image that explain verifies.
const maxShownRecords = 20

func (w *explainer) allowed() []signature.KeyID {
	keys, _ := keyring.ParseIDs(simulate.Keys(w.e)) // the schema denies other values
	return keys
}

func (w *explainer) rows(x explanation) [][]string {
	var rows [][]string
	add := func(step, answer, why string) { rows = append(rows, []string{step, answer, why}) }
	asked, why := w.asked(x)
	add("Gatekeeper is asked", asked, why)
	for _, name := range slices.Sorted(maps.Keys(w.e.Live.Providers)) {
		switch h := w.e.Live.Providers[name]; {
		case x.NotAsked != "":
		case h.Down != "":
			add("provider "+name+" answers", "no", h.Down)
		case h.Err != nil:
			add("provider "+name+" answers", "unknown", h.Err.Error())
		}
	}
	if last := x.LastDenial; last != nil {
		text := last.Message
		if w.out.Format != "wide" {
			text = cli.Brief(text)
		}
		add("last denial", duration.HumanDuration(time.Since(last.Time))+" ago", last.Object.Kind+"/"+last.Object.Name+": "+text)
	}
	for _, i := range x.Images {
		pinned := "by digest"
		if !i.Pinned {
			pinned = "without a digest"
		}
		if i.Ambiguity != "" {
			pinned = i.Ambiguity
		}
		add(i.Place, i.Registry, pinned+": "+cli.Brief(i.Image))
		for _, s := range i.Signatures {
			why := ""
			switch {
			case !slices.Contains(i.allowed(), s.Key):
				why = "no constraint allows the key"
			case s.Holds != "yes":
				why = s.Reason + ": " + s.Detail
			}
			holds := map[string]string{"yes": "holds", "no": "does not hold"}[s.Holds]
			add("  signed "+s.SignedAt+" by "+cli.Clip(cmp.Or(s.KeyName, signature.Short(s.Key)), 40), cmp.Or(holds, "unknown"), why)
		}
		for _, a := range i.Verdicts {
			var keys []string
			for n, k := range a.Keys {
				name := ""
				if n < len(a.Names) {
					name = a.Names[n]
				}
				keys = append(keys, cli.Clip(cmp.Or(name, signature.Short(k)), 40))
			}
			step := "  signed by " + strings.Join(keys, " or ")
			switch {
			case a.Error != "":
				add(step, "unknown", a.Error)
			case a.Verdict.Signed():
				add(step, "yes", "")
			default:
				add(step, "no", string(a.Verdict.Reason)+": "+a.Verdict.Detail)
			}
		}
		if i.Scan != nil {
			rows = append(rows, i.Scan.row())
		}
	}
	told := make(map[string]bool)
	for _, c := range x.Constraints {
		name, answer := c.Kind+"/"+c.Name, c.Answer
		if len(c.Violations) == 0 {
			add(name, answer, "")
		}
		for n, v := range c.Violations {
			if n > 0 {
				name, answer = "", ""
			}
			// Two constraints may report one fault in different words.
			why := v.Message
			if w.out.Format != "wide" {
				why = cli.Brief(why)
			}
			place, _, _ := strings.Cut(v.Message, ": ")
			if fault := place + ": " + v.Reason; told[fault] {
				why = fault + ", as above"
			} else {
				told[fault] = true
			}
			add(name, answer, why)
		}
	}
	for n, todo := range x.ToDo {
		step := "to do"
		if n > 0 {
			step = ""
		}
		add(step, fmt.Sprint(n+1), cli.ToCopy(todo))
	}
	return rows
}

// asked returns whether Gatekeeper is asked, and why not or with which problem.
func (w *explainer) asked(x explanation) (asked, why string) {
	live := w.e.Live
	switch {
	case x.NotAsked != "":
		return "no", x.NotAsked
	case live.Gatekeeper.Err != nil:
		return "unknown", live.Gatekeeper.Err.Error()
	case w.e.Webhook == nil:
		return "no", strings.Join(x.Problems, "; ")
	case live.Gatekeeper.Down != "":
		return "no answer", strings.Join(x.Problems, "; ")
	}
	return "yes", strings.Join(x.Problems, "; ")
}

// policyReason is a reason that the Rego finds itself. Verdicts and reports of scans have
// their reasons elsewhere.
type policyReason string

const (
	ambiguousImage     policyReason = "ambiguous"
	noAnswerCame       policyReason = simulate.NoAnswer
	noKeysListed       policyReason = "no-keys"
	breakGlassExpired  policyReason = "expired"
	breakGlassNoReason policyReason = "no-reason"
	breakGlassNoEnd    policyReason = "no-end"
	breakGlassBadEnd   policyReason = "bad-end"
	breakGlassTooLong  policyReason = "too-long"
	breakGlassNoEffect policyReason = "no-effect"
	tooManyImages      policyReason = "too-many-images"
	revokedImage       policyReason = "revoked"
	scanProblems       policyReason = "problems"
	scanTooOld         policyReason = "scan-too-old"
)

var policyRemedies = map[policyReason]string{
	ambiguousImage:     "write the image as <region key>.ocir.io/<namespace>/<repository>@sha256:<digest>",
	noAnswerCame:       "kubectl oke-sign doctor shows why the provider does not answer",
	noKeysListed:       "give the constraint keys; [] would admit every image of OCI Registry",
	breakGlassExpired:  "kubectl oke-sign break-glass TYPE/NAME --reason TEXT --for TIME starts a new time, and break-glass end ends it",
	breakGlassNoReason: "give the reason: kubectl oke-sign break-glass TYPE/NAME --reason TEXT --for TIME",
	breakGlassNoEnd:    "give it an end: kubectl oke-sign break-glass TYPE/NAME --reason TEXT --for TIME",
	breakGlassBadEnd:   "give it an end: kubectl oke-sign break-glass TYPE/NAME --reason TEXT --for TIME",
	breakGlassTooLong:  "give it an earlier end: kubectl oke-sign break-glass TYPE/NAME --reason TEXT --for TIME",
	breakGlassNoEffect: "kubectl oke-sign break-glass end TYPE/NAME removes the annotation",
	revokedImage:       "run another image: the policy revokes this one, and kubectl oke-sign policy get shows why",
	tooManyImages:      "split the object into several with fewer images",
	scanProblems:       "kubectl oke-sign scan results IMAGE shows them and the versions that fix them: build the image with those; or list the IDs in the constraint: ignore: [CVE-...]",
	scanTooOld:         "push the image again under its tag, which starts a new scan; kubectl oke-sign scan target list shows whether its repository is scanned",
}

// remedy returns what to do about a reason of a constraint. IMAGE stands for the image,
// KEY for an allowed key.
func remedy(kind, reason string) string {
	answered := meaning.Of(verdict.Reason(reason)).Remedy
	if kind == policies.ScannedImages {
		answered = vulnreport.Reason(reason).Meaning().Remedy
	}
	return cmp.Or(answered, policyRemedies[policyReason(reason)])
}

// exemption returns how to exempt an image of another registry. A name without a host
// cannot be exempt: each node decides which registry it means.
func exemption(ref string) string {
	name, _, _ := strings.Cut(ref, "@")
	if tag := strings.LastIndexByte(name, ':'); tag > strings.LastIndexByte(name, '/') {
		name = name[:tag]
	}
	if host, _, ok := strings.Cut(name, "/"); !ok || !strings.ContainsAny(host, ".:") {
		return "; to exempt it, write the reference with its registry"
	}
	return ", or exempt it: exemptImages: [" + name + "]"
}

func (w *explainer) remediation(x explanation) []string {
	var found []string
	if len(x.Problems) > 0 || w.e.Live.Gatekeeper.Err != nil {
		found = append(found, "kubectl oke-sign doctor shows what keeps Gatekeeper from answering")
	}
	if x.NotAsked != "" {
		return found
	}
	for _, c := range x.Constraints {
		for _, v := range c.Violations {
			ref, key := "IMAGE", "OCID"
			for _, i := range x.Images {
				if strings.HasSuffix(v.Message, ": "+i.Image) {
					ref = i.Image
					if keys := i.allowed(); len(keys) > 0 {
						key = keys[0]
					}
				}
			}
			todo := strings.NewReplacer("IMAGE", ref, "KEY", key).Replace(remedy(c.Kind, v.Reason))
			if v.Reason == string(verdict.NotOCIRegistry) {
				todo += exemption(ref)
			}
			if todo != "" && !slices.Contains(found, todo) {
				found = append(found, todo)
			}
		}
	}
	return found
}
