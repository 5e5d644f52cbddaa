package doctor_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/cmd/doctor"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
	"github.com/oke-sign/oke-sign/test/pki"
	"github.com/oke-sign/oke-sign/test/soundcluster"
)

const (
	soundKey = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a"
	otherKey = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jother"
)

// Objects of the sound cluster, and fields of them.
const (
	webhook       = "ValidatingWebhookConfiguration/gatekeeper-validating-webhook-configuration"
	mutation      = "MutatingWebhookConfiguration/gatekeeper-mutating-webhook-configuration"
	manager       = "Deployment/gatekeeper-controller-manager"
	audit         = "Deployment/gatekeeper-audit"
	guard         = "ValidatingAdmissionPolicy/oke-sign-namespace-labels"
	bound         = "ValidatingAdmissionPolicyBinding/oke-sign-namespace-labels"
	signed        = "OKESignedImages/signed"
	glass         = "OKEBreakGlass/glass"
	scanned       = "OKEScannedImages/scanned"
	provider      = "Provider/oke-sign"
	scansProvider = "Provider/oke-sign-scans"
	digests       = "Provider/oke-sign-digests"
	secret        = "Secret/oke-sign-tls"
	pin           = "Assign/pin"

	args         = "spec,template,spec,containers,0,args"
	managerImage = "spec,template,spec,containers,0,image"
)

var (
	forbidden = apierrors.NewForbidden(schema.GroupResource{Resource: "objects"}, "", errors.New("you may not"))
	broken    = apierrors.NewInternalError(errors.New("etcd is gone"))
	errLate   = fmt.Errorf("asking: %w", context.DeadlineExceeded)
)

// row is a change to the sound cluster, and what a check then tells: one line with the
// state and the text for each finding, and one with an arrow for what to do about it.
type row struct {
	change change
	want   []string
}

type (
	world  = doctor.World
	change func(*world)
)

// told runs a check on each changed cluster, and compares all that users see of it.
func told(t *testing.T, check string, rows map[string]row) {
	t.Helper()
	for name, tc := range rows {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tc.change(w)
			found, err := w.Findings(check)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, lines(found)); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

var moment = regexp.MustCompile(`\d{4}-\d\d-\d\dT?[ 0-9:]*Z?`)

// lines are findings as told writes them. Times depend on when the test runs.
func lines(found []doctor.Finding) []string {
	var all []string
	for _, x := range found {
		all = append(all, x.State+": "+moment.ReplaceAllString(x.Detail, "TIME"))
		if x.Fix != "" {
			all = append(all, "-> "+x.Fix)
		}
	}
	return all
}

var soundObjects = sync.OnceValues(func() ([]*unstructured.Unstructured, error) {
	return soundcluster.Objects(soundKey, "oke-sign.oke-sign.svc")
})

// newWorld is a cluster in which every check holds.
func newWorld(t *testing.T) *world {
	t.Helper()
	objects, err := soundObjects()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Objects: make(map[string]*unstructured.Unstructured), Unread: make(map[string]error), Now: time.Now()}
	for _, o := range objects {
		w.Objects[o.GetKind()+"/"+o.GetName()] = o.DeepCopy()
	}
	at(glass, true, "spec,parameters,requireDigest")(w)
	return w
}

func sound(*world) {}

func all(changes ...change) change {
	return func(w *world) {
		for _, c := range changes {
			c(w)
		}
	}
}

// at sets a field of an object, or removes it if value is nil. A path is names and
// indexes, joined by commas.
func at(object string, value any, path string) change {
	return func(w *world) {
		o := w.Objects[object]
		if o == nil {
			panic("there is no " + object)
		}
		o.Object = set(o.Object, value, strings.Split(path, ",")).(map[string]any)
	}
}

func set(in, value any, path []string) any {
	if len(path) == 0 {
		return value
	}
	if list, ok := in.([]any); ok {
		i, err := strconv.Atoi(path[0])
		if err != nil {
			panic(err)
		}
		list[i] = set(list[i], value, path[1:])
		return list
	}
	fields, ok := in.(map[string]any)
	if !ok {
		fields = make(map[string]any)
	}
	if fields[path[0]] = set(fields[path[0]], value, path[1:]); fields[path[0]] == nil {
		delete(fields, path[0])
	}
	return fields
}

// field is the text that at would set.
func field(w *world, object string, path ...string) string {
	text, _, _ := unstructured.NestedString(w.Objects[object].Object, path...)
	return text
}

func gone(object string) change {
	return func(w *world) {
		if w.Objects[object] == nil {
			panic("there is no " + object)
		}
		delete(w.Objects, object)
	}
}

func add(text string) change {
	return func(w *world) {
		objects, err := manifest.Objects([]byte(text))
		if err != nil {
			panic(err)
		}
		for _, o := range objects {
			w.Objects[o.GetKind()+"/"+o.GetName()] = o
		}
	}
}

// more adds a constraint on signatures.
func more(spec string) change {
	return add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: more}, spec: {" + spec + "}}")
}

// web has a Pod run in a namespace.
func web(namespace string) change {
	return add("{apiVersion: v1, kind: Namespace, metadata: {name: " + namespace + "}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: " + namespace + ", labels: {app: web}}}")
}

func unread(what string, err error) change { return func(w *world) { w.Unread[what] = err } }

func behind(d time.Duration) change { return func(w *world) { w.Behind = d } }

// elsewhere has the provider in another namespace.
func elsewhere(w *world) { w.Home = "signing" }

// auth has the provider sign in as its arguments say.
func auth(kind string) change {
	return all(at("Pod/oke-sign-1", []any{"--auth=" + kind}, "spec,containers,0,args"), at("Pod/oke-sign-2", []any{"--auth=" + kind}, "spec,containers,0,args"))
}

