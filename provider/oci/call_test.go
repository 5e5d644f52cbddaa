package oci_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

var cloud *ocitest.Cloud

func TestMain(m *testing.M) { os.Exit(ocitest.Main(m, &cloud)) } //nolint:forbidigo // a test's main

// world is a tenancy for one test, with a user who has every right in it.
type world struct {
	*ocitest.Tenancy
	who *oci.Client

	mu       sync.Mutex
	attempts []string
}

func newWorld(t *testing.T, cfg oci.Config) *world {
	t.Helper()
	w := &world{Tenancy: cloud.NewTenancy(t, ocitest.TenancyConfig{})}
	if cfg.HedgeAfter == 0 {
		cfg.HedgeAfter = 500 * time.Millisecond
	}
	cfg.Observe = func(a oci.Attempt) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.attempts = append(w.attempts, a.Service+"."+a.Operation+" "+a.Outcome)
	}
	var err error
	if w.who, err = ociauth.SignIn(t.Context(), ociauth.Config{ConfigFile: w.Admin().ConfigFile(), Client: cfg}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) outcomes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.attempts)
}

const host = "artifacts.us-ashburn-1.oci.oraclecloud.com"

// configuration makes a call that any administrator may make.
func (w *world) configuration(ctx context.Context) (artifacts.ContainerConfiguration, error) {
	var got artifacts.ContainerConfiguration
	_, err := w.who.Do(ctx, oci.Call{
		Service: "artifacts", Operation: "GetContainerConfiguration", Method: http.MethodGet,
		Host: host, Path: "/20160918/container/configuration",
	}, artifacts.GetContainerConfigurationRequest{CompartmentId: common.String(w.ID)}, &got)
	return got, err
}

func repeat(s string, n int) []string { return slices.Repeat([]string{s}, n) }

