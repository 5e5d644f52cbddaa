package workload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
)

// inCluster returns a session in a cluster with these objects, and its remarks.
func inCluster(t *testing.T, text string) (*connect.Session, *fakeapiserver.Server, *bytes.Buffer) {
	t.Helper()
	server := fakeapiserver.Start(t)
	kubeconfig, err := server.Kubeconfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	objects, err := manifest.Objects([]byte(text))
	if err == nil {
		err = server.Add(objects...)
	}
	if err != nil {
		t.Fatal(err)
	}
	streams, _, _, errOut := genericiooptions.NewTestIOStreams()
	s := &connect.Session{Terminal: cli.Terminal{Streams: streams}, Kube: connect.NewKube(errOut)}
	*s.Kube.KubeConfig = kubeconfig
	return s, server, errOut
}

// failing returns a hook that answers requests with an error of the API server if
// their path has this suffix.
func failing(suffix string, code int, reason metav1.StatusReason) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": %q, "code": %d, "message": "said the API server"}`, reason, code)
		return true
	}
}

// targetFlags returns the flags and arguments of a command line.
func targetFlags(t *testing.T, s *connect.Session, args ...string) (*workload.TargetFlags, []string) {
	t.Helper()
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	s.Bind(set, func(string) string { return "" })
	flags := new(workload.TargetFlags)
	kubeconfig := *s.Kube.KubeConfig
	flags.Bind(set, s.Kube)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	*s.Kube.KubeConfig = kubeconfig
	return flags, set.Args()
}

// Flags and arguments that contradict each other, or name nothing, are usage errors.
func TestTargetFlags(t *testing.T) {
	for line, want := range map[string]string{
		"iad.ocir.io/ns/web:1":           "",
		"deployment/web":                 "",
		"deployments -A":                 "",
		"pods -l app=web":                "",
		"-f web.yaml":                    "",
		"-k overlays/prod":               "",
		"":                               "no image named",
		"-A":                             "no type of them is named",
		"-l app=web iad.ocir.io/ns/w:1":  "no type of them is named",
		"deployment/web -A":              "an object is named",
		"deployment/web pods -l app=web": "an object is named",
		"pods -l =web":                   "is no label selector",
	} {
		flags, args := targetFlags(t, &connect.Session{Kube: connect.NewKube(&bytes.Buffer{})}, strings.Fields(line)...)
		err := flags.Validate(args, "IMAGE")
		var said bytes.Buffer
		if code := cli.Report(&said, err); (code == cli.ExitUsage) != (want != "") || !strings.Contains(said.String(), want) {
			t.Errorf("%q: got %d, %s, want %q", line, code, &said, want)
		}
		if want != "" && !strings.Contains(said.String(), "hint: ") {
			t.Errorf("%q: no hint in %s", line, &said)
		}
	}
}

const shop = `
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: default, labels: {app: web}}, spec: {template: {spec: {containers: [{name: c, image: "web:1"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: db, namespace: default}, spec: {template: {spec: {containers: [{name: c, image: "db:1"}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: prod, labels: {app: web}}, spec: {template: {spec: {containers: [{name: c, image: "web:2"}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: odd, namespace: prod}, spec: {containers: [{name: c, image: ["hidden:1"]}]}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, namespace: default}}
`

// Find reads images from objects of the cluster, in the namespace of -n or in all. A
// missing or unreadable object is an error.
func TestFindInCluster(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good/kustomization.yaml":   "resources: [pod.yaml]\nimages: [{name: app, newTag: '2'}]\n",
		"good/pod.yaml":             "{apiVersion: v1, kind: Pod, metadata: {name: app}, spec: {containers: [{name: c, image: app}]}}",
		"broken/kustomization.yaml": "resources: [gone.yaml]\n",
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		line   string
		ctx    context.Context
		before func(http.ResponseWriter, *http.Request) bool
		want   string
		err    string
		says   string
	}{
		"an object": {line: "deployment/web", want: "web:1"},
		"an object by the short name of its type": {line: "deploy/web", want: "web:1"},
		"an object of another namespace":          {line: "-n prod deployment/web", want: "web:2"},
		"two objects":                             {line: "deployment/web deployment/db", want: "web:1 db:1"},
		"all of a type, by a label":               {line: "deployments -l app=web", want: "web:1"},
		"all of a type in all namespaces":         {line: "deployments -A", want: "db:1 web:1 web:2"},
		"a type and an image":                     {line: "deployments -l app=web iad.ocir.io/ns/x:1", want: "iad.ocir.io/ns/x:1 web:1"},
		"a kustomization, with the object":        {line: "deployment/db -k " + filepath.Join(dir, "good"), want: "app:2 db:1"},
		"a kustomization that does not render":    {line: "-k " + filepath.Join(dir, "broken"), err: "rendering"},
		"a missing object":                        {line: "deployment/gone", err: `"gone" not found`},
		"a present and a missing object":          {line: "deployment/web deployment/gone", err: `"gone" not found`},
		"an unknown type":                         {line: "gadgets/web", err: "gadgets"},
		"an unknown namespace":                    {line: "-n gone deployments", err: "no object found"},
		"a label without objects":                 {line: "deployments -l app=gone", err: "no object found"},
		"an object without images":                {line: "configmap/settings", err: "no image found in the objects"},
		"an object that cannot be read":           {line: "-n prod pod/odd", err: "prod/Pod/odd"},
		"a word that could be a type":             {line: "nginx", want: "nginx", says: "nginx is taken for an image"},
		"a user who may not read it": {
			line: "deployment/web", before: failing("/deployments/web", 403, metav1.StatusReasonForbidden), err: "said the API server",
		},
		"an expired token":       {line: "deployments -A", before: failing("/deployments", 401, metav1.StatusReasonUnauthorized), err: "said the API server"},
		"a server that fails":    {line: "deployments -A", before: failing("/deployments", 500, metav1.StatusReasonInternalError), err: "said the API server"},
		"an interrupted command": {line: "deployments -A", ctx: cancelled, err: "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			s, server, says := inCluster(t, shop)
			server.Before(tc.before)
			flags, args := targetFlags(t, s, strings.Fields(tc.line)...)
			ctx := tc.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			found, err := flags.Find(ctx, s, args)
			if got := strings.Join(workload.ImagesOf(found), " "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) || !strings.Contains(says.String(), tc.says) {
				t.Errorf("got %v, said %q; want %q, %q", err, says, tc.err, tc.says)
			}
		})
	}
}

