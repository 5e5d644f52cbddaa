package ocitest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// result is what a client received: a whole answer, half an answer, or an error.
type result struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// fetch requests the configuration of a tenancy, and reads at most limit bytes.
func fetch(t *testing.T, config common.KeyProvider, tenancy *ocitest.Tenancy, timeout time.Duration, limit int64) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req := signed(t, config, newRequest(t, "GET", configuration+tenancy.ID, "")).WithContext(ctx)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return result{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, limit))
	return result{res.StatusCode, res.Header, body, err}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	const plenty = 1 << 20
	for name, tt := range map[string]struct {
		fault   ocitest.Fault
		timeout time.Duration
		check   func(*testing.T, *ocitest.Tenancy, result)
	}{
		"latency": {
			ocitest.Fault{Kind: ocitest.Latency, Delay: ocitest.Duration(time.Hour)}, 50 * time.Millisecond,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if !errors.Is(r.err, context.DeadlineExceeded) {
					t.Errorf("got %v, want the deadline", r.err)
				}
			},
		},
		"a short latency": {
			ocitest.Fault{Kind: ocitest.Latency, Delay: ocitest.Duration(time.Millisecond)}, time.Minute,
			func(t *testing.T, tenancy *ocitest.Tenancy, r result) {
				if r.status != 200 || !bytes.Contains(r.body, []byte(tenancy.Namespace)) {
					t.Errorf("got %d %s %v, want the true answer", r.status, r.body, r.err)
				}
			},
		},
		"429 with Retry-After": {
			ocitest.Fault{Kind: ocitest.Status, Status: 429, RetryAfter: "7"}, time.Minute,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if r.status != 429 || r.header.Get("Retry-After") != "7" || !bytes.Contains(r.body, []byte("TooManyRequests")) || r.header.Get("Opc-Request-Id") == "" {
					t.Errorf("got %d %s %v", r.status, r.body, r.header)
				}
			},
		},
		"429 without Retry-After": {
			ocitest.Fault{Kind: ocitest.Status, Status: 429}, time.Minute,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if r.status != 429 || len(r.header.Values("Retry-After")) != 0 {
					t.Errorf("got %d %v", r.status, r.header)
				}
			},
		},
		"503 with code and message": {
			ocitest.Fault{Kind: ocitest.Status, Status: 503, Code: "Mine", Message: "gone fishing"}, time.Minute,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if r.status != 503 || string(r.body) != `{"code":"Mine","message":"gone fishing"}` {
					t.Errorf("got %d %s", r.status, r.body)
				}
			},
		},
		"a redirect": {
			ocitest.Fault{Kind: ocitest.Status, Status: 307, Headers: map[string]string{"Location": "https://nowhere.invalid/"}}, time.Minute,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if r.err == nil || !strings.Contains(r.err.Error(), "nowhere.invalid") {
					t.Errorf("got %v, want the error of a redirect", r.err)
				}
			},
		},
		"reset": {
			ocitest.Fault{Kind: ocitest.Reset}, time.Minute,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if r.err == nil || r.status != 0 {
					t.Errorf("got %d %v, want an error", r.status, r.err)
				}
			},
		},
		"truncate": {
			ocitest.Fault{Kind: ocitest.Truncate}, time.Minute,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if r.status != 200 || r.err == nil || len(r.body) == 0 || json.Valid(r.body) {
					t.Errorf("got %d %q %v, want half an answer", r.status, r.body, r.err)
				}
			},
		},
		"endless": {
			ocitest.Fault{Kind: ocitest.Endless}, time.Minute,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if r.status != 200 || r.err != nil || len(r.body) != plenty || json.Valid(r.body) {
					t.Errorf("got %d, %d bytes, %v, want limit bytes", r.status, len(r.body), r.err)
				}
			},
		},
		"trickle": {
			ocitest.Fault{Kind: ocitest.Trickle, Delay: ocitest.Duration(time.Hour)}, 50 * time.Millisecond,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if r.err == nil {
					t.Errorf("got %d %q, want a deadline", r.status, r.body)
				}
			},
		},
		"a short trickle": {
			ocitest.Fault{Kind: ocitest.Trickle}, time.Minute,
			func(t *testing.T, tenancy *ocitest.Tenancy, r result) {
				if r.status != 200 || r.err != nil || !bytes.Contains(r.body, []byte(tenancy.Namespace)) {
					t.Errorf("got %d %q %v, want the true answer", r.status, r.body, r.err)
				}
			},
		},
		"another body": {
			ocitest.Fault{Kind: ocitest.Body, Body: "<html>", Headers: map[string]string{"Content-Type": "text/html"}}, time.Minute,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if r.status != 200 || string(r.body) != "<html>" || r.header.Get("Content-Type") != "text/html" {
					t.Errorf("got %d %q %v", r.status, r.body, r.header)
				}
			},
		},
		"another value of a field": {
			ocitest.Fault{Kind: ocitest.Set, Set: map[string]any{"namespace": "wrong"}}, time.Minute,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if string(r.body) != `{"isRepositoryCreatedOnFirstPush":true,"namespace":"wrong"}` {
					t.Errorf("got %s", r.body)
				}
			},
		},
		"hang": {
			ocitest.Fault{Kind: ocitest.Hang}, 50 * time.Millisecond,
			func(t *testing.T, _ *ocitest.Tenancy, r result) {
				if !errors.Is(r.err, context.DeadlineExceeded) {
					t.Errorf("got %v, want the deadline", r.err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			config := common.CustomProfileConfigProvider(tenancy.Admin().ConfigFile(), ocitest.ProfileDefault)
			tt.fault.Operation = "artifacts.*"
			id := tenancy.Fault(tt.fault)
			tt.check(t, tenancy, fetch(t, config, tenancy, tt.timeout, plenty))
			cloud.ClearFault(id)
			if r := fetch(t, config, tenancy, time.Minute, plenty); r.status != 200 || !bytes.Contains(r.body, []byte(tenancy.Namespace)) {
				t.Errorf("after the fault: %d %s %v", r.status, r.body, r.err)
			}
		})
	}
}

