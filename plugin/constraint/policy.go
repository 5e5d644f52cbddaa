// Package constraint represents the image policy of a cluster as one object, although
// several Gatekeeper constraints hold it. It reads the policy from constraints, writes it
// into them, and orders the steps of a change.
//
// It does no I/O. Constraints are hostile input: anybody may have written them. It reports
// constraints that a policy cannot express, and does not change them.
package constraint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	yamlv3 "go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/provider/signature"
)

// Modes of a policy: what happens to an image that it forbids.
const (
	Deny   = "deny"   // Gatekeeper denies it
	Warn   = "warn"   // Gatekeeper admits it, and warns its sender
	DryRun = "dryrun" // Gatekeeper admits it, and the audit counts it
)

// Modes returns all modes, the strictest first.
func Modes() []string { return []string{Deny, Warn, DryRun} }

// Values of a policy's fields, as in the schemas of the constraints. None is a value of
// Digests only: the policy then has no OKEImageDigests constraint.
const (
	Allow       = "Allow"
	Refuse      = "Deny"
	Honor       = "Honor"
	Ignore      = "Ignore"
	All         = "All"
	OCIRegistry = "OCIRegistry"
	None        = "None"
)

// MaxKeys is the most keys that a policy may list. The OKE image policy has the same limit.
const MaxKeys = 5

// Policy is an image policy: which images may run.
type Policy struct {
	// Mode is what happens to an image that the policy forbids.
	Mode string `json:"mode"`
	// Keys are the OCIDs of the allowed keys. Without keys, every image of OCI Registry
	// may run.
	Keys []string `json:"keys"`
	// OtherRegistries is what happens to images of other registries: Deny or Allow.
	OtherRegistries string `json:"otherRegistries"`
	// ExemptImages need neither signature nor digest.
	ExemptImages []string `json:"exemptImages"`
	// Exemptions need neither signature nor digest until they end.
	Exemptions []Exemption `json:"exemptions,omitempty"`
	// Revoked images are denied although they are signed.
	Revoked []Revocation `json:"revoked,omitempty"`
	// Digests are the images that must be referenced by digest: All, OCIRegistry or
	// None. A signature covers a digest, so a signed image must be pinned.
	Digests string `json:"digests"`
	// WarnWorkloads warns of workloads whose Pods would be denied.
	WarnWorkloads bool `json:"warnWorkloads"`
	// BreakGlass is whether break-glass admits images of OCI Registry: Honor or Ignore.
	BreakGlass string `json:"breakGlass"`
	// BreakGlassRules limit who may use break-glass, and how. Without rules anybody may,
	// and nothing reports the use.
	BreakGlassRules *BreakGlassRules `json:"breakGlassRules,omitempty"`
	// Scope is where the policy applies.
	Scope Scope `json:"scope"`
	// Provider is the name of Gatekeeper's Provider that is asked about signatures.
	Provider string `json:"provider"`
}

// Exemption exempts images until a time.
type Exemption struct {
	Images []string `json:"images"` // patterns as in ExemptImages
	Until  string   `json:"until"`  // RFC 3339, UTC
	Reason string   `json:"reason"`
}

// Revocation denies one digest, in all repositories or in one.
type Revocation struct {
	Digest string `json:"digest,omitempty"` // sha256:…
	Image  string `json:"image,omitempty"`  // repository@sha256:…
	Reason string `json:"reason"`
}

// BreakGlassRules limit who may use break-glass. If nobody is named, anybody may.
type BreakGlassRules struct {
	Users           []string `json:"users"`
	Groups          []string `json:"groups"`
	ServiceAccounts []string `json:"serviceAccounts"` // namespace/name
	RequireReason   bool     `json:"requireReason"`
	RequireDigest   bool     `json:"requireDigest"`         // of every image under break-glass
	MaxDuration     string   `json:"maxDuration,omitempty"` // minutes or hours, such as 8h
	Report          bool     `json:"report"`                // warn of every use
}

// Scope is where a policy applies. An empty scope is the whole cluster, and an object must
// satisfy every field that is set.
type Scope struct {
	Namespaces         []string `json:"namespaces"`         // these only; ends may be *
	ExcludedNamespaces []string `json:"excludedNamespaces"` // not these; ends may be *
	NamespaceSelector  string   `json:"namespaceSelector,omitempty"`
	// PodSelector selects by labels of the Pod, which the creator of the Pod chooses.
	PodSelector string `json:"podSelector,omitempty"`
}

