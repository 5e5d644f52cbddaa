package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

func askScan(image string) string {
	b, err := json.Marshal(map[string]string{"image": image})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// clean returns the scan of an image without problems.
func clean(context.Context, image.Reference) (vulnreport.Report, error) {
	return vulnreport.Summarize(vulnreport.Result{ID: "ocid", Finished: time.Unix(0, 0)}, nil), nil
}

func scanned(check func(context.Context, image.Reference) (vulnreport.Report, error)) server.Config {
	return server.Config{Signatures: server.Signatures{Check: signed}, Scans: server.Scans{Check: check}}
}

func postTo(t *testing.T, h http.Handler, path string, keys ...string) (int, externaldata.ProviderResponse) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(envelope(keys...))))
	resp := w.Result()
	return resp.StatusCode, parse(t, resp)
}

// TestScans checks the contract with the policy; see policies/okescannedimages.
func TestScans(t *testing.T) {
	problems := []vulnreport.Problem{{ID: "CVE-2021-44228", Severity: vulnreport.Critical}, {ID: "CVE-2021-45046", Severity: vulnreport.High}}
	found := vulnreport.Summarize(vulnreport.Result{ID: "ocid", Finished: time.Date(2021, 12, 21, 7, 2, 58, 0, time.UTC)}, problems)
	h := server.New(scanned(func(_ context.Context, ref image.Reference) (vulnreport.Report, error) {
		switch ref.Repository() {
		case "bad":
			return found, nil
		case "new":
			return vulnreport.Report{Reason: vulnreport.NotScanned, Detail: "no scan of tag latest", RetryAfter: 30 * time.Second}, nil
		case "odd":
			return vulnreport.Report{Known: true}, nil
		case "odder":
			return vulnreport.Report{Reason: "known"}, nil
		case "listed":
			r := found
			r.Counts = map[vulnreport.Severity]int{vulnreport.Critical: 0, vulnreport.High: 2, vulnreport.Medium: 0, vulnreport.Low: 0}
			return r, nil
		case "panic":
			panic("hostile")
		case "down":
			return vulnreport.Report{}, errors.New("503")
		}
		return clean(t.Context(), ref)
	}))
	const digest = "@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"
	const bad = `{"counts":{"CRITICAL":1,"HIGH":1,"LOW":0,"MEDIUM":0},"known":true,"problems":[{"id":"CVE-2021-44228","severity":"CRITICAL"},{"id":"CVE-2021-45046","severity":"HIGH"}],"scannedAt":"2021-12-21T07:02:58Z"}`
	for key, want := range map[string]string{
		askScan("iad.ocir.io/ns/bad" + digest):              bad,
		` { "image" : "iad.ocir.io\/ns/bad` + digest + `"}`: bad,
		askScan("iad.ocir.io/ns/clean" + digest):            `{"counts":{"CRITICAL":0,"HIGH":0,"LOW":0,"MEDIUM":0},"known":true,"problems":[],"scannedAt":"1970-01-01T00:00:00Z"}`,
		askScan("iad.ocir.io/ns/new" + digest):              `{"detail":"no scan of tag latest (asked again after 30s plus Gatekeeper's cache)","known":false,"reason":"not-scanned"}`,
		askScan("nginx"):                                    `","known":false,"reason":"not-oci-registry"}`,
		askScan("iad.ocir.io/ns/odd" + digest):              "internal error: a report that contradicts itself",
		askScan("iad.ocir.io/ns/odder" + digest):            "internal error: nothing is known",
		askScan("iad.ocir.io/ns/listed" + digest):           "internal error: a report that contradicts itself",
		askScan("iad.ocir.io/ns/panic" + digest):            "internal error, see the provider's log",
		askScan("iad.ocir.io/ns/down" + digest):             ": 503",
		`{"image":""}`:                                      "not a question: image is missing or empty",
		`{}`:                                                "not a question: image is missing or empty",
		`"iad.ocir.io/ns/bad"`:                              "not a question",
		ask("iad.ocir.io", keyA):                            `not a question: unknown field "keys"`,
		`{"image":"a","image":"iad.ocir.io/ns/clean"}`:      "not a question: field image is given twice",
		`{"Image":"a"}`:                                     `not a question: unknown field "Image"`,
		`{"image":"a"} `:                                    "",
		`{"image":"a"}{`:                                    "not a question",
		`{"image":"\ud83d"}`:                                "not a question",
	} {
		status, answer := postTo(t, h, server.ScansPath, key)
		got := answer.Response.SystemError
		for _, item := range answer.Response.Items {
			value, err := json.Marshal(item.Value)
			if err != nil || item.Key != key {
				t.Error(item, err)
			}
			if got = item.Error; item.Error == "" {
				got = string(value)
			}
		}
		if !strings.Contains(got, want) || status != http.StatusOK {
			t.Errorf("%s: %d %s, want %s", key, status, got, want)
		}
	}
	status, answer := postTo(t, h, "/v1/scan", "{}")
	if status != http.StatusNotFound || !strings.HasSuffix(answer.Response.SystemError, "questions go to one of /v1/scans, /v1/signatures") {
		t.Errorf("%d %s", status, answer.Response.SystemError)
	}
	if status, _ := postTo(t, server.New(checking(signed)), server.ScansPath, "{}"); status != http.StatusNotFound {
		t.Errorf("not served, but got %d", status)
	}
}

