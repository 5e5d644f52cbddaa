package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// cachingRepo0 has a cached answer about repo0. OCI never answers about other
// repositories.
func cachingRepo0(cfg server.Config) server.Config {
	cfg.Signatures.Cached = func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, bool) {
		v, err := signed(ctx, ref, allowed)
		return v, err == nil && ref.Repository() == "repo0"
	}
	cfg.Signatures.Check = func(ctx context.Context, _ image.Pinned, _ signature.KeySet) (checker.Answer, error) {
		<-ctx.Done()
		return checker.Answer{}, context.Cause(ctx)
	}
	return cfg
}

func post(ctx context.Context, h http.Handler, body io.Reader) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, server.SignaturesPath, body))
	return w
}

// SIG Security threat 2, complex work: OCI hangs, and as many callers wait as three
// Gatekeepers have threads. Cached answers do not wait for them.
func TestHungOCIDelaysNoCachedAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := server.New(cachingRepo0(server.Config{Signatures: server.Signatures{Limits: server.Limits{Requests: 100}}}))
		var wait sync.WaitGroup
		defer wait.Wait()
		unknown := images(2)[1]
		for range 192 {
			wait.Go(func() {
				answer := parse(t, post(t.Context(), h, strings.NewReader(envelope(unknown))).Result())
				if got := answer.Response.SystemError; len(answer.Response.Items) > 0 || !strings.Contains(got, "no answer from OCI") {
					t.Errorf("while OCI hangs: %+v", answer)
				}
			})
		}
		synctest.Wait()
		for _, tt := range []struct {
			keys []string
			most time.Duration
		}{
			{images(1), 0},
			{images(2), 1300 * time.Millisecond}, // half of which is cached
		} {
			began := time.Now()
			answer := parse(t, post(t.Context(), h, strings.NewReader(envelope(tt.keys...))).Result())
			if took := time.Since(began); took > tt.most || len(yes(answer)) != 1 {
				t.Errorf("%d images of which one is cached: %v after %v, want it within %v", len(tt.keys), answer, took, tt.most)
			}
		}
	})
}

// SIG Security threat 1, a flood: callers send small or large bodies slowly. They
// take nothing that other callers need.
func TestSlowBodiesHoldNothing(t *testing.T) {
	for name, start := range map[string]string{"small": "{", "large": strings.Repeat(" ", 20<<10)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := server.New(cachingRepo0(server.Config{}))
				var wait sync.WaitGroup
				defer wait.Wait()
				var ends []io.Closer
				for range 300 {
					body, in := io.Pipe()
					ends = append(ends, in)
					wait.Go(func() { _, _ = io.WriteString(in, start) })
					wait.Go(func() {
						w := post(t.Context(), h, body)
						if w.Code == http.StatusOK {
							t.Errorf("half a body is answered with %s", w.Body)
						}
					})
				}
				synctest.Wait()
				began := time.Now()
				answer := parse(t, post(t.Context(), h, strings.NewReader(envelope(images(1)...))).Result())
				if took := time.Since(began); took > 0 || len(yes(answer)) != 1 {
					t.Errorf("a cached image: %+v after %v", answer, took)
				}
				for _, in := range ends {
					_ = in.Close()
				}
				for range ends { // the callers that waited for their turn to send
					synctest.Wait()
				}
			})
		})
	}
}

// An answer has no more bytes than its question.
func TestAnswersEscapeOnlyWhatTheyMust(t *testing.T) {
	for _, path := range []string{server.SignaturesPath, server.DigestsPath} {
		h := server.New(server.Config{Signatures: server.Signatures{Check: signed}, Digests: server.Digests{Check: func(context.Context, image.Reference) (string, error) { return "", nil }}})
		key := strings.Repeat("<>&", 1000)
		w := httptest.NewRecorder()
		body, _ := strings.CutSuffix(fmt.Sprintf(`{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":[%q]}}`, key), "\n")
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(body)))
		if got := w.Body.Len(); got > 2*len(key)+500 {
			t.Errorf("%s: %d bytes for a key of %d", path, got, len(key))
		}
		if answer := parse(t, w.Result()); len(answer.Response.Items) != 1 || answer.Response.Items[0].Key != key {
			t.Errorf("%s: %+v", path, answer)
		}
	}
}