// Default returns the policy with the default of every field. It has no keys.
func Default() Policy {
	return Policy{
		Mode: Deny, OtherRegistries: Refuse, Digests: All, WarnWorkloads: true,
		BreakGlass: Honor, BreakGlassRules: &BreakGlassRules{Report: true}, Provider: "oke-sign",
	}
}

// Clone returns a deep copy of p.
func (p Policy) Clone() Policy {
	p.Keys, p.ExemptImages = slices.Clone(p.Keys), slices.Clone(p.ExemptImages)
	p.Revoked, p.Exemptions = slices.Clone(p.Revoked), slices.Clone(p.Exemptions)
	for i := range p.Exemptions {
		p.Exemptions[i].Images = slices.Clone(p.Exemptions[i].Images)
	}
	p.Scope.Namespaces, p.Scope.ExcludedNamespaces = slices.Clone(p.Scope.Namespaces), slices.Clone(p.Scope.ExcludedNamespaces)
	if p.BreakGlassRules != nil {
		rules := *p.BreakGlassRules
		rules.Users, rules.Groups, rules.ServiceAccounts = slices.Clone(rules.Users), slices.Clone(rules.Groups), slices.Clone(rules.ServiceAccounts)
		p.BreakGlassRules = &rules
	}
	return p
}

// duration is how long break-glass may last: minutes or hours.
var duration = regexp.MustCompile(`^[1-9][0-9]{0,3}[mh]$`)

// Validate returns all errors of the policy. It does not check what the schemas of the
// constraints check, such as the syntax of an exempt image.
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
		wrong = append(wrong, fmt.Errorf("%d keys are listed, and the most is %d", len(p.Keys), MaxKeys))
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
		wrong = append(wrong, errors.New("breakGlassRules have no effect: breakGlass is Ignore"))
	}
	if rules := p.BreakGlassRules; rules != nil && rules.MaxDuration != "" && !duration.MatchString(rules.MaxDuration) {
		wrong = append(wrong, fmt.Errorf("breakGlassRules.maxDuration is %q, and must be minutes or hours, such as 8h", rules.MaxDuration))
	}
	if p.Provider == "" {
		wrong = append(wrong, errors.New("provider is missing"))
	}
	return errors.Join(append(wrong, p.validateEntries()...)...)
}

// validateEntries returns the errors of exemptions and revoked images.
func (p Policy) validateEntries() (wrong []error) {
	for i, e := range p.Exemptions {
		if _, err := time.Parse("2006-01-02T15:04:05Z", e.Until); err != nil {
			wrong = append(wrong, fmt.Errorf("exemptions[%d].until is %q, and must be a time in UTC such as 2026-12-31T00:00:00Z", i, e.Until))
		}
		if len(e.Images) == 0 || e.Reason == "" {
			wrong = append(wrong, fmt.Errorf("exemptions[%d] needs images and a reason", i))
		}
	}
	for i, r := range p.Revoked {
		if (r.Digest == "") == (r.Image == "") || r.Reason == "" {
			wrong = append(wrong, fmt.Errorf("revoked[%d] needs a digest or an image, and a reason", i))
		}
	}
	return wrong
}

// wrongType matches the decoder's error about a value of the wrong type.
var wrongType = regexp.MustCompile(`cannot unmarshal (\w+) into Go struct field (?:\.?Policy\.|\.)?([\w.]+) of type \*?(?:\w+\.)?(\S+)$`)

// Parse reads a policy from text of YAML, perhaps after an edit. It rejects unknown and
// duplicate fields. It also rejects a missing list of keys, which must not mean that every
// image may run.
func Parse(text []byte) (Policy, error) {
	var given struct {
		Policy
		Keys *[]string `json:"keys"` // hides Policy's
	}
	if err := yaml.UnmarshalStrict(text, &given); err != nil {
		if m := wrongType.FindStringSubmatch(err.Error()); m != nil {
			return Policy{}, fmt.Errorf("%s must be a %s, not a %s", m[2], m[3], m[1])
		}
		return Policy{}, errors.New(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "))
	}
	if given.Keys == nil || *given.Keys == nil {
		return Policy{}, errors.New("keys are missing; [] would admit every image of OCI Registry")
	}
	p := given.Policy
	p.Keys = *given.Keys
	if err := p.Validate(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// YAML returns the policy as one document with all its fields.
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
	// Nodes preserve the order of the fields.
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

// unfold puts every item on a line, and removes quotes.
func unfold(n *yamlv3.Node) {
	if len(n.Content) > 0 || n.Kind == yamlv3.ScalarNode {
		n.Style = 0
	}
	for _, inner := range n.Content {
		unfold(inner)
	}
}
