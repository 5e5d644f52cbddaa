package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

// ManifestFlags name what is judged, and by what.
type ManifestFlags struct {
	files       []string
	constraints []string
}

// Bind adds -f and --constraints.
func (m *ManifestFlags) Bind(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&m.files, "filename", "f", nil, "`FILE` or directory of manifests to judge, or - for standard input. May be repeated.")
	flags.StringArrayVar(&m.constraints, "constraints", nil, "`FILE` or directory of constraints, if they are not among the manifests. May be repeated.")
}

// Validate rejects flags that name no manifests.
func (m *ManifestFlags) Validate(args []string) error {
	switch {
	case len(args) > 0:
		return cli.Usage(fmt.Sprintf("no arguments are taken, got %q", args[0]), "name manifests with -f "+args[0])
	case len(m.files) == 0:
		return cli.Usage("-f is missing", "name a file or directory of manifests, or - for standard input")
	}
	return nil
}

// Read reads all files. Constraints of kinds that are not ours are left out.
func (m *ManifestFlags) Read(ctx context.Context, s *connect.Session) (Input, error) {
	p := Input{Namespaces: make(map[string]*corev1.Namespace)}
	judged, err := ReadFiles(ctx, s.Streams.In, m.files, true)
	if err != nil {
		return Input{}, err
	}
	given, err := ReadFiles(ctx, s.Streams.In, m.constraints, true)
	if err != nil {
		return Input{}, err
	}
	left := 0
	for i, found := range append(judged, given...) {
		group := found.Object.GroupVersionKind().Group
		switch {
		case group == constraint.Group && slices.Contains(policies.Kinds(), found.Object.GetKind()):
			p.Constraints = append(p.Constraints, found)
		case group == constraint.Group:
			left++
		case i >= len(judged):
			continue // templates and the like beside the constraints
		default:
			p.Manifests = append(p.Manifests, found)
		}
		if group == "" && found.Object.GetKind() == "Namespace" {
			namespace := new(corev1.Namespace)
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found.Object.Object, namespace); err != nil {
				return Input{}, fmt.Errorf("%s: %w", found.File, err)
			}
			p.Namespaces[namespace.Name] = namespace
		}
	}
	if left > 0 {
		s.Remark("%s of other policies left out", cli.Count(left, "constraint"))
	}
	if len(p.Constraints) == 0 {
		return Input{}, cli.Usage("no constraint of oke-sign found", "name a file or directory of constraints with --constraints")
	}
	if len(p.Manifests) == 0 { // such as what is left of a renderer that failed
		return Input{}, &cli.HintedError{What: errors.New("no object to judge"), Hint: "name manifests with -f; what renders them may have failed and written nothing"}
	}
	return p, nil
}

// ReadFiles reads manifests; "-" is in. Directories are read with what lies deeper in them if
// recursive is set.
func ReadFiles(ctx context.Context, in io.Reader, paths []string, recursive bool) ([]Document, error) {
	var found []Document
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); path != "-" && err == nil && info.IsDir() {
			if files, err = ManifestsBelow(path, recursive); err != nil {
				return nil, err
			}
		}
		for _, file := range files {
			text, err := cli.ReadInput(ctx, in, file)
			if err != nil {
				return nil, err
			}
			located, err := manifest.Locate(text)
			if err != nil {
				return nil, &cli.HintedError{What: fmt.Errorf("%s: %w", file, err), Hint: "every file must hold Kubernetes objects; of charts and kustomizations check what they render"}
			}
			for _, l := range located {
				found = append(found, Document{file, l.Object, l.Lines})
			}
		}
	}
	return found, nil
}

// ManifestsBelow are the files of a directory that hold manifests by their name:
// by what it ends in, or one of other names.
func ManifestsBelow(dir string, recursive bool, names ...string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && (!recursive || strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case !d.IsDir() && (slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) || slices.Contains(names, d.Name())):
			files = append(files, path)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s holds no .yaml, .yml or .json file", dir)
	}
	return files, err
}
