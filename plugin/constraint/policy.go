// Package constraint holds the image policy of a cluster as one thing, however many
// Gatekeeper constraints carry it: it reads the policy from constraints, writes it
// into them, and orders the steps that lead from one to the other.
//
// It does no I/O. What it reads comes from a cluster and may have been written by
// anybody; what it cannot express it says so of and leaves alone.
package constraint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/provider/signature"
)

// Modes of a policy: what becomes of an image that it forbids.
const (
	Deny   = "deny"   // it is refused
	Warn   = "warn"   // it is let in, and whoever sent it is warned
	DryRun = "dryrun" // it is let in, and the audit counts it
)

// Modes returns all of them, the strictest first.
func Modes() []string { return []string{Deny, Warn, DryRun} }

// Words in policies, as the constraints' schemas have them. None is for digests
// only, and no constraint has it: there is none then.
const (
	Allow       = "Allow"
	Refuse      = "Deny"
	Honor       = "Honor"
	Ignore      = "Ignore"
	All         = "All"
	OCIRegistry = "OCIRegistry"
	None        = "None"
)

// MaxKeys is how many keys a policy may list, ours as OKE's own.
const MaxKeys = 5

// Policy is an image policy: what images must be to run.
type Policy struct {
	// Mode is what becomes of an image that the policy forbids.
	Mode string `json:"mode"`
	// Keys are the OCIDs of the keys that images of OCI Registry may be signed by.
	// Without any, every image of OCI Registry may run.
	Keys []string `json:"keys"`
	// OtherRegistries is what becomes of images of other registries: Deny or Allow.
	OtherRegistries string `json:"otherRegistries"`
	// ExemptImages need neither signature nor digest.
	ExemptImages []string `json:"exemptImages"`
	// Digests are the images that must be referenced by digest: All, OCIRegistry or
	// None. A signature is of a digest, so those that need one need the other.
	Digests string `json:"digests"`
	// WarnWorkloads warns of workloads whose Pods would be refused.
	WarnWorkloads bool `json:"warnWorkloads"`
	// BreakGlass is whether the annotation on a Pod lifts the policy for images of
	// OCI Registry: Honor or Ignore.
	BreakGlass string `json:"breakGlass"`
	// BreakGlassRules say who may set it, and how. Without them anybody may, and
	// nobody hears of it.
	BreakGlassRules *BreakGlassRules `json:"breakGlassRules,omitempty"`
	// Scope is where the policy applies.
	Scope Scope `json:"scope"`
	// Provider is the name of Gatekeeper's Provider that is asked about signatures.
	Provider string `json:"provider"`
}

// BreakGlassRules say who may lift the policy for a Pod. If nobody is named,
// anybody may.
type BreakGlassRules struct {
	Users           []string `json:"users"`
	Groups          []string `json:"groups"`
	ServiceAccounts []string `json:"serviceAccounts"` // namespace/name
	RequireReason   bool     `json:"requireReason"`
	RequireDigest   bool     `json:"requireDigest"`         // of every image under break-glass
	MaxDuration     string   `json:"maxDuration,omitempty"` // minutes or hours, such as 8h
	Report          bool     `json:"report"`                // warn of every use
}

// Scope is where a policy applies: everywhere, if it is empty. What narrows it
// narrows it further together with all else that does.
type Scope struct {
	Namespaces         []string `json:"namespaces"`         // these only; ends may be *
	ExcludedNamespaces []string `json:"excludedNamespaces"` // not these; ends may be *
	NamespaceSelector  string   `json:"namespaceSelector,omitempty"`
	// PodSelector chooses by labels of the Pod, which whoever makes the Pod chooses.
	PodSelector string `json:"podSelector,omitempty"`
}

// Default is the policy that what is not said otherwise makes. It has no keys.
func Default() Policy {
	return Policy{
		Mode: Deny, OtherRegistries: Refuse, Digests: All, WarnWorkloads: true,
		BreakGlass: Honor, BreakGlassRules: &BreakGlassRules{Report: true}, Provider: "oke-sign",
	}
}

// Clone is a policy that shares nothing with p.
func (p Policy) Clone() Policy {
	p.Keys, p.ExemptImages = slices.Clone(p.Keys), slices.Clone(p.ExemptImages)
	p.Scope.Namespaces, p.Scope.ExcludedNamespaces = slices.Clone(p.Scope.Namespaces), slices.Clone(p.Scope.ExcludedNamespaces)
	if p.BreakGlassRules != nil {
		rules := *p.BreakGlassRules
		rules.Users, rules.Groups, rules.ServiceAccounts = slices.Clone(rules.Users), slices.Clone(rules.Groups), slices.Clone(rules.ServiceAccounts)
		p.BreakGlassRules = &rules
	}
	return p
}

