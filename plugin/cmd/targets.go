package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/cli-runtime/pkg/resource"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/oke-sign/oke-sign/plugin/manifest"
)

// targetFlags name images by what holds them: manifests, or objects of the
// cluster. Images themselves are arguments.
type targetFlags struct {
	files         []string
	kustomize     string
	recursive     bool
	selector      string
	allNamespaces bool
	namespace     *string // of -n, which commands share; nil where types are not told from images
}

func (t *targetFlags) bind(flags *pflag.FlagSet, k *kube) {
	t.namespace = k.Namespace
	flags.StringArrayVarP(&t.files, "filename", "f", nil, "`FILE` or directory of manifests with images, or - for standard input. May be repeated.")
	flags.StringVarP(&t.kustomize, "kustomize", "k", "", "`DIR` of a kustomization with images.")
	flags.BoolVarP(&t.recursive, "recursive", "R", true, "Read what lies deeper in directories, too.")
	flags.StringVarP(&t.selector, "selector", "l", "", "Label `SELECTOR` for objects of the cluster.")
	flags.BoolVarP(&t.allNamespaces, "all-namespaces", "A", false, "Look for objects in all namespaces.")
}

// validate checks the arguments and flags; what is an example of the command.
func (t *targetFlags) validate(args []string, what string) error {
	switch {
	case t.choose() && slices.ContainsFunc(args, isObject):
		return usage("an object is named, and -l or -A would choose others", "name the type alone, or leave the flags out")
	case t.choose() && !slices.ContainsFunc(args, t.isType):
		return usage("-l and -A choose among objects of the cluster, and no type of them is named", "name one, such as pods or deployments")
	case len(args) == 0 && len(t.files) == 0 && t.kustomize == "":
		return usage("no image named", "for instance "+what)
	}
	return checkSelector(t.selector)
}

// checkSelector refuses what is no label selector.
func checkSelector(text string) error {
	if _, err := labels.Parse(text); err != nil {
		return usage(fmt.Sprintf("-l %q is no label selector: %v", text, err), "for instance -l app=web, or -l 'tier in (web, api)'")
	}
	return nil
}

func (t *targetFlags) choose() bool { return t.selector != "" || t.allNamespaces }

// isObject tells TYPE/NAME, an object of the cluster, from an image. An image of
// OCI Registry has two slashes at least, and what is written with one and neither
// tag nor digest is hardly meant as an image at all.
func isObject(arg string) bool {
	return strings.Count(arg, "/") == 1 && !strings.ContainsAny(arg, "@:")
}

// isType tells TYPE from an image, which a word alone is as long as -n, -l and -A say
// nothing: whoever writes nginx should hear that it is none of OCI Registry.
func (t *targetFlags) isType(arg string) bool {
	return isWord(arg) && (t.choose() || t.namespace != nil && *t.namespace != "")
}

func isWord(arg string) bool { return arg != "" && !strings.ContainsAny(arg, "/@:") }

// target is an image with the places that name it, or an image by itself.
type target struct {
	image string
	users []user
}

// user is an object that names an image.
type user struct {
	document
	place string // in it, such as containers/web
}

// find collects the images that arguments and flags name, each once, in the order
// in which they were found. That objects were found and no image in them is an
// error: it is not what was asked for.
func (t *targetFlags) find(ctx context.Context, g *global, args []string) ([]target, error) {
	var found []target
	at := make(map[string]int)
	add := func(image string) int {
		i, ok := at[image]
		if !ok {
			i = len(found)
			at[image] = i
			found = append(found, target{image: image})
		}
		return i
	}
	var named []string
	for _, arg := range args {
		if isObject(arg) || t.isType(arg) {
			named = append(named, arg)
		} else {
			if isWord(arg) {
				g.remark("%s is taken for an image; objects are named %s/NAME, or all of a namespace by %s with -n, -l or -A", arg, arg, arg)
			}
			add(arg)
		}
	}
	documents, err := t.documents(ctx, g, named)
	if err != nil {
		return nil, err
	}
	for _, d := range documents {
		images, err := manifest.Images(d.object)
		if err != nil {
			return nil, &refusal{fmt.Errorf("%s: %w", d.name(), err), "an image could hide there, so nothing was done"}
		}
		for _, i := range images {
			n := add(i.Ref)
			found[n].users = append(found[n].users, user{d, i.Place()})
		}
	}
	if len(found) == 0 && len(documents) == 0 && len(named) == 0 {
		return nil, &refusal{errors.New("no object is there that was named"), "what renders the manifests may have failed and written nothing"}
	}
	if len(found) == 0 && len(documents) == 0 {
		return nil, &refusal{errors.New("no object is there that was named"), "check the labels of -l, and the namespace of -n; -A looks in all"}
	}
	if len(found) == 0 {
		return nil, &refusal{errors.New("no image found in what was named"), "Pods and what makes Pods name images"}
	}
	return found, nil
}

// imagesOf are the targets without what names them.
func imagesOf(targets []target) []string {
	images := make([]string, len(targets))
	for i, t := range targets {
		images[i] = t.image
	}
	return images
}

// documents are the objects that flags and arguments name.
func (t *targetFlags) documents(ctx context.Context, g *global, named []string) ([]document, error) {
	all, err := g.readFiles(ctx, t.files, t.recursive)
	if err != nil {
		return nil, err
	}
	if t.kustomize != "" {
		built, err := kustomized(t.kustomize)
		if err != nil {
			return nil, err
		}
		all = append(all, built...)
	}
	if len(named) == 0 {
		return all, nil
	}
	running, err := t.running(ctx, g, named)
	return append(all, running...), err
}

// kustomized are the objects that a kustomization renders to.
func kustomized(dir string) ([]document, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	text, err := built.AsYaml()
	if err != nil {
		return nil, fmt.Errorf("rendering %s: %w", dir, err)
	}
	objects, err := manifest.Objects(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	documents := make([]document, len(objects))
	for i, o := range objects {
		documents[i] = document{file: dir, object: o}
	}
	return documents, nil
}

// running are objects of the cluster.
func (t *targetFlags) running(ctx context.Context, g *global, named []string) ([]document, error) {
	namespace, err := g.kube.namespace()
	if err != nil {
		return nil, err
	}
	var documents []document
	collect := func(named ...string) error {
		result := g.kube.builder().NamespaceParam(namespace).DefaultNamespace().AllNamespaces(t.allNamespaces).
			LabelSelectorParam(t.selector).ResourceTypeOrNameArgs(true, named...).RequestChunksOf(500).Do()
		return result.Visit(func(info *resource.Info, err error) error {
			if err != nil {
				return err
			}
			object, ok := info.Object.(*unstructured.Unstructured)
			if !ok {
				return fmt.Errorf("%s/%s: %T is no object", info.Mapping.GroupVersionKind.Kind, info.Name, info.Object)
			}
			documents = append(documents, document{object: object})
			return nil
		})
	}
	// The builder knows no deadline.
	done := make(chan error, 1)
	go func() {
		var objects []string
		var err error
		for _, arg := range named {
			if isObject(arg) {
				objects = append(objects, arg)
			} else {
				err = errors.Join(err, collect(arg))
			}
		}
		if len(objects) > 0 {
			err = errors.Join(err, collect(objects...))
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return nil, fmt.Errorf("looking into the cluster: %w", err)
		}
		return documents, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