func TestCallsThatFail(t *testing.T) {
	const operation = "artifacts.GetContainerConfiguration"
	long := strings.Repeat("so sorry ", 1000)
	tests := map[string]struct {
		faults   []ocitest.Fault
		ok       bool     // the call succeeds in the end
		outcomes []string // of the attempts
		want     []string // in the error
		status   int      // of the Error, if it is one
	}{
		"throttled once": {
			faults: []ocitest.Fault{{Kind: ocitest.Status, Status: 429, Code: "TooManyRequests", Count: 1}},
			ok:     true, outcomes: []string{"throttled", "ok"},
		},
		"failing twice": {
			faults: []ocitest.Fault{{Kind: ocitest.Status, Status: 503, Code: "ServiceUnavailable", Count: 2}},
			ok:     true, outcomes: []string{"failing", "failing", "ok"},
		},
		"throttled forever": {
			faults:   []ocitest.Fault{{Kind: ocitest.Status, Status: 429, Code: "TooManyRequests", Message: "Tenant is throttled"}},
			outcomes: repeat("throttled", 5), status: 429,
			want: []string{host + " GetContainerConfiguration: 429 TooManyRequests: Tenant is throttled (opc-request-id "},
		},
		"Retry-After of an hour": {
			faults:   []ocitest.Fault{{Kind: ocitest.Status, Status: 429, Code: "TooManyRequests", RetryAfter: "3600"}},
			outcomes: repeat("throttled", 1), status: 429, want: []string{"429 TooManyRequests"},
		},
		"Retry-After of a second": {
			faults: []ocitest.Fault{{Kind: ocitest.Status, Status: 429, Code: "TooManyRequests", RetryAfter: "1", Count: 1}},
			ok:     true, outcomes: []string{"throttled", "ok"},
		},
		"no right": {
			faults:   []ocitest.Fault{{Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound", Message: "Authorization failed or requested resource not found."}},
			outcomes: repeat("refused", 1), status: 404, want: []string{"404 NotAuthorizedOrNotFound: Authorization failed"},
		},
		"wrong use": {
			faults:   []ocitest.Fault{{Kind: ocitest.Status, Status: 400, Code: "InvalidParameter"}},
			outcomes: repeat("refused", 1), status: 400, want: []string{"400 InvalidParameter"},
		},
		"not authenticated costs one attempt": {
			faults:   []ocitest.Fault{{Kind: ocitest.Status, Status: 401, Code: "NotAuthenticated", Message: "The required information was not provided."}},
			outcomes: repeat("refused", 1), status: 401, want: []string{"401 NotAuthenticated"},
		},
		"a wrong clock is named": {
			faults: []ocitest.Fault{{Kind: ocitest.Status, Status: 401, Code: "NotAuthenticated", Headers: map[string]string{
				"Date": time.Now().Add(-10 * time.Minute).UTC().Format(http.TimeFormat),
			}}},
			outcomes: repeat("refused", 1), status: 401, want: []string{"this machine's clock is 10m", " off OCI's"},
		},
		"a redirect is not followed": {
			faults: []ocitest.Fault{{Kind: ocitest.Status, Status: 307, Headers: map[string]string{
				"Location": "https://identity.us-ashburn-1.oci.oraclecloud.com/20160918/container/configuration",
			}}},
			outcomes: repeat("refused", 1), status: 307, want: []string{"307 Temporary Redirect: redirects are not followed"},
		},
		"an error in another form": {
			faults:   []ocitest.Fault{{Kind: ocitest.Body, Status: 404, Body: "<html>captive portal</html>"}},
			outcomes: repeat("refused", 1), status: 404, want: []string{"404 Not Found: not an error in OCI's form"},
		},
		"an error without a code": {
			faults:   []ocitest.Fault{{Kind: ocitest.Body, Status: 404, Body: `{"error":"no such route"}`}},
			outcomes: repeat("refused", 1), status: 404, want: []string{"404 Not Found: not an error in OCI's form"},
		},
		"an error with an unusual status": {
			faults:   []ocitest.Fault{{Kind: ocitest.Body, Status: 403, Body: `{"code":"NotAllowed","message":"no","StatusCode":404,"status":200}`}},
			outcomes: repeat("refused", 1), status: 403, want: []string{"403 NotAllowed: no"},
		},
		"an endless error": {
			faults:   []ocitest.Fault{{Kind: ocitest.Body, Status: 409, Body: `{"code":"X","message":"` + long + long + long + long + long + long + long + long + `"}`}},
			outcomes: repeat("refused", 1), status: 409, want: []string{"409 Conflict: not an error in OCI's form"},
		},
		"an error with control characters": {
			faults:   []ocitest.Fault{{Kind: ocitest.Status, Status: 409, Code: "In\x1b[2Jcorrect", Message: "a\nb\x07\u202ec\t" + long}},
			outcomes: repeat("refused", 1), status: 409, want: []string{"409 In?[2Jcorrect: a b??c so sorry", "…"},
		},
		"a connection that breaks once": {
			faults: []ocitest.Fault{{Kind: ocitest.Reset, Count: 1}},
			ok:     true, outcomes: []string{"unreachable", "ok"},
		},
		"connections that break": {
			faults:   []ocitest.Fault{{Kind: ocitest.Reset}},
			outcomes: repeat("unreachable", 5), want: []string{host + " GetContainerConfiguration: "},
		},
		"half an answer": {
			faults:   []ocitest.Fault{{Kind: ocitest.Truncate}},
			outcomes: repeat("unreachable", 5), want: []string{host + " GetContainerConfiguration: "},
		},
		"an endless answer": {
			faults:   []ocitest.Fault{{Kind: ocitest.Endless}},
			outcomes: repeat("malformed", 1), want: []string{"the answer is not what OCI's API says it is: more than 4194304 bytes"},
		},
		"an answer that is not JSON": {
			faults:   []ocitest.Fault{{Kind: ocitest.Body, Body: "<html>hello</html>"}},
			outcomes: repeat("malformed", 1), want: []string{"the answer is not what OCI's API says it is"},
		},
		"an answer of another content type": {
			faults: []ocitest.Fault{{Kind: ocitest.Body, Body: "data: {}\n\n", Headers: map[string]string{
				"Content-Type": "text/event-stream",
			}}},
			outcomes: repeat("malformed", 1), want: []string{"text/event-stream"},
		},
		"an answer that is null": {
			faults:   []ocitest.Fault{{Kind: ocitest.Body, Body: " null\n"}},
			outcomes: repeat("malformed", 1), want: []string{"JSON null"},
		},
		"an answer of another shape": {
			faults:   []ocitest.Fault{{Kind: ocitest.Body, Body: `[]`}},
			outcomes: repeat("malformed", 1), want: []string{"the answer is not what OCI's API says it is"},
		},
		"no answer, then one": {
			faults: []ocitest.Fault{{Kind: ocitest.Hang, Count: 1}},
			ok:     true, outcomes: []string{"late", "ok"},
		},
		"no answer": {
			faults:   []ocitest.Fault{{Kind: ocitest.Hang}},
			outcomes: repeat("late", 5), want: []string{"no answer within 300ms"},
		},
		"an answer that drips": {
			faults:   []ocitest.Fault{{Kind: ocitest.Trickle, Delay: ocitest.Duration(100 * time.Millisecond)}},
			outcomes: repeat("late", 5), want: []string{"no answer within 300ms"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := oci.Config{HedgeAfter: time.Hour} // for slow machines too
			switch {
			case test.ok:
				cfg.AttemptTimeout = 3 * time.Second // slow machines answer in time
			case slices.Contains(test.outcomes, "late"):
				cfg.AttemptTimeout = 300 * time.Millisecond
			}
			w := newWorld(t, cfg)
			for _, f := range test.faults {
				f.Operation = operation
				w.Fault(f)
			}
			got, err := w.configuration(t.Context())
			var outcomes []string
			for _, o := range test.outcomes {
				outcomes = append(outcomes, operation+" "+o)
			}
			if diff := cmp.Diff(outcomes, w.outcomes()); diff != "" {
				t.Errorf("attempts: %s", diff)
			}
			if test.ok {
				if err != nil || *got.Namespace != w.Namespace {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			var refused *oci.Error
			if errors.As(err, &refused) != (test.status != 0) || refused != nil && refused.Status != test.status {
				t.Errorf("got %#v, want status %d", err, test.status)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nshould say %s", err, want)
				}
			}
			if len(err.Error()) > 700 || strings.ContainsAny(err.Error(), "\n\r\x1b\x07\u202e") {
				t.Errorf("not a printable line: %q", err)
			}
		})
	}
}

func TestIsNotFound(t *testing.T) {
	w := newWorld(t, oci.Config{})
	none := ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound", Count: 1}
	portal := ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Body, Status: 404, Body: "not here", Count: 1}
	gone := ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 410, Code: "Gone", Count: 1}
	for _, test := range []struct {
		fault ocitest.Fault
		want  bool
	}{{none, true}, {portal, false}, {gone, false}} {
		w.Fault(test.fault)
		_, err := w.configuration(t.Context())
		if err == nil || oci.IsNotFound(fmt.Errorf("looking: %w", err)) != test.want {
			t.Errorf("%v: got %t, want %t", err, !test.want, test.want)
		}
	}
}

func TestTheCallersDeadline(t *testing.T) {
	t.Run("ends a call that hangs", func(t *testing.T) {
		w := newWorld(t, oci.Config{})
		w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Hang})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := w.configuration(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "s that the caller had left") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("keeps the earlier error", func(t *testing.T) {
		w := newWorld(t, oci.Config{})
		w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 500, Code: "InternalServerError", Count: 1})
		w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Hang})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := w.configuration(ctx)
		if err == nil {
			t.Fatal("no error")
		}
		for _, want := range []string{"the caller had left", "before that: " + host + " GetContainerConfiguration: 500 InternalServerError"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v\nshould say %s", err, want)
			}
		}
	})
	t.Run("does not wait if the wait is too long", func(t *testing.T) {
		w := newWorld(t, oci.Config{})
		w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 429, Code: "TooManyRequests", RetryAfter: "30"})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err := w.configuration(ctx)
		var refused *oci.Error
		if !errors.As(err, &refused) || ctx.Err() != nil {
			t.Errorf("got %v, %v", err, ctx.Err())
		}
	})
	t.Run("is no timeout if the caller left", func(t *testing.T) {
		w := newWorld(t, oci.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := w.configuration(ctx)
		if !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if got := w.Calls()["artifacts.GetContainerConfiguration"]; got != 0 {
			t.Errorf("%d calls", got)
		}
	})
	t.Run("is the package's default if there is none", func(t *testing.T) {
		w := newWorld(t, oci.Config{Timeout: 200 * time.Millisecond})
		w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Hang})
		_, err := w.configuration(t.Context())
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 200ms") {
			t.Errorf("got %v", err)
		}
	})
}

