package fakeapiserver

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/test/pki"
)

// Object is an object of Kubernetes in decoded JSON.
type Object = map[string]any

// The collections whose objects a Guarded stores, as API paths.
const (
	Secrets   = "api/v1/namespaces/oke-sign/secrets"
	Webhooks  = "apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
	Providers = "apis/externaldata.gatekeeper.sh/v1beta1/providers"
)

// Guarded is a running API server for the provider's program: HTTPS, one service
// account, and a check of rights for each request.
//
// Resource versions rise, and a write with an old version is a conflict. Watches
// report every change in order. An applied object belongs to its field manager.
// Guarded stores objects of the three collections above and has no discovery. Its
// server-side apply only replaces the fields in the request.
type Guarded struct {
	// Host and Port are the address. Dir has the mounted service account.
	Host, Port, Dir string

	tb     testing.TB
	rights []string
	token  string

	mu       sync.Mutex
	version  int
	objects  map[string]Object // by collection/name
	events   []event
	changed  chan struct{} // closed at each change
	fail     func(verb, object string) int
	asked    []string
	managers map[string]string
}

type event struct {
	version int
	path    string
	kind    string
	object  Object
}

// StartGuarded runs a server until the test ends. A right is a verb and the path of
// an object: "get api/v1/namespaces/oke-sign/secrets/tls". For the verb create it is
// the path of a collection.
func StartGuarded(tb testing.TB, rights ...string) *Guarded {
	tb.Helper()
	s := &Guarded{
		tb: tb, rights: rights, token: "service-account-token", Dir: tb.TempDir(),
		objects: make(map[string]Object), managers: make(map[string]string), changed: make(chan struct{}),
	}
	ca, err := pki.NewAuthority("kubernetes")
	if err != nil {
		tb.Fatal(err)
	}
	pair, err := ca.Issue(pki.Leaf{Names: []string{"127.0.0.1"}})
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := pair.TLS()
	if err != nil {
		tb.Fatal(err)
	}
	for name, content := range map[string][]byte{"token": []byte(s.token), "ca.crt": ca.PEM()} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	tb.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	if s.Host, s.Port, err = net.SplitHostPort(server.Listener.Addr().String()); err != nil {
		tb.Fatal(err)
	}
	return s
}

