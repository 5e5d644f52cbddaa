package policy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
)

type policyGetOptions struct {
	*connect.Session
	out cli.Output
}

func newGet(s *connect.Session) *cobra.Command {
	o := &policyGetOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Show the image policy, and whether it is enforced",
		Long: `Show the image policy, its constraints, and whether it is enforced: the keys
with their names and states in OCI Vault, and how many running objects violate
it, as Gatekeeper's last audit counted them. Constraints on scans, of kind
OKEScannedImages, are shown beside it.

Exit code 0: the policy exists. 3: no policy exists. 1: the answer is unknown.`,
		Example: `  kubectl oke-sign policy get

  # The policy alone, as policy edit shows it
  kubectl oke-sign policy get -o json | jq .policy`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(clusterWide(cmd), o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return cli.WithErrorDocument(&o.Terminal, &o.out, func() error { return o.run(cmd.Context()) })
		},
	}
	o.out.Bind(cmd.Flags())
	return cmd
}

// shownPolicy is the policy as policy get shows it.
type shownPolicy struct {
	Policy      *constraint.Policy `json:"policy"` // null: no policy exists
	Keys        []shownKey         `json:"keys"`
	Enforced    bool               `json:"enforced"`
	Problems    []string           `json:"problems"`   // why it is not enforced, or not fully
	Violations  *int64             `json:"violations"` // of running objects; null: not counted yet
	Constraints []shownConstraint  `json:"constraints"`
	Scans       []shownScans       `json:"scans"`  // constraints on scans
	Others      []shownConstraint  `json:"others"` // of the same kinds, not part of it
}

// shownScans is a constraint on scans, which is not part of the policy.
type shownScans struct {
	shownConstraint
	MaxSeverity string   `json:"maxSeverity"`
	MaxAge      string   `json:"maxAge"`
	Unknown     string   `json:"unknown"`
	Ignore      []string `json:"ignore,omitempty"`
}

func scansAs(o *unstructured.Unstructured) shownScans {
	text := func(field, otherwise string) string {
		value, _, _ := unstructured.NestedString(o.Object, "spec", "parameters", field)
		return cmp.Or(value, otherwise)
	}
	s := shownScans{shownConstraint: shownAs(o), MaxSeverity: text("maxSeverity", "HIGH"), MaxAge: text("maxAge", "720h"), Unknown: text("unknown", constraint.Refuse)}
	s.Ignore, _, _ = unstructured.NestedStringSlice(o.Object, "spec", "parameters", "ignore")
	return s
}

// String returns what happens to images under the constraint.
func (s shownScans) String() string {
	does := map[string]string{constraint.Warn: "warned of", constraint.DryRun: "counted"}[s.Action]
	text := fmt.Sprintf("%s with problems of severity %s or worse", cmp.Or(does, "denied"), s.MaxSeverity)
	if len(s.Ignore) > 0 {
		text += ", but for " + strings.Join(s.Ignore, ", ")
	}
	if s.Unknown == constraint.Refuse {
		text += ", or without a scan younger than " + s.MaxAge
	} else {
		text += "; admitted without a scan"
	}
	return fmt.Sprintf("%s: %s/%s", text, s.Kind, s.Name)
}

type shownKey struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"`
	State  string `json:"state,omitempty"` // empty: OCI could not be asked
	Usable *bool  `json:"usable,omitempty"`
	Reason string `json:"reason,omitempty"` // why it is not usable
}

type shownConstraint struct {
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	Role       string `json:"role,omitempty"`
	Action     string `json:"action"`
	Violations *int64 `json:"violations"`
}

