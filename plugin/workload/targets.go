// Package workload finds images and the objects that use them: by name and selector in a
// cluster, in files and directories, and as references on the command line.
//
// Objects and files are input of others. An object in which an image may be hidden is an
// error, and so is a selection without any image. The package decides nothing about images.
package workload

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

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/manifest"
)

// BindFiles adds -f. what says which files the command reads.
func BindFiles(flags *pflag.FlagSet, files *[]string, what string) {
	flags.StringArrayVarP(files, "filename", "f", nil, "`FILE` or directory with "+what+", or - for standard input. May be repeated.")
}

// BindRecursive adds -R.
func BindRecursive(flags *pflag.FlagSet, recursive *bool) {
	flags.BoolVarP(recursive, "recursive", "R", true, "Read subdirectories too.")
}

// BindSelector adds -l. of says what the labels are of.
func BindSelector(flags *pflag.FlagSet, selector *string, of string) {
	flags.StringVarP(selector, "selector", "l", "", "Label `SELECTOR` of the "+of+".")
}

// BindAllNamespaces adds -A.
func BindAllNamespaces(flags *pflag.FlagSet, all *bool) {
	flags.BoolVarP(all, "all-namespaces", "A", false, "Look in all namespaces.")
}

// TargetFlags name images by the objects that use them, in manifests or in the
// cluster. Images themselves are arguments.
type TargetFlags struct {
	Files         []string
	Kustomize     string
	recursive     bool
	selector      string
	allNamespaces bool
	namespace     *string // the value of -n; nil if the flags are not bound
}

// Bind adds the flags that choose targets: -f, -k, -l and -A.
func (t *TargetFlags) Bind(flags *pflag.FlagSet, k *connect.Kube) {
	t.namespace = k.Namespace
	BindFiles(flags, &t.Files, "manifests that use images")
	flags.StringVarP(&t.Kustomize, "kustomize", "k", "", "`DIR` of a kustomization that uses images.")
	BindRecursive(flags, &t.recursive)
	BindSelector(flags, &t.selector, "cluster's objects")
	BindAllNamespaces(flags, &t.allNamespaces)
}

// Validate checks the arguments and flags. what is an example of the command.
func (t *TargetFlags) Validate(args []string, what string) error {
	switch {
	case t.Choose() && slices.ContainsFunc(args, IsObject):
		return cli.Usage("an object is named, and -l or -A would choose others", "name the type alone, or leave the flags out")
	case t.Choose() && !slices.ContainsFunc(args, t.IsType):
		return cli.Usage("-l and -A choose among objects of the cluster, and no type of them is named", "name one, such as pods or deployments")
	case len(args) == 0 && len(t.Files) == 0 && t.Kustomize == "":
		return cli.Usage("no image named", "for instance "+what)
	}
	return CheckSelector(t.selector)
}

// CheckSelector rejects a text that is not a label selector.
func CheckSelector(text string) error {
	if _, err := labels.Parse(text); err != nil {
		return cli.Usage(fmt.Sprintf("-l %q is no label selector: %v", text, err), "for instance -l app=web, or -l 'tier in (web, api)'")
	}
	return nil
}

// Choose reports whether -l or -A select objects of the cluster.
func (t *TargetFlags) Choose() bool { return t.selector != "" || t.allNamespaces }

// IsObject reports whether an argument is TYPE/NAME, an object of the cluster. An image
// of OCI Registry has at least two slashes, and images with one mostly have a tag.
func IsObject(arg string) bool {
	return strings.Count(arg, "/") == 1 && !strings.ContainsAny(arg, "@:")
}

// IsType reports whether an argument is TYPE. A single word is a type only with -n, -l or
// -A; otherwise it is an image, so that nginx is reported as not of OCI Registry.
func (t *TargetFlags) IsType(arg string) bool {
	return IsWord(arg) && (t.Choose() || t.namespace != nil && *t.namespace != "")
}

// IsWord reports whether an argument is neither TYPE/NAME nor an image reference.
func IsWord(arg string) bool { return arg != "" && !strings.ContainsAny(arg, "/@:") }

// Target is an image with the objects that use it, if any.
type Target struct {
	Image string
	Users []Use
}

// Use is a use of an image by an object.
type Use struct {
	Document
	Place string // in the object, such as containers/web
}