// Fail makes requests fail with the status that f returns for a verb and a path.
// Status 0 is no failure. A nil f ends the failures.
func (s *Guarded) Fail(f func(verb, object string) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Asked returns the requests so far, as verb and path.
func (s *Guarded) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// Manager returns the last field manager that applied an object.
func (s *Guarded) Manager(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.managers[path]
}

// Set creates or replaces an object, without a check of rights.
func (s *Guarded) Set(path string, object any) {
	s.tb.Helper()
	data, err := json.Marshal(object)
	var o Object
	if err == nil {
		err = json.Unmarshal(data, &o)
	}
	if err != nil {
		s.tb.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(path, o)
}

// Delete removes an object if it exists.
func (s *Guarded) Delete(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[path]; ok {
		delete(s.objects, path)
		s.tell(path, "DELETED", o)
	}
}

// Get reads an object into a struct, and reports whether the object exists.
func (s *Guarded) Get(path string, into any) bool {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[path]
	if !ok {
		return false
	}
	data, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		s.tb.Fatal(err)
	}
	return true
}

// store stores an object. The caller holds mu.
func (s *Guarded) store(path string, o Object) {
	meta, _ := o["metadata"].(Object)
	if meta == nil {
		meta = Object{}
		o["metadata"] = meta
	}
	meta["name"] = path[strings.LastIndexByte(path, '/')+1:]
	kind, generation := "ADDED", 1.0
	if old, ok := s.objects[path]; ok {
		kind = "MODIFIED"
		generation, _ = old["metadata"].(Object)["generation"].(float64)
		if !reflect.DeepEqual(old["spec"], o["spec"]) {
			generation++
		}
	}
	meta["generation"] = generation
	s.objects[path] = o
	s.tell(path, kind, o)
}

func (s *Guarded) tell(path, kind string, o Object) {
	s.version++
	data, err := json.Marshal(o)
	var copied Object
	if err == nil {
		err = json.Unmarshal(data, &copied)
	}
	if err != nil {
		panic(err) // the object came from JSON
	}
	version := strconv.Itoa(s.version)
	for _, m := range []Object{o, copied} {
		m["metadata"].(Object)["resourceVersion"] = version
	}
	s.events = append(s.events, event{s.version, path, kind, copied})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Guarded) serve(w http.ResponseWriter, r *http.Request) {
	collection, name := strings.TrimPrefix(r.URL.Path, "/"), ""
	if !slices.Contains([]string{Secrets, Webhooks, Providers}, collection) {
		at := strings.LastIndexByte(collection, '/')
		collection, name = collection[:max(at, 0)], collection[at+1:]
	}
	query := r.URL.Query()
	watched := query.Get("watch") == "true" || query.Get("watch") == "1"
	verb := map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch"}[r.Method]
	path := collection + "/" + name
	if name == "" && r.Method == http.MethodGet {
		verb = "list"
		if watched {
			verb = "watch"
		}
		name, _ = strings.CutPrefix(query.Get("fieldSelector"), "metadata.name=")
		path = collection + "/" + name
	}
	path = strings.TrimSuffix(path, "/")

	s.mu.Lock()
	s.asked = append(s.asked, verb+" "+path)
	status, fail := 0, s.fail
	switch {
	case r.Header.Get("Authorization") != "Bearer "+s.token:
		status = http.StatusUnauthorized
	case !slices.Contains(s.rights, verb+" "+path):
		status = http.StatusForbidden
	}
	s.mu.Unlock()
	if status == 0 && fail != nil {
		status = fail(verb, path)
	}
	if status != 0 {
		refuse(w, status, verb+" "+path)
		return
	}
	if watched {
		s.watch(w, r, path)
		return
	}
	var body Object
	if r.Method != http.MethodGet {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			refuse(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch verb {
	case "list":
		items := []Object{}
		if o, ok := s.objects[path]; ok {
			items = append(items, o)
		}
		write(w, http.StatusOK, Object{"metadata": Object{"resourceVersion": strconv.Itoa(s.version)}, "items": items})
		return
	case "create":
		path += "/" + fmt.Sprint(body["metadata"].(Object)["name"])
	}
	old, exists := s.objects[path]
	switch {
	case verb == "create" && exists:
		refuse(w, http.StatusConflict, "AlreadyExists")
		return
	case (verb == "get" || verb == "update") && !exists:
		refuse(w, http.StatusNotFound, path)
		return
	case verb == "update" && body["metadata"].(Object)["resourceVersion"] != old["metadata"].(Object)["resourceVersion"]:
		refuse(w, http.StatusConflict, path)
		return
	case verb == "patch":
		if exists {
			body["status"] = old["status"]
		}
		s.managers[path] = query.Get("fieldManager")
	}
	if verb != "get" {
		s.store(path, body)
	}
	write(w, http.StatusOK, s.objects[path])
}

// watch sends the changes of one object.
func (s *Guarded) watch(w http.ResponseWriter, r *http.Request, path string) {
	since, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "resourceVersion")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	flusher := http.NewResponseController(w)
	for {
		s.mu.Lock()
		var news []event
		for _, e := range s.events {
			if e.version > since && e.path == path {
				news = append(news, e)
			}
		}
		since = s.version
		changed := s.changed
		s.mu.Unlock()
		for _, e := range news {
			e.object["apiVersion"], e.object["kind"] = "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"
			if json.NewEncoder(w).Encode(Object{"type": e.kind, "object": e.object}) != nil {
				return
			}
		}
		_ = flusher.Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func refuse(w http.ResponseWriter, status int, message string) {
	reason := map[int]metav1.StatusReason{
		http.StatusUnauthorized: metav1.StatusReasonUnauthorized, http.StatusForbidden: metav1.StatusReasonForbidden,
		http.StatusNotFound: metav1.StatusReasonNotFound, http.StatusConflict: metav1.StatusReasonConflict,
		http.StatusInternalServerError: metav1.StatusReasonInternalError,
	}[status]
	if message == string(metav1.StatusReasonAlreadyExists) {
		reason = metav1.StatusReasonAlreadyExists
	}
	fail(w, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: int32(status), Reason: reason,
		Message: message + " is " + strings.ToLower(string(reason)),
	}})
}