func (o *policyGetOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	client, err := o.Kube.Objects()
	if err != nil {
		return err
	}
	p, err := ReadPolicy(ctx, o.Session)
	if err == nil {
		err = p.installed(ctx, client, policies.SignedImages)
	}
	if err != nil {
		return cli.StopCause(ctx, err)
	}
	s := shownPolicy{Policy: p.Policy, Keys: []shownKey{}, Constraints: []shownConstraint{}, Scans: []shownScans{}, Others: []shownConstraint{}}
	s.Problems = notEnforced(ctx, o.Session, p)
	s.Enforced = len(s.Problems) == 0
	if p.Policy != nil {
		s.Keys = o.describeKeys(ctx, p.Policy.Keys)
		for _, k := range s.Keys {
			if k.Usable != nil && !*k.Usable {
				s.Problems = append(s.Problems, fmt.Sprintf("key %s cannot be used: %s", cmp.Or(k.Name, k.ID), k.Reason))
			}
		}
	}
	for _, part := range p.Parts {
		c := shownAs(part.Object)
		c.Role = string(part.Role)
		s.Constraints = append(s.Constraints, c)
		// The Pods of workloads count, and not the workloads.
		if part.Role == constraint.Pods && c.Violations != nil {
			if s.Violations == nil {
				s.Violations = new(int64)
			}
			*s.Violations += *c.Violations
		}
	}
	for _, o := range p.scans() {
		s.Scans = append(s.Scans, scansAs(o))
	}
	for _, other := range slices.Concat(p.Guards, p.Others) {
		if other.GetKind() != policies.ScannedImages {
			s.Others = append(s.Others, shownAs(other))
		}
	}
	out := o.out
	if err := out.Print(o.Streams.Out, s.data(out.Format == "wide")); err != nil {
		return err
	}
	if err := p.plain(); err != nil {
		return err
	}
	if p.Policy == nil {
		_, err := p.existing()
		cli.Complain(o.Streams.ErrOut, err, "kubectl oke-sign policy set --key KEY makes one")
		return cli.ErrNo
	}
	return nil
}

func shownAs(o *unstructured.Unstructured) shownConstraint {
	c := shownConstraint{Kind: o.GetKind(), Name: o.GetName()}
	action, _, _ := unstructured.NestedString(o.Object, "spec", "enforcementAction")
	c.Action = cmp.Or(action, constraint.Deny)
	if n, ok, _ := unstructured.NestedInt64(o.Object, "status", "totalViolations"); ok {
		c.Violations = &n
	}
	return c
}

// describeKeys asks OCI about keys, and reports why it cannot.
func (o *policyGetOptions) describeKeys(ctx context.Context, ids []string) []shownKey {
	keys := make([]shownKey, len(ids))
	for i, id := range ids {
		keys[i].ID = id
	}
	if len(ids) == 0 {
		return keys
	}
	c, err := o.Connect(ctx)
	if err != nil {
		o.Remark("names and states of keys are unknown: %v", err)
		return keys
	}
	failed := make([]error, len(ids))
	group := cli.Limited()
	for i, ocid := range ids {
		group.Go(func() error {
			id, err := signature.ParseKeyID(ocid)
			if err == nil {
				var key vault.MasterKey
				if key, err = c.Vault.MasterKey(ctx, id); err == nil {
					keys[i] = shownFrom(key)
					return nil
				}
			}
			failed[i] = err
			return nil
		})
	}
	_ = group.Wait() // each key has its own error
	for i, err := range failed {
		if err != nil {
			o.Remark("key %s: %v", signature.Short(ids[i]), cli.StopCause(ctx, err))
		}
	}
	return keys
}

func shownFrom(key vault.MasterKey) shownKey {
	reason := keyring.WhyUseless(key.Key)
	if key.Missing {
		reason = "OCI Vault has no such key, or you may not read it"
	}
	usable := reason == ""
	return shownKey{ID: key.ID.String(), Name: key.Name, State: cmp.Or(key.State, "NOT_FOUND"), Usable: &usable, Reason: reason}
}

// enforced returns whether the policy is enforced: yes, NO or unknown.
func (s shownPolicy) enforced() string {
	known := func(problem string) bool { return !strings.HasPrefix(problem, "unknown: ") }
	switch {
	case s.Enforced:
		return "yes"
	case slices.ContainsFunc(s.Problems, known):
		return "NO"
	}
	return "unknown"
}