// The command finds owners only as far as the user may read them. Every other
// failure is an error, because nobody would find a Pod under a wrong name.
func TestWorkloadsOfOthers(t *testing.T) {
	owner := func(version, kind, name string) string {
		return fmt.Sprintf("ownerReferences: [{apiVersion: %s, kind: %s, name: %s, uid: u, controller: true}]", version, kind, name)
	}
	text := `
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-1, namespace: shop, ` + owner("apps/v1", "Deployment", "web") + `}}
---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: loop, namespace: shop, ` + owner("apps/v1", "ReplicaSet", "loop") + `}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, ` + owner("apps/v1", "ReplicaSet", "web-1") + `}}
---
{apiVersion: v1, kind: Pod, metadata: {name: loop, namespace: shop, ` + owner("apps/v1", "ReplicaSet", "loop") + `}}
`
	for name, tc := range map[string]struct {
		before func(http.ResponseWriter, *http.Request) bool
		want   []string
		says   string
		err    string
	}{
		"the user may read everything":        {nil, []string{"shop/ReplicaSet/loop", "shop/Deployment/web"}, "", ""},
		"a user who may not list ReplicaSets": {failing("/replicasets", 403, metav1.StatusReasonForbidden), []string{"shop/ReplicaSet/loop", "shop/ReplicaSet/web-1"}, "you may not list replicasets", ""},
		"a server that fails":                 {failing("/replicasets", 500, metav1.StatusReasonInternalError), nil, "", "listing replicasets"},
		"a user who may not list Pods":        {failing("/pods", 403, metav1.StatusReasonForbidden), nil, "", "listing pods"},
		"an expired list":                     {failing("/replicasets", 410, metav1.StatusReasonExpired), nil, "", "listing replicasets"},
	} {
		s, server, says := inCluster(t, text)
		server.Before(tc.before)
		pods, err := workload.RunningPods(t.Context(), s, "", "")
		var owners []workload.ObjectName
		if err == nil {
			owners, err = workload.Workloads(t.Context(), s, "", pods)
		}
		var got []string
		for _, o := range owners {
			got = append(got, o.Title())
		}
		slices.Sort(got)
		slices.Sort(tc.want)
		if diff := cmp.Diff(tc.want, got); diff != "" || !strings.Contains(says.String(), tc.says) || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, said %q\n%s", name, err, says, diff)
		}
	}
}

// EachObject stops at the first error of the callback. The error names the listed
// type.
func TestEachObject(t *testing.T) {
	s, _, _ := inCluster(t, shop)
	client, err := s.Kube.Objects()
	if err != nil {
		t.Fatal(err)
	}
	of := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	enough := errors.New("enough")
	for name, tc := range map[string]struct {
		namespace string
		stopAt    int
		want      int
		err       error
	}{
		"all":                         {"", 0, 3, nil},
		"of a namespace":              {"prod", 0, 1, nil},
		"of a namespace that is gone": {"gone", 0, 0, nil},
		"a callback that fails":       {"", 2, 2, enough},
	} {
		got := 0
		err := workload.EachObject(t.Context(), client, of, tc.namespace, metav1.ListOptions{}, func(*unstructured.Unstructured) error {
			if got++; got == tc.stopAt {
				return enough
			}
			return nil
		})
		if got != tc.want || !errors.Is(err, tc.err) || err != nil && !strings.HasPrefix(err.Error(), "listing deployments: ") {
			t.Errorf("%s: %d objects, %v", name, got, err)
		}
	}
}