// TestScansHaveTheSameCallers: the same callers may ask about signatures and about
// scans.
func TestScansHaveTheSameCallers(t *testing.T) {
	s := serve(t, scanned(clean))
	body := envelope(askScan("iad.ocir.io/ns/repo@sha256:" + strings.Repeat("0", 64)))
	if status, answer := s.send(nil, http.MethodPost, server.ScansPath, strings.NewReader(body)); status != http.StatusForbidden || len(answer.Response.Items) > 0 {
		t.Errorf("%d %v", status, answer)
	}
	if status, answer := s.send(&s.caller, http.MethodPost, server.ScansPath, strings.NewReader(body)); status != http.StatusOK || len(answer.Response.Items) != 1 {
		t.Errorf("%d %v", status, answer)
	}
	if status, _ := s.send(&s.caller, http.MethodGet, server.ScansPath, nil); status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", status)
	}
	if status, _ := s.send(&s.caller, http.MethodPost, server.ScansPath, strings.NewReader(strings.Repeat(" ", server.MaxBody+1))); status != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: %d", status)
	}
}

// Scans that hang use neither the time nor the slots of questions about signatures. Their
// own timeout bounds them.
func TestSlowScansDelayNoSignature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		cfg := scanned(func(context.Context, image.Reference) (vulnreport.Report, error) {
			<-release
			return clean(t.Context(), image.Reference{})
		})
		cfg.Scans.Cached = func(ctx context.Context, ref image.Reference) (vulnreport.Report, bool) {
			r, _ := clean(ctx, ref)
			return r, ref.Repository() == "known"
		}
		cfg.Signatures.Requests, cfg.Signatures.Parallel, cfg.Scans.Requests = 1, 1, 4
		h := server.New(cfg)
		pinned := func(name string) string {
			return askScan("iad.ocir.io/ns/" + name + "@sha256:" + strings.Repeat("0", 64))
		}
		for range 20 {
			go func() { postTo(t, h, server.ScansPath, pinned("slow")) }()
		}
		synctest.Wait()
		began := time.Now()
		status, answer := postTo(t, h, server.SignaturesPath, images(3)...)
		if took := time.Since(began); took != 0 || status != http.StatusOK || len(yes(answer)) != 3 {
			t.Errorf("signatures took %v: %d %v", took, status, answer)
		}
		time.Sleep(time.Second) // all twenty were answered or rejected
		began = time.Now()
		_, answer = postTo(t, h, server.ScansPath, pinned("slow"), pinned("known"))
		took := time.Since(began)
		if took != 300*time.Millisecond || len(answer.Response.Items) != 1 || answer.Response.Items[0].Key != pinned("known") ||
			!strings.Contains(answer.Response.SystemError, "ns/slow@") || !strings.Contains(answer.Response.SystemError, "no answer from OCI within 300ms, the time for one request; it is still being asked") {
			t.Errorf("%v: %+v", took, answer.Response)
		}
		close(release)
		synctest.Wait()
	})
}