// TestOnlyRepeatableCallsAreRepeated rotates a key, which must not happen twice.
func TestOnlyRepeatableCallsAreRepeated(t *testing.T) {
	for _, repeatable := range []bool{false, true} {
		w := newWorld(t, oci.Config{})
		w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 503, Code: "ServiceUnavailable"})
		_, err := w.who.Do(t.Context(), oci.Call{
			Service: "artifacts", Operation: "LookupContainerImageByUri", Method: http.MethodPost, Host: host,
			Path: "/20160918/container/images/actions/lookupImageByUri", Repeatable: repeatable,
		}, artifacts.LookupContainerImageByUriRequest{
			LookupContainerImageByUriDetails: artifacts.LookupContainerImageByUriDetails{ImageUri: common.String("a/b:c")},
		}, nil)
		want := 1
		if repeatable {
			want = 5
		}
		if got := len(w.outcomes()); err == nil || got != want {
			t.Errorf("repeatable %t: %d attempts, want %d: %v", repeatable, got, want, err)
		}
	}
}

// TestNothingChoosesAHost sets everything with which the SDK can be led to other
// hosts.
func TestNothingChoosesAHost(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	if err := os.Mkdir(dir+"/.oci", 0o700); err != nil {
		t.Fatal(err)
	}
	evil := `{"regionIdentifier":"us-ashburn-1","realmKey":"oc1","realmDomainComponent":"evil.example.com","regionKey":"IAD"}`
	for name, content := range map[string]string{
		".oci/regions-config.json": "[" + evil + "]", ".oci/config": "[DEFAULT]\nregion=us-evil-1\n", "tool.json": "{}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{
		"OCI_REGION_METADATA":            evil,
		"OCI_DEFAULT_REALM":              "evil.example.com",
		"OCI_REGION":                     "us-evil-1",
		"OCI_METADATA_BASE_URL":          "http://127.0.0.1:1/",
		"OCI_SDK_AUTH_CLIENT_REGION_URL": "https://evil.example.com",
		"OCI_REALM_SPECIFIC_SERVICE_ENDPOINT_TEMPLATE_ENABLED":   "true",
		"OCI_DUAL_STACK_ENDPOINT_ENABLED":                        "true",
		"OCI_SDK_DEFAULT_RETRY_ENABLED":                          "true",
		"OCI_ALLOW_ONLY_DEVELOPER_TOOL_CONFIGURATION_REGIONS":    "true",
		"OCI_DEVELOPER_TOOL_CONFIGURATION_FILE_PATH":             filepath.Join(dir, "tool.json"),
		"OCI_DEFAULT_CLIENT_CERTS_PATH":                          "/nowhere",
		"OCI_DEFAULT_CLIENT_CERTS_PRIVATE_KEY_PATH":              "/nowhere",
		"OCI_CUSTOM_CLIENT_TIMEOUT":                              "0",
		"OCI_SDK_APPEND_USER_AGENT":                              "somebody",
		"OCI_SDK_DEFAULT_CIRCUITBREAKER_ENABLED":                 "true",
		"OCI_GO_SDK_ENCODE_PATH_PARAMS_TO_SHOW_IT_DOES_NOT_HURT": "true",
	} {
		t.Setenv(name, value)
	}
	w := newWorld(t, oci.Config{})
	if _, err := w.configuration(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.who.Namespace(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.who.Compartments(t.Context()); err != nil {
		t.Error(err)
	}
	var got []string
	for _, r := range w.Requests() {
		got = append(got, r.Host)
	}
	want := []string{host, "objectstorage.us-ashburn-1.oraclecloud.com", "identity.us-ashburn-1.oci.oraclecloud.com"}
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" { // one list may take two pages
		t.Error(diff)
	}
}

// TestPathsAreSafe checks the last defence. Callers check paths too.
func TestPathsAreSafe(t *testing.T) {
	w := newWorld(t, oci.Config{})
	for _, id := range []string{"..", "../../vaults", "a/../b", "a b", "a%2fb", "a?b", "a#b", "{keyId}", "a\nb", "ü"} {
		_, err := w.who.Do(t.Context(), oci.Call{
			Service: "keymanagement", Operation: "GetKeyVersion", Method: http.MethodGet,
			Host: "kms.us-ashburn-1.oraclecloud.com", Path: "/20180608/keys/{keyId}/keyVersions/{keyVersionId}",
		}, keymanagement.GetKeyVersionRequest{KeyId: common.String("ocid1.key"), KeyVersionId: common.String(id)}, nil)
		if err == nil || !strings.Contains(err.Error(), "not a path that may be sent") {
			t.Errorf("%q: %v", id, err)
		}
		if oci.Segment(id) {
			t.Errorf("Segment(%q)", id)
		}
	}
	if got := w.Calls(); len(got) != 0 {
		t.Errorf("calls were made: %v", got)
	}
}

func TestNoSuchHost(t *testing.T) {
	w := newWorld(t, oci.Config{})
	_, err := w.who.Do(t.Context(), oci.Call{
		Service: "keymanagement", Operation: "GetKey", Method: http.MethodGet,
		Host: "nobody-management.kms.us-ashburn-1.oci.oraclecloud.com", Path: "/20180608/keys/{keyId}",
	}, keymanagement.GetKeyRequest{KeyId: common.String("ocid1.key")}, nil)
	if err == nil || !oci.NoSuchHost(err) || !strings.Contains(err.Error(), "answered CONNECT with 50") {
		t.Errorf("through a proxy: %v", err)
	}
	if got := len(w.outcomes()); got != 1 {
		t.Errorf("%d attempts at a missing host", got)
	}
	for _, test := range []struct {
		err  error
		want bool
	}{
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}, true},
		{&net.OpError{Op: "proxyconnect", Err: &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}}, false},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", IsTemporary: true}}, false},
		{fmt.Errorf("asking: %w", oci.RefusedByProxy(http.StatusBadGateway)), true},
		{oci.RefusedByProxy(http.StatusServiceUnavailable), true},
		{oci.RefusedByProxy(http.StatusGatewayTimeout), true},
		{oci.RefusedByProxy(http.StatusForbidden), false},
		{oci.RefusedByProxy(http.StatusProxyAuthRequired), false},
		{&oci.Error{Status: 503}, false},
		{context.DeadlineExceeded, false},
		{nil, false},
	} {
		if got := oci.NoSuchHost(test.err); got != test.want {
			t.Errorf("%v: got %t", test.err, got)
		}
	}
}