// Find collects the images that arguments and flags name, each once, in their order. No
// image at all is an error: a check of nothing must not succeed.
func (t *TargetFlags) Find(ctx context.Context, s *connect.Session, args []string) ([]Target, error) {
	var found []Target
	at := make(map[string]int)
	add := func(image string) int {
		i, ok := at[image]
		if !ok {
			i = len(found)
			at[image] = i
			found = append(found, Target{Image: image})
		}
		return i
	}
	var named []string
	for _, arg := range args {
		if IsObject(arg) || t.IsType(arg) {
			named = append(named, arg)
		} else {
			if IsWord(arg) {
				s.Remark("%s is taken for an image; name an object as %s/NAME, or all of a namespace as %s with -n, -l or -A", arg, arg, arg)
			}
			add(arg)
		}
	}
	documents, err := t.documents(ctx, s, named)
	if err != nil {
		return nil, err
	}
	for _, d := range documents {
		images, err := manifest.Images(d.Object)
		if err != nil {
			return nil, &cli.HintedError{What: fmt.Errorf("%s: %w", d.Name(), err), Hint: "an image may be hidden there, so the command did nothing"}
		}
		for _, i := range images {
			n := add(i.Ref)
			found[n].Users = append(found[n].Users, Use{d, i.Place()})
		}
	}
	if len(found) == 0 && len(documents) == 0 && len(named) == 0 {
		return nil, &cli.HintedError{What: errors.New("no object found"), Hint: "if a program renders the manifests, check that it did not fail"}
	}
	if len(found) == 0 && len(documents) == 0 {
		return nil, &cli.HintedError{What: errors.New("no object found"), Hint: "check the labels of -l and the namespace of -n; -A looks in all namespaces"}
	}
	if len(found) == 0 {
		return nil, &cli.HintedError{What: errors.New("no image found in the objects"), Hint: "name Pods, or objects that make Pods"}
	}
	return found, nil
}

// ImagesOf returns the images of targets.
func ImagesOf(targets []Target) []string {
	images := make([]string, len(targets))
	for i, t := range targets {
		images[i] = t.Image
	}
	return images
}

// documents returns the objects that flags and arguments name.
func (t *TargetFlags) documents(ctx context.Context, s *connect.Session, named []string) ([]Document, error) {
	all, err := ReadFiles(ctx, s.Streams.In, t.Files, t.recursive)
	if err != nil {
		return nil, err
	}
	if t.Kustomize != "" {
		built, err := kustomized(t.Kustomize)
		if err != nil {
			return nil, err
		}
		all = append(all, built...)
	}
	if len(named) == 0 {
		return all, nil
	}
	running, err := t.Running(ctx, s, named)
	return append(all, running...), err
}

// kustomized returns the objects that a kustomization renders.
func kustomized(dir string) ([]Document, error) {
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
	documents := make([]Document, len(objects))
	for i, o := range objects {
		documents[i] = Document{File: dir, Object: o}
	}
	return documents, nil
}

// Running returns the objects of the cluster that arguments and flags select.
func (t *TargetFlags) Running(ctx context.Context, s *connect.Session, named []string) ([]Document, error) {
	namespace, err := s.Kube.CurrentNamespace()
	if err != nil {
		return nil, err
	}
	var documents []Document
	collect := func(named ...string) error {
		result := s.Kube.Builder().NamespaceParam(namespace).DefaultNamespace().AllNamespaces(t.allNamespaces).
			LabelSelectorParam(t.selector).ResourceTypeOrNameArgs(true, named...).RequestChunksOf(500).Do()
		return result.Visit(func(info *resource.Info, err error) error {
			if err != nil {
				return err
			}
			object, ok := info.Object.(*unstructured.Unstructured)
			if !ok {
				return fmt.Errorf("%s/%s: %T is no object", info.Mapping.GroupVersionKind.Kind, info.Name, info.Object)
			}
			documents = append(documents, Document{Object: object})
			return nil
		})
	}
	// The builder takes no context.
	done := make(chan error, 1)
	go func() {
		var objects []string
		var err error
		for _, arg := range named {
			if IsObject(arg) {
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
			return nil, fmt.Errorf("reading the cluster: %w", err)
		}
		return documents, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
