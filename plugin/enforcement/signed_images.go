package enforcement

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/match"
	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// SignedImages is a constraint of the cluster with its allowed keys.
type SignedImages struct {
	Name   string
	Action string            // deny, warn, dryrun or scoped
	Keys   []signature.KeyID // none: the constraint admits every image of OCI Registry
	match  match.Match
}

func (c SignedImages) String() string { return policies.SignedImages + "/" + c.Name }

// denies reports whether the constraint can deny a Pod.
func (c SignedImages) denies() bool { return c.Action == "deny" || c.Action == "scoped" }

// ReadSignedImages reads the OKESignedImages constraints of the cluster, sorted by name.
// A cluster without the templates has no constraints.
func ReadSignedImages(ctx context.Context, s *connect.Session) ([]SignedImages, error) {
	if !s.Kube.Leads() {
		return nil, connect.ErrNoCluster
	}
	objects, err := s.Kube.Objects()
	if err != nil {
		return nil, err
	}
	list, err := objects.Resource(Resource(policies.SignedImages)).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's policy: %w", err)
	}
	var found []SignedImages
	for _, item := range list.Items {
		c, err := parseSignedImages(item)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", policies.SignedImages, item.GetName(), err)
		}
		found = append(found, c)
	}
	slices.SortFunc(found, func(a, b SignedImages) int { return cmp.Compare(a.Name, b.Name) })
	return found, nil
}

func parseSignedImages(item unstructured.Unstructured) (SignedImages, error) {
	var text struct {
		Spec struct {
			EnforcementAction string      `json:"enforcementAction"`
			Match             match.Match `json:"match"`
			Parameters        struct {
				Keys []string `json:"keys"`
			} `json:"parameters"`
		} `json:"spec"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(item.Object, &text); err != nil {
		return SignedImages{}, err
	}
	if text.Spec.Parameters.Keys == nil {
		return SignedImages{}, errors.New("it has no list of keys, and denies every image of OCI Registry")
	}
	c := SignedImages{Name: item.GetName(), Action: cmp.Or(text.Spec.EnforcementAction, "deny"), match: text.Spec.Match}
	for _, s := range text.Spec.Parameters.Keys {
		id, err := signature.ParseKeyID(s)
		if err != nil {
			return SignedImages{}, err
		}
		if !slices.Contains(c.Keys, id) {
			c.Keys = append(c.Keys, id)
		}
	}
	slices.SortFunc(c.Keys, func(a, b signature.KeyID) int { return cmp.Compare(a.String(), b.String()) })
	return c, nil
}

// Decisive returns the constraints that deny, or all if no constraint denies. A policy on
// trial must not change the result of an enforced one.
func Decisive(all []SignedImages) []SignedImages {
	denying := slices.DeleteFunc(slices.Clone(all), func(c SignedImages) bool { return !c.denies() })
	if len(denying) == 0 {
		return all
	}
	return denying
}

// Covers reports whether Gatekeeper would match the constraint with an object or with the
// Pods that the object creates.
func (c SignedImages) Covers(object *unstructured.Unstructured, namespace *corev1.Namespace) (bool, error) {
	for _, o := range append([]*unstructured.Unstructured{object}, manifest.Pods(object)...) {
		ok, err := match.Matches(&c.match, &match.Matchable{Object: o, Namespace: namespace, Source: mutationtypes.SourceTypeOriginal})
		if err != nil {
			return false, fmt.Errorf("%s: %w", c, err)
		}
		if ok {
			return true, nil
		}
	}
	return false, nil
}

// ConstraintNames returns the names of constraints as one text for people.
func ConstraintNames(constraints []SignedImages) string {
	var list []string
	for _, c := range constraints {
		list = append(list, c.String())
	}
	return strings.Join(list, ", ")
}
