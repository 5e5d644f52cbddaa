package cmd

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

	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// signedImages is a constraint of the cluster that lists the keys by which images
// must be signed.
type signedImages struct {
	name   string
	action string            // deny, warn, dryrun or scoped
	keys   []signature.KeyID // none: any image of OCI Registry is admitted
	match  match.Match
}

func (c signedImages) String() string { return policies.SignedImages + "/" + c.name }

// refuses reports whether the constraint keeps anything out.
func (c signedImages) refuses() bool { return c.action == "deny" || c.action == "scoped" }

// errNoCluster says that no kubeconfig leads to a cluster.
var errNoCluster = errors.New("no kubeconfig names a cluster")

// signedImages reads the constraints of the cluster that say what must be signed.
// A cluster without any has none, whether or not the policies are installed.
func (g *global) signedImages(ctx context.Context) ([]signedImages, error) {
	if !g.kube.leads() {
		return nil, errNoCluster
	}
	objects, err := g.kube.objects()
	if err != nil {
		return nil, err
	}
	list, err := objects.Resource(constraintsOf(policies.SignedImages)).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cluster's policy: %w", err)
	}
	var found []signedImages
	for _, item := range list.Items {
		c, err := readSignedImages(item)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", policies.SignedImages, item.GetName(), err)
		}
		found = append(found, c)
	}
	slices.SortFunc(found, func(a, b signedImages) int { return cmp.Compare(a.name, b.name) })
	return found, nil
}

func readSignedImages(item unstructured.Unstructured) (signedImages, error) {
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
		return signedImages{}, err
	}
	if text.Spec.Parameters.Keys == nil {
		return signedImages{}, errors.New("it says no keys, and so refuses every image of OCI Registry")
	}
	c := signedImages{name: item.GetName(), action: cmp.Or(text.Spec.EnforcementAction, "deny"), match: text.Spec.Match}
	for _, s := range text.Spec.Parameters.Keys {
		id, err := signature.ParseKeyID(s)
		if err != nil {
			return signedImages{}, err
		}
		if !slices.Contains(c.keys, id) {
			c.keys = append(c.keys, id)
		}
	}
	slices.SortFunc(c.keys, func(a, b signature.KeyID) int { return cmp.Compare(a.String(), b.String()) })
	return c, nil
}

// decisive are those constraints that refuse, or all if none does: a policy that
// is only being tried must not change what an enforced one says.
func decisive(all []signedImages) []signedImages {
	refusing := slices.DeleteFunc(slices.Clone(all), func(c signedImages) bool { return !c.refuses() })
	if len(refusing) == 0 {
		return all
	}
	return refusing
}

// covers reports whether the constraint matches an object or the Pods that come
// of it, as Gatekeeper matches them.
func (c signedImages) covers(object *unstructured.Unstructured, namespace *corev1.Namespace) (bool, error) {
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

// names lists constraints for people.
func names(constraints []signedImages) string {
	var list []string
	for _, c := range constraints {
		list = append(list, c.String())
	}
	return strings.Join(list, ", ")
}