func TestACertificateOfAnotherCA(t *testing.T) {
	other := ocitest.Start(t, ocitest.Config{})
	w := newWorld(t, oci.Config{CAFile: other.CAFile()})
	_, err := w.configuration(t.Context())
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
	if got := len(w.outcomes()); got != 1 {
		t.Errorf("%d attempts at a host with another certificate", got)
	}
}

func TestCallsAtOnceAreBounded(t *testing.T) {
	const latency = 40 * time.Millisecond
	w := newWorld(t, oci.Config{Concurrency: 2})
	w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Latency, Delay: ocitest.Duration(latency)})
	began := time.Now()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := w.configuration(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took < 5*latency {
		t.Errorf("10 calls of %s, 2 at once, took %s", latency, took)
	}
}

// A repeatable request without an answer is sent again while the first one waits.
func TestOverdue(t *testing.T) {
	for _, repeatable := range []bool{true, false} {
		w := newWorld(t, oci.Config{AttemptTimeout: 4 * time.Second})
		w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Hang, Count: 1})
		_, err := w.who.Do(t.Context(), oci.Call{
			Service: "artifacts", Operation: "LookupContainerImageByUri", Method: http.MethodPost, Host: host,
			Path: "/20160918/container/images/actions/lookupImageByUri", Repeatable: repeatable,
		}, artifacts.LookupContainerImageByUriRequest{
			LookupContainerImageByUriDetails: artifacts.LookupContainerImageByUriDetails{ImageUri: common.String("a/b:c")},
		}, nil)
		if answered := oci.IsNotFound(err); answered != repeatable {
			t.Errorf("repeatable %t: %v", repeatable, err)
		}
		if !repeatable && len(w.outcomes()) != 1 {
			t.Errorf("sent again, though it must not be: %v", w.outcomes())
		}
	}
}

