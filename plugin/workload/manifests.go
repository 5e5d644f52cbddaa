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

// ManifestFlags are the flags for manifests and constraints.
type ManifestFlags struct {
	files       []string
	constraints []string
}

// Bind adds -f and --constraints.
func (m *ManifestFlags) Bind(flags *pflag.FlagSet) {
	BindFiles(flags, &m.files, "manifests to check")
	flags.StringArrayVar(&m.constraints, "constraints", nil, "`FILE` or directory with constraints that are not among the manifests. May be repeated.")
}

// Validate rejects arguments, and flags without manifests.
func (m *ManifestFlags) Validate(args []string) error {
	switch {
	case len(args) > 0:
		return cli.Usage(fmt.Sprintf("no arguments are taken, got %q", args[0]), "name manifests with -f "+args[0])
	case len(m.files) == 0:
		return cli.Usage("-f is missing", "name a file or directory of manifests, or - for standard input")
	}
	return nil
}

// Read reads all files. It skips constraints of other projects' kinds. If made is not
// nil, it makes the constraints, and the files must have none.
func (m *ManifestFlags) Read(ctx context.Context, s *connect.Session, made func(context.Context) ([]Document, error)) (Input, error) {
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
			continue // objects beside the constraints, such as templates
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
		s.Remark("%s of other policies skipped", cli.Count(left, "constraint"))
	}
	switch {
	case made == nil && len(p.Constraints) == 0:
		return Input{}, cli.Usage("no constraint of oke-sign found", "name the keys of a policy with --key, or a file or directory of constraints with --constraints")
	case made != nil && len(p.Constraints) > 0:
		return Input{}, cli.Usage(fmt.Sprintf("--key makes the constraints, and %s has %s", p.Constraints[0].File, constraint.Name(p.Constraints[0].Object)),
			"omit --key to use those of the files, or name only the manifests of workloads")
	}
	if len(p.Manifests) == 0 { // for example after a failed renderer
		return Input{}, &cli.HintedError{What: errors.New("no object to check"), Hint: "name manifests with -f; if a program renders them, check that it did not fail"}
	}
	if made == nil {
		return p, nil
	}
	if p.Constraints, err = made(ctx); err != nil {
		return Input{}, err
	}
	return p, nil
}

// First returns the first file or directory of -f.
func (m *ManifestFlags) First() string { return m.files[0] }

// ReadFiles reads manifests from files and directories. "-" is in. It reads subdirectories
// if recursive is set.
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
				return nil, &cli.HintedError{What: fmt.Errorf("%s: %w", file, err), Hint: "every file must have Kubernetes objects; render charts and kustomizations first"}
			}
			for _, l := range located {
				found = append(found, Document{file, l.Object, l.Lines})
			}
		}
	}
	return found, nil
}

// ManifestsBelow returns the files of a directory with the extension of manifests, or with
// one of other names.
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
		err = fmt.Errorf("%s has no .yaml, .yml or .json file", dir)
	}
	return files, err
}