// Manifests are split into the objects to check and the policy that judges them.
func TestManifestFlags(t *testing.T) {
	errNone := errors.New("none")
	const (
		ours      = "{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: ours}}\n---\n"
		other     = "{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: K8sAllowedRepos, metadata: {name: other}}\n---\n"
		template  = "{apiVersion: templates.gatekeeper.sh/v1, kind: ConstraintTemplate, metadata: {name: t}}\n---\n"
		pod       = "{apiVersion: v1, kind: Pod, metadata: {name: web}}\n---\n"
		namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {env: prod}}}\n---\n"
		malformed = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {env: [prod]}}}\n---\n"
	)
	for name, tc := range map[string]struct {
		piped, beside string
		args          []string
		made          error  // of the constraints that the caller makes
		want          string // constraints, manifests, namespaces
		says          string
		err           string
	}{
		"manifests with their policy":                {piped: pod + ours, args: []string{"-f", "-"}, want: "ours; web; "},
		"a policy beside":                            {piped: pod, beside: ours, args: []string{"-f", "-", "--constraints", "FILE"}, want: "ours; web; "},
		"a template in the policy file":              {piped: pod, beside: template + ours, args: []string{"-f", "-", "--constraints", "FILE"}, want: "ours; web; "},
		"a template among the manifests":             {piped: pod + template + ours, args: []string{"-f", "-"}, want: "ours; web t; "},
		"a namespace is both":                        {piped: namespace + pod + ours, args: []string{"-f", "-"}, want: "ours; shop web; shop"},
		"a namespace in the policy file":             {piped: pod, beside: namespace + ours, args: []string{"-f", "-", "--constraints", "FILE"}, want: "ours; web; "},
		"constraints of other policies":              {piped: pod + ours + other + other, args: []string{"-f", "-"}, want: "ours; web; ", says: "2 constraints of other policies skipped"},
		"no policy":                                  {piped: pod + other, args: []string{"-f", "-"}, err: "no constraint of oke-sign found"},
		"no manifest":                                {piped: ours, args: []string{"-f", "-"}, err: "no object to check"},
		"empty input of a failed renderer":           {piped: "", args: []string{"-f", "-"}, err: "no constraint"},
		"a namespace that cannot be read":            {piped: malformed + pod + ours, args: []string{"-f", "-"}, err: "-: "},
		"a policy that cannot be read":               {piped: pod, beside: "[", args: []string{"-f", "-", "--constraints", "FILE"}, err: "FILE"},
		"manifests that cannot be read":              {piped: "[", args: []string{"-f", "-"}, err: "-: "},
		"constraints of the caller":                  {piped: pod, args: []string{"-f", "-"}, made: errNone, want: "made; web; "},
		"constraints that the caller cannot make":    {piped: pod, args: []string{"-f", "-"}, made: errors.New("no such key"), err: "no such key"},
		"constraints of the caller and of a file":    {piped: pod, beside: ours, args: []string{"-f", "-", "--constraints", "FILE"}, made: errNone, err: "has OKESignedImages/ours"},
		"constraints of the caller and of manifests": {piped: pod + ours, args: []string{"-f", "-"}, made: errNone, err: "has OKESignedImages/ours"},
		"a file without -f":                          {args: []string{"web.yaml"}, err: "no arguments are taken"},
		"no file":                                    {args: []string{"--constraints", "FILE"}, err: "-f is missing"},
		"a missing file":                             {args: []string{"-f", filepath.Join(t.TempDir(), "gone")}, err: "no such file"},
	} {
		file := filepath.Join(t.TempDir(), "FILE")
		if err := os.WriteFile(file, []byte(tc.beside), 0o600); err != nil {
			t.Fatal(err)
		}
		streams, in, _, says := genericiooptions.NewTestIOStreams()
		in.WriteString(tc.piped)
		var flags workload.ManifestFlags
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		flags.Bind(set)
		err := set.Parse(strings.Split(strings.ReplaceAll(strings.Join(tc.args, "\n"), "FILE", file), "\n"))
		var p workload.Input
		if err == nil {
			err = flags.Validate(set.Args())
		}
		if err == nil {
			var made func(context.Context) ([]workload.Document, error)
			if tc.made != nil {
				made = func(context.Context) ([]workload.Document, error) {
					object := &unstructured.Unstructured{}
					object.SetName("made")
					if !errors.Is(tc.made, errNone) {
						return nil, tc.made
					}
					return []workload.Document{{Object: object}}, nil
				}
			}
			p, err = flags.Read(t.Context(), &connect.Session{Terminal: cli.Terminal{Streams: streams}}, made)
		}
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) || len(p.Constraints)+len(p.Manifests) > 0 {
				t.Errorf("%s: got %v, want %q", name, err, tc.err)
			}
			continue
		}
		names := func(documents []workload.Document) string {
			var all []string
			for _, d := range documents {
				all = append(all, d.Object.GetName())
			}
			return strings.Join(all, " ")
		}
		got := names(p.Constraints) + "; " + names(p.Manifests) + "; "
		for name := range p.Namespaces {
			got += name
		}
		if err != nil || got != tc.want || !strings.Contains(says.String(), tc.says) {
			t.Errorf("%s: got %q, %v, said %q; want %q, %q", name, got, err, says, tc.want, tc.says)
		}
	}
}