// Requests that are never answered block no other request. Their own callers get an
// answer in time too.
func TestHungCallsDelayNoCaller(t *testing.T) {
	w := newWorld(t, oci.Config{Concurrency: 4})
	w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Hang, Count: 4})
	began := time.Now()
	var wg sync.WaitGroup
	for range 9 {
		wg.Go(func() {
			if _, err := w.configuration(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(began); took > 6*time.Second { // one attempt may take 10 s
		t.Errorf("9 calls took %s, 4 of which hung at first", took)
	}
}

// OnDelay reports why a call takes longer, while the call runs.
func TestOnDelay(t *testing.T) {
	var mu sync.Mutex
	var told []string
	w := newWorld(t, oci.Config{OnDelay: func(_ context.Context, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err.Error())
	}})
	w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 429, Code: "TooManyRequests", Count: 1})
	w.Fault(ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Hang, Count: 1})
	if _, err := w.configuration(t.Context()); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	want := []string{host + " GetContainerConfiguration: 429 TooManyRequests: ", host + " GetContainerConfiguration: no answer in the first 500ms"}
	if len(told) < len(want) {
		t.Fatalf("told %q", told)
	}
	for i := range want {
		if !strings.HasPrefix(told[i], want[i]) {
			t.Errorf("told %q, want %q", told[i], want[i])
		}
	}
}