// data returns the policy as a table of settings.
func (s shownPolicy) data(wide bool) cli.Document {
	d := cli.Document{Value: s, Columns: []cli.Column{{Name: "setting"}, {Name: "value"}}}
	var rows [][]string
	row := func(name string, values ...string) {
		for i, v := range values {
			if i > 0 {
				name = ""
			}
			rows = append(rows, []string{name, v})
		}
	}
	if p := s.Policy; p != nil {
		row("mode", p.Mode)
		var keys []string
		for _, k := range s.Keys {
			id := signature.Short(k.ID)
			if wide || k.Name == "" {
				id = k.ID
			}
			keys = append(keys, strings.TrimSpace(k.Name+" "+id+" "+k.State))
		}
		if len(keys) == 0 {
			keys = []string{"NONE: every image of OCI Registry may run, signed or not"}
		}
		row("keys", keys...)
		row("other registries", p.OtherRegistries)
		row("exempt images", p.ExemptImages...)
		row("exempt until", exemptions(p.Exemptions)...)
		row("revoked", revocations(p.Revoked)...)
		row("digests", p.Digests)
		row("workloads", map[bool]string{true: "warned about", false: "not judged"}[p.WarnWorkloads])
		row("break-glass", p.BreakGlass)
		if r := p.BreakGlassRules; r != nil {
			var who []string
			for kind, names := range map[string][]string{"user ": r.Users, "group ": r.Groups, "service account ": r.ServiceAccounts} {
				for _, n := range names {
					who = append(who, kind+n)
				}
			}
			slices.Sort(who)
			if len(who) == 0 {
				who = []string{"anybody"}
			}
			row("  by", who...)
			if r.RequireReason {
				row("  reason", "required")
			}
			if r.RequireDigest {
				row("  digests", "required")
			}
			if r.MaxDuration != "" {
				row("  at most", r.MaxDuration)
			}
			row("  reported", map[bool]string{true: "yes", false: "no"}[r.Report])
		}
		row("namespaces", cmp.Or(strings.Join(p.Scope.Namespaces, ", "), "all"))
		if len(p.Scope.ExcludedNamespaces) > 0 {
			row("  but for", strings.Join(p.Scope.ExcludedNamespaces, ", "))
		}
		if p.Scope.NamespaceSelector != "" {
			row("  labelled", p.Scope.NamespaceSelector)
		}
		if p.Scope.PodSelector != "" {
			row("Pods labelled", p.Scope.PodSelector)
		}
		if p.Provider != "oke-sign" || wide {
			row("provider", p.Provider)
		}
		violations := "not counted yet"
		if s.Violations != nil {
			violations = fmt.Sprint(*s.Violations)
		}
		row("violations", violations)
		row("enforced", s.enforced())
	}
	for n, scans := range s.Scans {
		row([]string{"scans", ""}[min(n, 1)], scans.String())
	}
	row("problems", s.Problems...)
	list := func(name string, constraints []shownConstraint) {
		var values []string
		for _, c := range constraints {
			values = append(values, fmt.Sprintf("%s/%s %s", c.Kind, c.Name, c.Action))
		}
		row(name, values...)
	}
	list("constraints", s.Constraints)
	list("others", s.Others)
	d.Sections = []cli.Section{{Rows: rows}}
	for _, c := range s.Constraints {
		d.Names = append(d.Names, resourceName(c.Kind, c.Name))
	}
	return d
}

// resourceName returns a constraint's name as kubectl prints and accepts it.
func resourceName(kind, name string) string {
	return constraint.Resource(kind) + "." + constraint.Group + "/" + name
}

// exemptions returns a line for each exemption: its end, its images and its reason.
func exemptions(list []constraint.Exemption) []string {
	var lines []string
	for _, e := range list {
		until := e.Until
		if at, err := time.Parse(time.RFC3339, e.Until); err != nil || !at.After(time.Now()) {
			until += " (ended)"
		}
		lines = append(lines, fmt.Sprintf("%s: %s (%s)", until, strings.Join(e.Images, ", "), e.Reason))
	}
	return lines
}

// revocations returns a line for each revoked image: its digest or name, and the reason.
func revocations(list []constraint.Revocation) []string {
	var lines []string
	for _, r := range list {
		lines = append(lines, fmt.Sprintf("%s (%s)", r.Image+r.Digest, r.Reason))
	}
	return lines
}