func TestScansLogAndMetrics(t *testing.T) {
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	cfg := scanned(func(ctx context.Context, ref image.Reference) (vulnreport.Report, error) {
		r, _ := clean(ctx, ref)
		r.Age = 20 * time.Second
		switch ref.Repository() {
		case "repo0":
			request(ctx, "abc def")
			return r, nil
		case "repo1":
			return vulnreport.Report{Reason: vulnreport.OlderPush, Detail: "pushed since"}, nil
		}
		return vulnreport.Report{}, errors.New("503")
	})
	cfg.Metrics, cfg.Log, cfg.Scans.Parallel = registry, slog.New(slog.NewJSONHandler(&log, nil)), 1
	cfg.Trace = traced
	var keys []string
	for n := range 3 {
		keys = append(keys, askScan(fmt.Sprintf("iad.ocir.io/ns/repo%d@sha256:%064d", n, n)))
	}
	postTo(t, server.New(cfg), server.ScansPath, append(keys, "no question")...)
	var got []map[string]any
	for l := range strings.Lines(log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatal(err)
		}
		for _, volatile := range []string{"time", "duration", "image"} {
			delete(m, volatile)
		}
		got = append(got, m)
	}
	want := []map[string]any{
		{"level": "WARN", "msg": "not a question", "error": "at byte 0: expected an object"},
		{"level": "INFO", "msg": "scan", "known": true, "scannedAt": "1970-01-01T00:00:00Z", "CRITICAL": 0., "HIGH": 0., "MEDIUM": 0., "LOW": 0., "age": "20s", "ociRequests": "abc def"},
		{"level": "INFO", "msg": "scan", "known": false, "reason": "older-push", "detail": "pushed since", "age": "0s"},
		{"level": "WARN", "msg": "no decision", "error": "503"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP oke_sign_answers_total Questions answered, by reason.
# TYPE oke_sign_answers_total counter
oke_sign_answers_total{endpoint="scans",reason="image-not-found"} 0
oke_sign_answers_total{endpoint="scans",reason="known"} 1
oke_sign_answers_total{endpoint="scans",reason="no-digest"} 0
oke_sign_answers_total{endpoint="scans",reason="no-tag"} 0
oke_sign_answers_total{endpoint="scans",reason="not-covered"} 0
oke_sign_answers_total{endpoint="scans",reason="not-oci-registry"} 0
oke_sign_answers_total{endpoint="scans",reason="not-scanned"} 0
oke_sign_answers_total{endpoint="scans",reason="older-push"} 1
oke_sign_answers_total{endpoint="signatures",reason="bad-signature"} 0
oke_sign_answers_total{endpoint="signatures",reason="image-not-found"} 0
oke_sign_answers_total{endpoint="signatures",reason="key-not-allowed"} 0
oke_sign_answers_total{endpoint="signatures",reason="key-unusable"} 0
oke_sign_answers_total{endpoint="signatures",reason="no-digest"} 0
oke_sign_answers_total{endpoint="signatures",reason="not-covered"} 0
oke_sign_answers_total{endpoint="signatures",reason="not-oci-registry"} 0
oke_sign_answers_total{endpoint="signatures",reason="signed"} 0
oke_sign_answers_total{endpoint="signatures",reason="too-few-keys"} 0
oke_sign_answers_total{endpoint="signatures",reason="unsigned"} 0
oke_sign_answers_total{endpoint="signatures",reason="wrong-image"} 0
oke_sign_answers_total{endpoint="signatures",reason="wrong-key"} 0
# HELP oke_sign_decision_errors_total Questions without an answer, by cause: deadline, panic or upstream.
# TYPE oke_sign_decision_errors_total counter
oke_sign_decision_errors_total{cause="deadline",endpoint="scans"} 0
oke_sign_decision_errors_total{cause="deadline",endpoint="signatures"} 0
oke_sign_decision_errors_total{cause="panic",endpoint="scans"} 0
oke_sign_decision_errors_total{cause="panic",endpoint="signatures"} 0
oke_sign_decision_errors_total{cause="upstream",endpoint="scans"} 1
oke_sign_decision_errors_total{cause="upstream",endpoint="signatures"} 0
# HELP oke_sign_malformed_questions_total Keys of requests that do not parse as questions.
# TYPE oke_sign_malformed_questions_total counter
oke_sign_malformed_questions_total{endpoint="scans"} 1
oke_sign_malformed_questions_total{endpoint="signatures"} 0
`), "oke_sign_answers_total", "oke_sign_decision_errors_total", "oke_sign_malformed_questions_total")
	if err != nil {
		t.Error(err)
	}
}

// An accepted question about scans has the same single field for every reader.
func FuzzParseScanQuestion(f *testing.F) {
	for _, s := range []string{askScan("a"), `{"image":"\ud83d\ude00"}`, `{"image":"a","Image":"b"}`, "", "null", ` {"image":"\u0061\/"} `, `{"image":"a","x":{}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		image, err := server.ParseScanQuestion(key)
		if err != nil {
			if image != "" {
				t.Fatalf("got %q with an error", image)
			}
			return
		}
		var std map[string]string
		if err := json.Unmarshal([]byte(key), &std); err != nil || len(std) != 1 || std["image"] != image || image == "" {
			t.Fatalf("accepted %q as %q; encoding/json reads %v %v", key, image, std, err)
		}
		if again, err := server.ParseScanQuestion(askScan(image)); err != nil || again != image {
			t.Fatalf("%q does not parse again: %q %v", image, again, err)
		}
	})
}