func TestCompartments(t *testing.T) {
	w := newWorld(t, oci.Config{})
	want := []oci.Compartment{{ID: w.ID, Name: "(root)"}}
	parent := ""
	for i := range 25 {
		name := fmt.Sprintf("c%02d", i)
		id := w.NewCompartment(name, parent)
		if i%3 == 0 {
			parent = id
		}
		want = append(want, oci.Compartment{ID: id, Name: name})
	}
	got, err := w.who.Compartments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEndlessLists(t *testing.T) {
	for name, next := range map[string]string{"the same page forever": "again"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, oci.Config{})
			w.Fault(ocitest.Fault{Operation: "identity.*", Kind: ocitest.Body, Body: "[]", Headers: map[string]string{"opc-next-page": next}})
			_, err := w.who.Compartments(t.Context())
			if err == nil || !strings.Contains(err.Error(), "the same page was offered twice") {
				t.Errorf("got %v", err)
			}
			if got := w.Calls()["identity.ListCompartments"]; got != 2 {
				t.Errorf("%d calls", got)
			}
		})
	}
	calls := 0
	err := oci.Pages(func(*string) (*string, error) {
		calls++
		return common.String(fmt.Sprint(calls)), nil
	}, 7)
	if err == nil || calls != 7 {
		t.Errorf("always another page: %d calls, %v", calls, err)
	}
}

func TestInvalidNamespaces(t *testing.T) {
	for _, body := range []string{`""`, `"a/b"`, `"a.b"`, `"../x"`, `{"a":1}`, `null`, `"` + strings.Repeat("a", 300) + `"`} {
		w := newWorld(t, oci.Config{})
		w.Fault(ocitest.Fault{Operation: "objectstorage.*", Kind: ocitest.Body, Body: body})
		if got, err := w.who.Namespace(t.Context()); err == nil || got != "" {
			t.Errorf("%s: got %q, %v", body, got, err)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[2Jb\r\nc", 10)
	f.Add("\xff\xfe\u202e\u200b\u2066", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(0, min(limit, 500))
		got := oci.Printable(s, limit)
		if n := len([]rune(got)); n > limit+1 {
			t.Errorf("%d runes, limit %d", n, limit)
		}
		for _, r := range got {
			if r < ' ' || r == 0x7f || r >= 0x80 && r <= 0x9f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == '\u200b' {
				t.Errorf("%q holds %U", got, r)
			}
		}
	})
}

// "Not found" is an answer, so it must not come from the connection of another call.
func TestNoCallGetsAnothersError(t *testing.T) {
	theirs := fmt.Errorf("net/http: %w", &oci.Error{Operation: "GetKey", Status: http.StatusNotFound, Code: "NotAuthorizedOrNotFound"})
	if got := oci.Explained(t.Context(), theirs); got == nil || oci.IsNotFound(got) {
		t.Errorf("got %v", got)
	}
	reset := errors.New("connection reset by peer")
	if got := oci.Explained(t.Context(), reset); !errors.Is(got, reset) {
		t.Errorf("got %v", got)
	}
}
