package cmd_test

import (
	"encoding/json"
	"errors"
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

// What the cluster refuses is not done, and an object that somebody else has
// changed since it was looked at is left alone.
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
			[]string{"error: default/Deployment/web: somebody else has changed it meanwhile, so it was left as it is", "hint: run the command again"}, 2},
		"not allowed": {apierrors.NewForbidden(resource, "web", errors.New(`admission webhook "validation.gatekeeper.sh" denied the request: [glass] break-glass: not-allowed: only these`)), nil,
			[]string{"error: default/Deployment/web: the cluster refuses it: ", "[glass] break-glass: not-allowed", "hint: the constraint OKEBreakGlass says who may"}, 1},
		"no right": {apierrors.NewForbidden(resource, "web", errors.New("User cannot patch")), nil, []string{"hint: who breaks the glass needs the right to patch Deployments"}, 1},
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