func TestFaultsAreCounted(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	bystander := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	config := common.CustomProfileConfigProvider(tenancy.Admin().ConfigFile(), ocitest.ProfileDefault)
	theirs := common.CustomProfileConfigProvider(bystander.Admin().ConfigFile(), ocitest.ProfileDefault)
	tenancy.Fault(ocitest.Fault{Kind: ocitest.Status, Status: 500, Operation: "artifacts.GetContainerConfiguration", Skip: 1, Count: 2})
	tenancy.Fault(ocitest.Fault{Kind: ocitest.Status, Status: 502, Operation: "artifacts.List*"})
	var got []int
	for range 4 {
		got = append(got, fetch(t, config, tenancy, time.Minute, 1000).status)
	}
	if diff := cmp.Diff([]int{200, 500, 500, 200}, got); diff != "" {
		t.Error(diff)
	}
	if r := fetch(t, theirs, bystander, time.Minute, 1000); r.status != 200 {
		t.Errorf("a bystander got %d", r.status)
	}
	if diff := cmp.Diff(map[string]int{"artifacts.GetContainerConfiguration": 4}, tenancy.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	var statuses []int
	for _, r := range tenancy.Requests() {
		statuses = append(statuses, r.Status)
	}
	if diff := cmp.Diff(got, statuses); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestStaleReads(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := newClients(t, tenancy.Admin())
	key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
	image := tenancy.NewImage("web")
	count := func() int {
		return len(listSignatures(t, c, artifacts.ListContainerImageSignaturesRequest{CompartmentId: &tenancy.ID}))
	}
	id := tenancy.Fault(ocitest.Fault{Kind: ocitest.Stale})
	if _, err := upload(c, tenancy, image.Sign(key, pss256)); err != nil {
		t.Fatal(err)
	}
	if got := count(); got != 0 {
		t.Errorf("%d signatures in a stale list, want 0", got)
	}
	cloud.ClearFault(id)
	if got := count(); got != 1 {
		t.Errorf("%d signatures, want 1: the write was lost", got)
	}
}

// TestUnreachable uses a region of no other test, because all tenancies share the
// hosts.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	const host = "artifacts.ap-tokyo-1.oci.oraclecloud.com"
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Region: "ap-tokyo-1"})
	config := common.CustomProfileConfigProvider(tenancy.Admin().ConfigFile(), ocitest.ProfileDefault)
	get := func() (int, error) {
		req := signed(t, config, newRequest(t, "GET", "https://"+host+"/20160918/container/configuration?compartmentId="+tenancy.ID, ""))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		io.Copy(io.Discard, res.Body) //nolint:errcheck // so that the client reuses the connection
		return res.StatusCode, nil
	}
	if status, err := get(); status != 200 {
		t.Fatalf("%d %v before the fault", status, err)
	}
	id := tenancy.Fault(ocitest.Fault{Kind: ocitest.Unreachable, Host: "artifacts.ap-tokyo-1.*"})
	if status, err := get(); err == nil {
		t.Errorf("status %d on a connection from before the fault", status)
	}
	if res, _ := connect(t, cloud, host+":443"); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(res.Header.Get("Proxy-Status"), "connection_refused") {
		t.Errorf("CONNECT: %d %s, want 503 connection_refused", res.StatusCode, res.Header.Get("Proxy-Status"))
	}
	cloud.ClearFault(id)
	if status, err := get(); status != 200 {
		t.Errorf("%d %v after the fault", status, err)
	}
}

