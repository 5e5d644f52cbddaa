package cmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

// maxManifest bounds a file of manifests, in bytes.
const maxManifest = 64 << 20

// manifestFlags name what is judged, and by what.
type manifestFlags struct {
	files       []string
	constraints []string
}

func (m *manifestFlags) bind(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&m.files, "filename", "f", nil, "`FILE` or directory of manifests to judge, or - for standard input. May be repeated.")
	flags.StringArrayVar(&m.constraints, "constraints", nil, "`FILE` or directory of constraints, if they are not among the manifests. May be repeated.")
}

func (m *manifestFlags) validate(args []string) error {
	switch {
	case len(args) > 0:
		return usage(fmt.Sprintf("no arguments are taken, got %q", args[0]), "name manifests with -f "+args[0])
	case len(m.files) == 0:
		return usage("-f is missing", "name a file or directory of manifests, or - for standard input")
	}
	return nil
}

// document is an object, and where it stands.
type document struct {
	file   string
	object *unstructured.Unstructured
	lines  manifest.Lines // in the file
}

// name is the object as kubectl names it, with its namespace before it.
func (d document) name() string {
	name := d.object.GetKind() + "/" + cmp.Or(d.object.GetName(), d.object.GetGenerateName()+"*")
	if namespace := d.object.GetNamespace(); namespace != "" {
		name = namespace + "/" + name
	}
	return name
}

// at is a line of its file, as editors and logs make a link of it.
func (d document) at(line int) string { return fmt.Sprintf("%s:%d", d.file, line) }

// policy is what is judged, and by what.
type policy struct {
	manifests   []document
	constraints []document
	namespaces  map[string]*corev1.Namespace
}

// read reads all files. Constraints of kinds that are not ours are left out.
func (m *manifestFlags) read(ctx context.Context, g *global) (policy, error) {
	p := policy{namespaces: make(map[string]*corev1.Namespace)}
	judged, err := g.readFiles(ctx, m.files, true)
	if err != nil {
		return policy{}, err
	}
	given, err := g.readFiles(ctx, m.constraints, true)
	if err != nil {
		return policy{}, err
	}
	left := 0
	for i, found := range append(judged, given...) {
		group := found.object.GroupVersionKind().Group
		switch {
		case group == constraint.Group && slices.Contains(policies.Kinds(), found.object.GetKind()):
			p.constraints = append(p.constraints, found)
		case group == constraint.Group:
			left++
		case i >= len(judged):
			continue // templates and the like beside the constraints
		default:
			p.manifests = append(p.manifests, found)
		}
		if group == "" && found.object.GetKind() == "Namespace" {
			namespace := new(corev1.Namespace)
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(found.object.Object, namespace); err != nil {
				return policy{}, fmt.Errorf("%s: %w", found.file, err)
			}
			p.namespaces[namespace.Name] = namespace
		}
	}
	if left > 0 {
		g.remark("%s of other policies left out", count(left, "constraint"))
	}
	if len(p.constraints) == 0 {
		return policy{}, usage("no constraint of oke-sign found", "name a file or directory of constraints with --constraints")
	}
	if len(p.manifests) == 0 { // such as what is left of a renderer that failed
		return policy{}, &refusal{errors.New("no object to judge"), "name manifests with -f; what renders them may have failed and written nothing"}
	}
	return p, nil
}

// readFiles reads manifests. Directories are read with what lies deeper in them if
// recursive is set.
func (g *global) readFiles(ctx context.Context, paths []string, recursive bool) ([]document, error) {
	var found []document
	for _, path := range paths {
		files := []string{path}
		if info, err := os.Stat(path); path != "-" && err == nil && info.IsDir() {
			if files, err = manifestsBelow(path, recursive); err != nil {
				return nil, err
			}
		}
		for _, file := range files {
			text, err := readInput(ctx, g.streams.In, file)
			if err != nil {
				return nil, err
			}
			located, err := manifest.Locate(text)
			if err != nil {
				return nil, &refusal{fmt.Errorf("%s: %w", file, err), "every file must hold Kubernetes objects; of charts and kustomizations check what they render"}
			}
			for _, l := range located {
				found = append(found, document{file, l.Object, l.Lines})
			}
		}
	}
	return found, nil
}

// manifestsBelow are the files of a directory that hold manifests by their name:
// by what it ends in, or one of other names.
func manifestsBelow(dir string, recursive bool, names ...string) ([]string, error) {
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

// readInput reads a file as readFile does, until ctx ends: what is piped in may never
// end.
func readInput(ctx context.Context, in io.Reader, file string) ([]byte, error) {
	type input struct {
		text []byte
		err  error
	}
	read := make(chan input, 1)
	go func() { // a read of a pipe cannot be broken off
		text, err := readFile(in, file)
		read <- input{text, err}
	}()
	select {
	case i := <-read:
		return i.text, i.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readFile reads a file of at most maxManifest bytes; "-" is the input.
func readFile(in io.Reader, file string) ([]byte, error) {
	from := in
	if file != "-" {
		f, err := os.Open(file) //nolint:gosec // the user names it
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // it is only read
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxManifest+1))
	if err == nil && len(text) > maxManifest {
		err = fmt.Errorf("more than %d bytes", maxManifest)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return text, nil
}

// Verdicts that were recorded, as the recorded templates read them.
const recordName, recordKey = "oke-sign-verdicts", "verdicts.json"

type recorded struct {
	Question question `json:"question"`
	Verdict  any      `json:"verdict"`
}

// question is what a policy asks about an image: whether one of the keys has
// signed it, or, without keys, what scans say of it.
type question struct {
	Image string   `json:"image"`
	Keys  []string `json:"keys,omitempty"`
}

// key is the question as a policy spells it.
func (q question) key() string {
	if q.Keys != nil {
		return gatekeeper.Question(q.Image, q.Keys)
	}
	return gatekeeper.ScanQuestion(q.Image)
}

// readRecord reads a record of verdicts. Two verdicts on one question are none.
func readRecord(in io.Reader, file string) (map[string]any, error) {
	text, err := readFile(in, file)
	if err != nil {
		return nil, err
	}
	object, err := manifest.Object(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	list, ok, err := unstructured.NestedString(object.Object, "data", recordKey)
	if err != nil || !ok || object.GetKind() != "ConfigMap" || object.GetName() != recordName {
		return nil, &refusal{fmt.Errorf("%s is no ConfigMap %s with %s", file, recordName, recordKey), "kubectl oke-sign verdicts writes it"}
	}
	var entries []recorded
	decoder := json.NewDecoder(strings.NewReader(list))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&entries); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", file, recordKey, err)
	}
	if decoder.More() {
		return nil, fmt.Errorf("%s: %s: %w", file, recordKey, errors.New("more than one list"))
	}
	verdicts := make(map[string]any, len(entries))
	for _, entry := range entries {
		key := entry.Question.key()
		if _, again := verdicts[key]; again {
			return nil, fmt.Errorf("%s: two verdicts on %s", file, key)
		}
		verdicts[key] = entry.Verdict
	}
	return verdicts, nil
}