// An answer is bounded. An image that does not fit has no answer, and the system error
// says so.
func TestLargeAnswers(t *testing.T) {
	problems := make([]vulnreport.Problem, vulnreport.MaxProblems)
	for i := range problems {
		problems[i] = vulnreport.Problem{ID: strings.Repeat("é", 64), Severity: vulnreport.Critical}
	}
	h := server.New(server.Config{Signatures: server.Signatures{Check: signed}, Scans: server.Scans{
		Limits: server.Limits{Timeout: time.Minute},
		Cached: func(context.Context, image.Reference) (vulnreport.Report, bool) {
			return vulnreport.Report{
				Known: true, ScannedAt: "2026-01-02T03:04:05Z", Problems: problems,
				Counts: map[vulnreport.Severity]int{vulnreport.Critical: 100, vulnreport.High: 0, vulnreport.Medium: 0, vulnreport.Low: 0},
			}, true
		},
		Check: func(context.Context, image.Reference) (vulnreport.Report, error) { panic("all is known") },
	}})
	for _, n := range []int{1, 10, 100, 256} {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprintf(`{"image":"iad.ocir.io/ns/repo%d@sha256:%064d"}`, i, i)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, server.ScansPath, strings.NewReader(envelope(keys...))))
		if w.Body.Len() > server.MaxAnswer+16<<10 {
			t.Errorf("%d images: an answer of %d bytes", n, w.Body.Len())
		}
		answer := parse(t, w.Result())
		var got []string
		for _, item := range answer.Response.Items {
			if value, _ := item.Value.(map[string]any); value["known"] != true {
				t.Errorf("%d images: %v", n, item)
			}
			got = append(got, item.Key)
		}
		if diff := cmp.Diff(keys[:len(got)], got); diff != "" {
			t.Errorf("%d images (-want +got):\n%s", n, diff)
		}
		want := ""
		if left := n - len(got); left > 0 {
			want = fmt.Sprintf("%d questions are left out: an answer has %d bytes at most", left, server.MaxAnswer)
		}
		if answer.Response.SystemError != want || n <= 100 && len(got) != n || n == 256 && len(got) == n {
			t.Errorf("%d images: %d answered, systemError %q, want %q", n, len(got), answer.Response.SystemError, want)
		}
	}
}

// Callers that send much and read nothing cannot fill the memory with their answers.
// Other callers are still answered.
func TestAnswersWithoutAReader(t *testing.T) {
	const callers, most = 140, 96 << 20
	defer debug.SetGCPercent(debug.SetGCPercent(36))
	addr, _ := limited(t, server.MaxConnections, within(10*time.Second, signed))
	body := []byte(envelope())
	body = body[:bytes.LastIndexByte(body, '{')]
	body = append(body, `{"keys":["x`...)
	for n := range 250 {
		body = append(fmt.Appendf(body, `","%d`, n), bytes.Repeat([]byte("<"), 4070)...)
	}
	body = append(body, `"]}}`...)
	runtime.GC()
	var wait sync.WaitGroup
	for range callers {
		c := dial(t, addr)
		wait.Go(func() {
			if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", server.SignaturesPath, len(body)); err != nil {
				return
			}
			_, _ = c.Write(body) // until the server stops reading
		})
	}
	var peak uint64
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		peak = max(peak, stats.HeapInuse)
	}
	t.Logf("%d MiB at most", peak>>20)
	if peak > most {
		t.Errorf("%d MiB of heap, want at most %d", peak>>20, most>>20)
	}
	if got := exchange(dial(t, addr), envelope(images(1)...)); !strings.Contains(got, `"signed":true`) {
		t.Errorf("another caller got %q", got)
	}
	wait.Wait()
}

// An answer has the same text as the struct of the protocol.
func FuzzAnswer(f *testing.F) {
	f.Add("key", "error", "system\nerror", 3)
	f.Add("<&>\u2028", "", "", 1)
	f.Add("", "", "x", 0)
	f.Fuzz(func(t *testing.T, key, wrong, failed string, n int) {
		r := server.Response{Idempotent: true, SystemError: failed}
		for range min(max(n, 0), 10) {
			r.Items = append(r.Items, server.Item{Key: key, Error: wrong, Value: map[string]any{"<": key}})
		}
		text, complete, _ := server.Encode(r)
		var got, want externaldata.ProviderResponse
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%v: %q", err, text)
		}
		same, err := json.Marshal(server.ProviderResponse{APIVersion: "externaldata.gatekeeper.sh/v1beta1", Kind: "ProviderResponse", Response: r})
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(same, &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" || complete != (failed == "") {
			t.Errorf("complete %v (-want +got):\n%s", complete, diff)
		}
	})
}
