package signing

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// asked is an image and lists of keys. A key of each list must have signed it.
type asked struct {
	image    string
	keys     [][]signature.KeyID
	policies []string // the constraints that have these lists
}

// plan returns the question for each target: whether --key signed it, or whether
// keys of the matching constraints of the cluster did.
func (o *verifyOptions) plan(ctx context.Context, targets []workload.Target) ([]asked, error) {
	if len(o.allowed) > 0 {
		questions := make([]asked, len(targets))
		for i, t := range targets {
			questions[i] = asked{image: t.Image, keys: [][]signature.KeyID{o.allowed}}
		}
		return questions, nil
	}
	all, err := enforcement.ReadSignedImages(ctx, o.Session)
	switch {
	case errors.Is(err, connect.ErrNoCluster):
		return nil, cli.Usage("--key is missing, and "+err.Error()+" whose policy would say", hintAccept)
	case err != nil:
		return nil, &cli.HintedError{What: err, Hint: "or " + hintAccept}
	case len(all) == 0:
		return nil, cli.Usage("--key is missing, and the cluster has no OKESignedImages constraint", hintAccept)
	}
	all = enforcement.Decisive(all)
	var questions []asked
	unmatched := 0
	namespaces := namespaces(ctx, o.Session)
	for _, t := range targets {
		matched, err := matchingTarget(all, t, namespaces)
		if err != nil {
			return nil, err
		}
		if len(matched) == 0 {
			unmatched++
			continue
		}
		questions = append(questions, askFor(t.Image, matched))
	}
	used := slices.DeleteFunc(all, func(c enforcement.SignedImages) bool {
		return !slices.ContainsFunc(questions, func(q asked) bool { return slices.Contains(q.policies, c.String()) })
	})
	if unmatched > 0 {
		o.Remark("%s skipped: no constraint matches what runs them", cli.Count(unmatched, "image"))
	}
	if len(questions) == 0 {
		return nil, &cli.HintedError{What: errors.New("no constraint of the cluster's policy matches what was named"), Hint: hintAccept}
	}
	o.Remark("judged by the cluster's policy: %s", enforcement.ConstraintNames(used))
	return questions, nil
}

const hintAccept = "name the keys to accept with --key; kubectl oke-sign keys list shows them"

// listless returns an error if one of the constraints lists no key.
func listless(constraints []enforcement.SignedImages) error {
	for _, c := range constraints {
		if len(c.Keys) == 0 {
			return cli.Usage(fmt.Sprintf("%s lists no key: it admits every image of OCI Registry, signed or not", c), hintAccept)
		}
	}
	return nil
}

// matchingTarget returns the constraints that match a target.
func matchingTarget(all []enforcement.SignedImages, t workload.Target, namespaces func(string) (*corev1.Namespace, error)) ([]enforcement.SignedImages, error) {
	if len(t.Users) == 0 {
		if err := listless(all); err != nil {
			return nil, err
		}
		for _, c := range all[1:] {
			if !slices.Equal(c.Keys, all[0].Keys) {
				return nil, cli.Usage(fmt.Sprintf("which keys must have signed %s is ambiguous: %s list different ones, for different objects", t.Image, enforcement.ConstraintNames(all)),
					"name the keys with --key, or what runs the image, such as deployment/web")
			}
		}
		return all, nil
	}
	var matched []enforcement.SignedImages
	for _, c := range all {
		for _, u := range t.Users {
			namespace, err := namespaces(u.Object.GetNamespace())
			if err != nil {
				return nil, err
			}
			object := u.Object.DeepCopy()
			object.SetNamespace(namespace.Name)
			ok, err := c.Covers(object, namespace)
			if err != nil {
				return nil, err
			}
			if ok {
				matched = append(matched, c)
				break
			}
		}
	}
	return matched, listless(matched)
}

// askFor makes one question of the lists of the constraints. Equal lists count once.
func askFor(image string, matched []enforcement.SignedImages) asked {
	q := asked{image: image}
	for _, c := range matched {
		q.policies = append(q.policies, c.String())
		if !slices.ContainsFunc(q.keys, func(keys []signature.KeyID) bool { return slices.Equal(keys, c.Keys) }) {
			q.keys = append(q.keys, c.Keys)
		}
	}
	return q
}

// namespaces returns a function that looks up each namespace once. A manifest may
// name a namespace that does not exist yet. If it names none, the function uses the
// current namespace of the user.
func namespaces(ctx context.Context, s *connect.Session) func(string) (*corev1.Namespace, error) {
	seen := make(map[string]*corev1.Namespace)
	return func(name string) (*corev1.Namespace, error) {
		if name == "" {
			var err error
			if name, err = s.Kube.CurrentNamespace(); err != nil {
				return nil, err
			}
		}
		if seen[name] != nil {
			return seen[name], nil
		}
		client, err := s.Kube.Typed()
		if err != nil {
			return nil, err
		}
		namespace, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			namespace = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}}}
		} else if err != nil {
			return nil, fmt.Errorf("reading namespace %s: %w", name, err)
		}
		seen[name] = namespace
		return namespace, nil
	}
}