// Duration is how long break-glass may last: minutes or hours.
var duration = regexp.MustCompile(`^[1-9][0-9]{0,3}[mh]$`)

// Validate says what is wrong with the policy, all of it. What only the schemas of
// the constraints know, such as the spelling of an exempt image, is left to them.
func (p Policy) Validate() error {
	var wrong []error
	word := func(field, value string, words ...string) {
		if !slices.Contains(words, value) {
			wrong = append(wrong, fmt.Errorf("%s is %q, and must be %s", field, value, strings.Join(words, " or ")))
		}
	}
	word("mode", p.Mode, Modes()...)
	word("otherRegistries", p.OtherRegistries, Refuse, Allow)
	word("digests", p.Digests, All, OCIRegistry, None)
	word("breakGlass", p.BreakGlass, Honor, Ignore)
	if len(p.Keys) > MaxKeys {
		wrong = append(wrong, fmt.Errorf("%d keys are listed, and a policy holds %d at most", len(p.Keys), MaxKeys))
	}
	for i, key := range p.Keys {
		if _, err := signature.ParseKeyID(key); err != nil {
			wrong = append(wrong, fmt.Errorf("keys: %w", err))
		} else if slices.Contains(p.Keys[:i], key) {
			wrong = append(wrong, fmt.Errorf("keys: %s is listed twice", key))
		}
	}
	for field, selector := range map[string]string{"scope.namespaceSelector": p.Scope.NamespaceSelector, "scope.podSelector": p.Scope.PodSelector} {
		if _, err := metav1.ParseToLabelSelector(selector); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", field, err))
		}
	}
	if p.BreakGlass == Ignore && p.BreakGlassRules != nil {
		wrong = append(wrong, errors.New("breakGlassRules are given, and breakGlass is Ignore: nobody can use it"))
	}
	if rules := p.BreakGlassRules; rules != nil && rules.MaxDuration != "" && !duration.MatchString(rules.MaxDuration) {
		wrong = append(wrong, fmt.Errorf("breakGlassRules.maxDuration is %q, and must be minutes or hours, such as 8h", rules.MaxDuration))
	}
	if p.Provider == "" {
		wrong = append(wrong, errors.New("provider is missing"))
	}
	return errors.Join(wrong...)
}

// wrongType is how the decoder words a value of the wrong type, with its own types.
var wrongType = regexp.MustCompile(`cannot unmarshal (\w+) into Go struct field (?:\.?Policy\.|\.)?([\w.]+) of type \*?(?:\w+\.)?(\S+)$`)

// Parse reads a policy that YAML returned, as somebody may have changed it since.
// Fields that are unknown or there twice are errors; so is a list of keys that is
// left out, which must not come to mean that any image may run.
func Parse(text []byte) (Policy, error) {
	var given struct {
		Policy
		Keys *[]string `json:"keys"` // in the place of Policy's
	}
	if err := yaml.UnmarshalStrict(text, &given); err != nil {
		if m := wrongType.FindStringSubmatch(err.Error()); m != nil {
			return Policy{}, fmt.Errorf("%s must be a %s, not a %s", m[2], m[3], m[1])
		}
		return Policy{}, errors.New(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "))
	}
	if given.Keys == nil || *given.Keys == nil {
		return Policy{}, errors.New("keys are missing; [] would let every image of OCI Registry run")
	}
	p := given.Policy
	p.Keys = *given.Keys
	if err := p.Validate(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// YAML is the policy as one document, with every field that can be set.
func (p Policy) YAML() ([]byte, error) {
	p = p.Clone()
	lists := []*[]string{&p.Keys, &p.ExemptImages, &p.Scope.Namespaces, &p.Scope.ExcludedNamespaces}
	if rules := p.BreakGlassRules; rules != nil {
		lists = append(lists, &rules.Users, &rules.Groups, &rules.ServiceAccounts)
	}
	for _, list := range lists {
		if *list == nil {
			*list = []string{}
		}
	}
	// By way of nodes, which keep the order of the fields.
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	unfold(&document)
	var b bytes.Buffer
	encoder := yamlv3.NewEncoder(&b)
	encoder.SetIndent(2)
	err = encoder.Encode(&document)
	return b.Bytes(), err
}

// unfold writes objects and lists line by line, and words without quotes.
func unfold(n *yamlv3.Node) {
	if len(n.Content) > 0 || n.Kind == yamlv3.ScalarNode {
		n.Style = 0
	}
	for _, inner := range n.Content {
		unfold(inner)
	}
}