// scans adds a constraint on scans and the Provider that it asks, as they should be.
func scans(w *world) {
	add(`
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKEScannedImages
metadata: {name: scanned}
spec:
  enforcementAction: deny
  match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}
status: {auditTimestamp: "2026-01-01T00:00:00Z", byPod: [{id: a, enforced: true}]}
---
apiVersion: externaldata.gatekeeper.sh/v1beta1
kind: Provider
metadata: {name: oke-sign-scans}
spec: {url: "https://oke-sign.oke-sign.svc:8443/v1/scans", timeout: 1, caBundle: ` + field(w, provider, "spec", "caBundle") + `}
status: {byPod: [{id: a, active: true}]}
`)(w)
}

// recorded puts the template for recorded verdicts in the place of the real one.
func recorded(w *world) {
	text, err := policies.Recorded.ReadFile("okesignedimages/recorded/template.yaml")
	if err != nil {
		panic(err)
	}
	add(string(text))(w)
	at("ConstraintTemplate/okesignedimages", true, "status,created")(w)
}

// running has an image run, with what the cluster would do with it today.
func running(ref, result string, reason verdict.Reason) change {
	return func(w *world) {
		s := &simulate.ImageStatus{Image: ref, Registry: image.OCIRegistry.String(), Result: result, Verdict: &verdict.Verdict{Reason: reason}}
		if result == simulate.DeniedImage {
			s.Violations = []workload.Violation{{Kind: policies.SignedImages, Constraint: "signed", Action: "deny", Reason: string(reason)}}
		}
		w.Running = append(w.Running, s)
	}
}

// scan has an image run of which a scan is known, or not, for a reason.
func scan(known bool, reason vulnreport.Reason) change {
	return func(w *world) {
		w.Running = append(w.Running, &simulate.ImageStatus{
			Image: "iad.ocir.io/idwpqivumvev/a", Registry: image.OCIRegistry.String(), Result: simulate.AllowedImage,
			Scan: &vulnreport.Report{Known: known, Reason: reason},
		})
	}
}

// vaultKey has OCI Vault answer about the key of the sound cluster.
func vaultKey(edit func(*doctor.Key)) change {
	return func(w *world) {
		k := doctor.Key{ID: soundKey}
		k.Key.Name, k.Key.State, k.Key.Algorithm = "image-key", verdict.Enabled, "RSA"
		k.Key.Versions = []vault.Version{{State: verdict.Enabled}}
		edit(&k)
		w.Keys = append(w.Keys, k)
	}
}

func healthy(*doctor.Key) {}

// okePolicy is OKE's own policy, on or off.
func okePolicy(on bool, keys ...string) change {
	return func(w *world) {
		id, err := okecluster.ParseID("ocid1.cluster.oc1.iad.aaaaaaaaprod")
		if err != nil {
			panic(err)
		}
		w.OKE = &okecluster.Cluster{ID: id, Policy: okecluster.Policy{Enabled: on}}
		for _, k := range keys {
			key, err := signature.ParseKeyID(k)
			if err != nil {
				panic(err)
			}
			w.OKE.Policy.Keys = append(w.OKE.Policy.Keys, key)
		}
	}
}

func pemOf(block, text string) string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: block, Bytes: []byte(text)}))
}

// beside puts a block before the certificates in a field of an object.
func beside(object, block string, path ...string) change {
	return func(w *world) {
		both := ""
		for _, encoded := range []string{pemOf(block, "x"), field(w, object, path...)} {
			text, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				panic(err)
			}
			both += string(text)
		}
		at(object, base64.StdEncoding.EncodeToString([]byte(both)), strings.Join(path, ","))(w)
	}
}

// otherCA has the Provider trust an authority that is not the certificate's.
func otherCA(w *world) {
	authority, err := pki.NewAuthority("other")
	if err != nil {
		panic(err)
	}
	at(provider, base64.StdEncoding.EncodeToString(authority.PEM()), "spec,caBundle")(w)
}

// lasting has the provider show a certificate for a month.
func lasting(w *world) {
	authority, err := pki.NewAuthority("provider")
	if err != nil {
		panic(err)
	}
	pair, err := authority.Issue(pki.Leaf{Names: []string{"oke-sign.oke-sign.svc"}, NotAfter: time.Now().Add(30 * 24 * time.Hour)})
	if err != nil {
		panic(err)
	}
	at(provider, base64.StdEncoding.EncodeToString(authority.PEM()), "spec,caBundle")(w)
	at(secret, base64.StdEncoding.EncodeToString(pair.Cert), "data,tls.crt")(w)
}

// earlier has it be long before the certificates end.
func earlier(d time.Duration) change { return func(w *world) { w.Now = w.Now.Add(-d) } }

// In a sound cluster nothing weakens the policy, and each check says what it looked at.
func TestASoundCluster(t *testing.T) {
	found, err := newWorld(t).Findings("")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range found {
		switch {
		case x.Check == "OKE image policy" && x.State == "skipped":
		case x.State == "warns" && strings.Contains(x.Detail, " expires "): // its certificates are made for a day
		case x.State != "holds":
			t.Errorf("%s %s: %s", x.State, x.Check, x.Detail)
		case x.Detail == "" || x.Fix != "":
			t.Errorf("%s holds: %q, with a fix %q", x.Check, x.Detail, x.Fix)
		}
	}
	for _, check := range doctor.Checks() {
		if check != "keys" && !slices.ContainsFunc(found, func(x doctor.Finding) bool { return x.Check == check }) { // OCI answered nothing
			t.Errorf("%s says nothing", check)
		}
	}
}
