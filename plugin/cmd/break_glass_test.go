package cmd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cmd"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
)

// A change that the cluster denies is not made. An object that another user has
// changed since the command read it stays unchanged.
func TestBreakGlassRefused(t *testing.T) {
	web := `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default", "resourceVersion": "7"},
		"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "iad.ocir.io/ns/web:v1"}]}}}}`
	resource := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for name, tc := range map[string]struct {
		dry, real error
		says      []string
		patches   int
	}{
		"done": {nil, nil, []string{`"result": "set"`}, 2},
		"somebody else was faster": {nil, apierrors.NewConflict(resource, "web", errors.New("modified")),
			[]string{"error: default/Deployment/web: somebody else changed it in the meantime, so it was not changed", "hint: run the command again"}, 2},
		"not allowed": {apierrors.NewForbidden(resource, "web", errors.New(`admission webhook "validation.gatekeeper.sh" denied the request: [glass] break-glass: not-allowed: only these`)), nil,
			[]string{"error: default/Deployment/web: the cluster denies it: ", "[glass] break-glass: not-allowed", "hint: OKEBreakGlass limits who may"}, 1},
		"no right": {apierrors.NewForbidden(resource, "web", errors.New("User cannot patch")), nil, []string{"hint: break-glass needs the right to patch Deployments"}, 1},
	} {
		server := fakeapiserver.Start(t)
		kubeconfig, err := server.Kubeconfig(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		patches := 0
		server.Handle("/apis/apps/v1/namespaces/default/deployments/web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if r.Method == http.MethodPatch {
				patches++
				body, _ := io.ReadAll(r.Body)
				if !strings.Contains(string(body), `"metadata":{"resourceVersion":"7"}`) {
					t.Errorf("%s: a patch of any version: %s", name, body)
				}
				err := tc.real
				if r.URL.Query().Get("dryRun") == "All" {
					err = tc.dry
				}
				var status apierrors.APIStatus
				if errors.As(err, &status) {
					s := status.Status()
					s.Kind, s.APIVersion = "Status", "v1"
					w.WriteHeader(int(s.Code))
					_ = json.NewEncoder(w).Encode(s)
					return
				}
			}
			_, _ = io.WriteString(w, web)
		}))
		streams, _, out, errOut := genericiooptions.NewTestIOStreams()
		code := cmd.Run(t.Context(), cmd.Config{
			Args:    []string{"break-glass", "deployment/web", "--reason", "INC-1", "--for", "1h", "--yes", "-o", "json", "--kubeconfig", kubeconfig},
			Streams: streams, Getenv: func(string) string { return "" },
		})
		want := 1
		if name == "done" {
			want = 0
		}
		if code != want || patches != tc.patches {
			t.Errorf("%s: exit code %d after %d patches, want %d after %d", name, code, patches, want, tc.patches)
		}
		for _, text := range tc.says {
			if !strings.Contains(out.String()+errOut.String(), text) {
				t.Errorf("%s: no %q in\n%s%s", name, text, out, errOut)
			}
		}
	}
}

// During an incident, controllers keep writing the status of a workload. Break-glass
// succeeds in spite of that.
func TestBreakGlassWhileTheStatusChanges(t *testing.T) {
	const deployment = `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "%d"},
		"spec": {"replicas": 1, "template": {"metadata": {"annotations": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "iad.ocir.io/ns/web:v1"}]}}},
		"status": {"observedGeneration": %[1]d}}`
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "%d", "annotations": {"a": "b"}},
		"spec": {"containers": [{"name": "c", "image": "iad.ocir.io/ns/web:v1"}]}, "status": {"message": "%[1]d"}}`
	for name, tc := range map[string]struct {
		object  string
		changed [2]string // changes to the object while the command reads it
		code    int
	}{
		"the status":                {object: deployment},
		"the status of a Pod":       {object: pod},
		"the image":                 {deployment, [2]string{"web:v1", "web:v2"}, 1},
		"the image of a Pod":        {pod, [2]string{"web:v1", "web:v2"}, 1},
		"an annotation":             {deployment, [2]string{`{"a": "b"}`, `{"a": "b", "oracle.image-policy.k8s.io/break-glass": "true"}`}, 1},
		"an annotation of a Pod":    {pod, [2]string{`{"a": "b"}`, `{"a": "b", "oracle.image-policy.k8s.io/break-glass": "true"}`}, 1},
		"the object, created again": {deployment, [2]string{`"uid": "u"`, `"uid": "v"`}, 1},
		"the owner":                 {deployment, [2]string{`"uid": "u"`, `"uid": "u", "ownerReferences": [{"apiVersion": "x/v1", "kind": "Rollout", "name": "web", "uid": "w", "controller": true}]`}, 1},
	} {
		server := fakeapiserver.Start(t)
		kubeconfig, err := server.Kubeconfig(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		version, written := 7, 0
		path, target := "/apis/apps/v1/namespaces/default/deployments/web", "deployment/web"
		if tc.object == pod {
			path, target = "/api/v1/namespaces/default/pods/web", "pod/web"
		}
		server.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			object := fmt.Sprintf(tc.object, version)
			if version > 7 {
				object = strings.Replace(object, tc.changed[0], tc.changed[1], 1)
			}
			if r.Method == http.MethodPatch {
				body, _ := io.ReadAll(r.Body)
				if version < 9 { // the object changes twice while this command runs
					version++
				}
				if !strings.Contains(string(body), fmt.Sprintf(`"resourceVersion":"%d"`, version)) || version < 9 {
					s := apierrors.NewConflict(schema.GroupResource{Group: "apps", Resource: "deployments"}, "web", errors.New("modified")).Status()
					s.Kind, s.APIVersion = "Status", "v1"
					w.WriteHeader(int(s.Code))
					_ = json.NewEncoder(w).Encode(s)
					return
				}
				if r.URL.Query().Get("dryRun") == "" {
					written++
				}
			}
			_, _ = io.WriteString(w, object)
		}))
		streams, _, _, errOut := genericiooptions.NewTestIOStreams()
		code := cmd.Run(t.Context(), cmd.Config{
			Args:    []string{"break-glass", target, "--reason", "INC-1", "--for", "1h", "--yes", "--kubeconfig", kubeconfig},
			Streams: streams, Getenv: func(string) string { return "" },
		})
		if code != tc.code || written != 1-tc.code {
			t.Errorf("%s changed: exit code %d, %d changes made, want %d: %s", name, code, written, tc.code, errOut)
		}
		if tc.code == 1 && !strings.Contains(errOut.String(), "somebody else changed it in the meantime") {
			t.Errorf("%s changed: said %s", name, errOut)
		}
	}
}