// Each distinct key of a request is answered once, under its own text.
func TestScansOfOneRequest(t *testing.T) {
	status, answer := postTo(t, server.New(scanned(clean)), server.ScansPath, askScan("b"), askScan("a"), askScan("b"))
	var keys []string
	for _, item := range answer.Response.Items {
		keys = append(keys, item.Key)
	}
	if want := []string{askScan("b"), askScan("a")}; status != http.StatusOK || !slices.Equal(keys, want) {
		t.Errorf("%d %v", status, keys)
	}
}

// A report that contradicts itself is no answer.
func TestContradictoryReports(t *testing.T) {
	problems := []vulnreport.Problem{{ID: "CVE-2021-44228", Severity: vulnreport.Critical}}
	for name, tt := range map[string]struct {
		change func(*vulnreport.Report)
		ok     bool
	}{
		"a valid report":                     {func(*vulnreport.Report) {}, true},
		"more problems counted than listed":  {func(r *vulnreport.Report) { r.Counts[vulnreport.Critical] = 2 }, true},
		"fewer problems counted than listed": {func(r *vulnreport.Report) { r.Counts[vulnreport.Critical] = 0 }, false},
		"a severity without a count":         {func(r *vulnreport.Report) { delete(r.Counts, vulnreport.High) }, false},
		"the last severity without a count":  {func(r *vulnreport.Report) { delete(r.Counts, vulnreport.Low) }, false},
		"a problem of unknown severity":      {func(r *vulnreport.Report) { r.Problems[0].Severity = "ODD" }, false},
		"known without a time":               {func(r *vulnreport.Report) { r.ScannedAt = "" }, false},
		"known with a reason":                {func(r *vulnreport.Report) { r.Reason = vulnreport.NotScanned }, false},
		"unknown without a reason":           {func(r *vulnreport.Report) { r.Known = false }, false},
		"unknown with a reason":              {func(r *vulnreport.Report) { r.Known, r.Reason = false, vulnreport.NotScanned }, true},
		"unknown with an unknown reason":     {func(r *vulnreport.Report) { r.Known, r.Reason = false, "odd" }, false},
		"unknown with the reason known":      {func(r *vulnreport.Report) { r.Known, r.Reason = false, "known" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := server.New(scanned(func(context.Context, image.Reference) (vulnreport.Report, error) {
				r := vulnreport.Summarize(vulnreport.Result{ID: "ocid", Finished: time.Unix(0, 0)}, slices.Clone(problems))
				tt.change(&r)
				return r, nil
			}))
			_, answer := postTo(t, h, server.ScansPath, askScan("iad.ocir.io/ns/app@sha256:"+strings.Repeat("0", 64)))
			if got := answer.Response; (len(got.Items) == 1) != tt.ok || strings.Contains(got.SystemError, ": internal error: ") == tt.ok {
				t.Errorf("got %+v", got)
			}
		})
	}
}