// TestFaultsOverHTTP sets, lists and clears faults as the demo does.
func TestFaultsOverHTTP(t *testing.T) {
	t.Parallel()
	own := ocitest.Start(t, ocitest.Config{Seed: "bare"})
	do := func(method, path, body string) (int, string) {
		t.Helper()
		res, err := http.DefaultClient.Do(newRequest(t, method, own.URL()+path, body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, strings.Join(strings.Fields(string(b)), "")
	}
	config := common.CustomProfileConfigProvider(own.ConfigFile(), ocitest.ProfileDefault)
	client := clientFor(t, own)
	namespace := func() int {
		t.Helper()
		res, err := client.Do(signed(t, config, newRequest(t, "GET", "https://objectstorage.us-ashburn-1.oraclecloud.com/n", "")))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for _, step := range []struct {
		method, path, body string
		status             int
		want               string
		namespace          int // status of GetNamespace afterwards
	}{
		{"GET", "/_emulator/faults", "", 200, `[]`, 200},
		{"POST", "/_emulator/faults", `{"operation":"objectstorage.*","kind":"status","status":503,"count":1}`, 200, `{"ids":[1]}`, 503},
		{"GET", "/_emulator/calls", "", 200, `{"objectstorage.GetNamespace":2}`, 200},
		{"DELETE", "/_emulator/calls", "", 204, ``, 200},
		{"GET", "/_emulator/calls", "", 200, `{"objectstorage.GetNamespace":1}`, 200},
		{"POST", "/_emulator/faults", `[{"kind":"status","status":500},{"kind":"latency","delay":"1ms"}]`, 200, `{"ids":[2,3]}`, 500},
		{"DELETE", "/_emulator/faults?id=2", "", 204, ``, 200},
		{"GET", "/_emulator/faults", "", 200, `[{"id":1,"operation":"objectstorage.*","kind":"status","count":1,"delay":"0s","status":503},{"id":3,"kind":"latency","delay":"1ms"}]`, 200},
		{"DELETE", "/_emulator/faults", "", 204, ``, 200},
		{"GET", "/_emulator/faults", "", 200, `[]`, 200},
		{"POST", "/_emulator/faults", `{"kind":"nonsense"}`, 400, `{"error":"fault\"nonsense\"isofnokindthatisknown"}`, 200},
		{"POST", "/_emulator/faults", `[{"kind":"status","status":500},{"kind":"nonsense"}]`, 400, `{"error":"fault\"nonsense\"isofnokindthatisknown"}`, 200},
		{"POST", "/_emulator/faults", `{"kind":"status","statuss":500}`, 400, `{"error":"readingtherequest:json:unknownfield\"statuss\""}`, 200},
		{"POST", "/_emulator/faults", `{"kind":"unreachable","host":"*","operation":"x"}`, 400, `{"error":"faultunreachable:itisabouthostsonly"}`, 200},
		{"PUT", "/_emulator/switches", `{"salt":"odd"}`, 400, `{"error":"switchsalt:\"odd\"isnotoneofhash,max"}`, 200},
		{"PUT", "/_emulator/switches", `{"salt":"max"}`, 204, ``, 200},
		{"GET", "/_emulator/nothing", "", 404, `{"error":"nosuchpage"}`, 200},
	} {
		status, body := do(step.method, step.path, step.body)
		if status != step.status || strings.ReplaceAll(body, `,"delay":"0s"`, "") != strings.ReplaceAll(step.want, `,"delay":"0s"`, "") {
			t.Errorf("%s %s %s: %d %s, want %d %s", step.method, step.path, step.body, status, body, step.status, step.want)
		}
		if got := namespace(); got != step.namespace {
			t.Errorf("after %s %s %s: status %d, want %d", step.method, step.path, step.body, got, step.namespace)
		}
	}
	if own.Switches().Salt != "max" {
		t.Errorf("salt %s, want max", own.Switches().Salt)
	}
}
