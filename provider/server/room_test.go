package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// padded returns a valid body of a size.
func padded(size int) string {
	good := envelope(ask(pinned, keyA))
	return good + strings.Repeat(" ", size-len(good))
}

// There is room for eight bodies of unknown length. The ninth waits until its
// deadline. A body returns its room at its end.
func TestLargeBodiesShareRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := server.New(checking(signed))
		var wait sync.WaitGroup
		var ends []io.Closer
		for range 8 {
			body, in := io.Pipe()
			ends = append(ends, in)
			wait.Go(func() { _, _ = io.WriteString(in, padded(20<<10)) })
			wait.Go(func() {
				if w := post(t.Context(), h, body); w.Code != http.StatusOK {
					t.Errorf("a body that had room: %d %s", w.Code, w.Body)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		w := post(t.Context(), h, io.MultiReader(strings.NewReader(padded(20<<10)))) // of unknown length
		if took := time.Since(began); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "busy with other large requests") || took != 1300*time.Millisecond {
			t.Errorf("the ninth: %d %s after %v", w.Code, w.Body, took)
		}
		for _, in := range ends {
			_ = in.Close()
		}
		wait.Wait()
		for n := range 20 {
			if w := post(t.Context(), h, strings.NewReader(padded(server.MaxBody))); w.Code != http.StatusOK {
				t.Fatalf("body %d after that: %d %s", n, w.Code, w.Body)
			}
		}
	})
}

// deadlines is a client's connection that records the read deadlines of the server.
type deadlines struct {
	*httptest.ResponseRecorder
	began time.Time
	set   []time.Duration // -1 is none
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	after := time.Duration(-1)
	if !at.IsZero() {
		after = at.Sub(d.began)
	}
	d.set = append(d.set, after)
	return nil
}

// A body must arrive by the request's deadline, and a large one in a quarter of that
// time. While the server decides, it reads without a deadline.
func TestDeadlinesOfBodies(t *testing.T) {
	for name, tt := range map[string]struct {
		size int
		want []time.Duration
	}{
		"a small body": {size: 1 << 10, want: []time.Duration{1300 * time.Millisecond, -1}},
		"a large body": {size: 20 << 10, want: []time.Duration{1300 * time.Millisecond, 325 * time.Millisecond, -1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &deadlines{ResponseRecorder: httptest.NewRecorder(), began: time.Now()}
				server.New(checking(signed)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, server.SignaturesPath, strings.NewReader(padded(tt.size))))
				if diff := cmp.Diff(tt.want, w.set); diff != "" || w.Code != http.StatusOK {
					t.Errorf("%d, read deadlines (-want +got):\n%s", w.Code, diff)
				}
			})
		})
	}
}

// reporting answers each question about scans with a cached report of n problems.
func reporting(n int) http.Handler {
	problems := make([]vulnreport.Problem, n)
	for i := range problems {
		problems[i] = vulnreport.Problem{ID: strings.Repeat("é", 60), Severity: vulnreport.Critical}
	}
	return server.New(server.Config{Scans: server.Scans{
		Limits: server.Limits{Timeout: time.Minute},
		Cached: func(context.Context, image.Reference) (vulnreport.Report, bool) {
			return vulnreport.Report{
				Known: true, ScannedAt: "2026-01-02T03:04:05Z", Problems: problems,
				Counts: map[vulnreport.Severity]int{vulnreport.Critical: n, vulnreport.High: 0, vulnreport.Medium: 0, vulnreport.Low: 0},
			}, true
		},
		Check: func(context.Context, image.Reference) (vulnreport.Report, error) { panic("all is known") },
	}})
}

// scansOf returns a request about n images.
func scansOf(t *testing.T, n int) *http.Request {
	t.Helper()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf(`{"image":"iad.ocir.io/ns/repo%d@sha256:%064d"}`, i, i)
	}
	return httptest.NewRequestWithContext(t.Context(), http.MethodPost, server.ScansPath, strings.NewReader(envelope(keys...)))
}

// unread is a client that does not read until it is released.
type unread struct {
	*httptest.ResponseRecorder
	writing *atomic.Int64
	release <-chan struct{}
}

func (u unread) Write(p []byte) (int, error) {
	u.writing.Add(1)
	<-u.release
	return u.ResponseRecorder.Write(p)
}

// A large answer takes room for its bytes until the client has read it.
func TestLargeAnswersShareRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers = 40
		h := reporting(vulnreport.MaxProblems)
		release := make(chan struct{})
		var writing atomic.Int64
		var wait sync.WaitGroup
		for range callers {
			wait.Go(func() {
				w := unread{httptest.NewRecorder(), &writing, release}
				h.ServeHTTP(w, scansOf(t, 10)) // some 140 KiB
				if answer := parse(t, w.Result()); len(answer.Response.Items) != 10 {
					t.Errorf("%d items, %s", len(answer.Response.Items), answer.Response.SystemError)
				}
			})
		}
		synctest.Wait()
		if n := writing.Load(); n != callers {
			t.Errorf("%d answers are being written, want %d", n, callers)
		}
		close(release)
		wait.Wait()
		for n := range 20 {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, scansOf(t, 80)) // more than a MiB
			if answer := parse(t, w.Result()); len(answer.Response.Items) != 80 {
				t.Fatalf("answer %d after that: %d items, %s", n, len(answer.Response.Items), answer.Response.SystemError)
			}
		}
	})
}

// allocated returns how many bytes f allocates on average.
func allocated(t *testing.T, runs uint64, f func()) uint64 {
	t.Helper()
	if raceDetector {
		t.Skip("the race detector makes pools drop buffers; make test also runs this test without it")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection would empty the pools
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / runs
}

// A request takes little memory besides its own text and its answer's.
func TestMemoryOfARequest(t *testing.T) {
	h := server.New(checking(signed))
	for name, tt := range map[string]struct {
		size int
		most uint64
	}{
		"a usual request shares its buffers with others":   {1 << 10, 24 << 10},
		"a large body is read into one buffer of its size": {server.MaxBody, 5 * server.MaxBody / 2},
	} {
		body := padded(tt.size)
		got := allocated(t, 100, func() {
			if w := post(t.Context(), h, strings.NewReader(body)); w.Code != http.StatusOK {
				t.Fatalf("%s: %d %s", name, w.Code, w.Body)
			}
		})
		if t.Logf("%s: %d bytes", name, got); got > tt.most {
			t.Errorf("%s: %d bytes were allocated, want at most %d", name, got, tt.most)
		}
	}
}

// An answer is written into one buffer once its size is known to be large.
func TestMemoryOfALargeAnswer(t *testing.T) {
	items := make([]server.Item, server.MaxKeys)
	for i := range items {
		items[i] = server.Item{Key: strings.Repeat("k", server.MaxQuestion-100), Error: strings.Repeat("e", 500)}
	}
	size := uint64(0)
	got := allocated(t, 10, func() {
		text, complete, _ := server.Encode(server.Response{Items: items})
		if size = uint64(len(text)); !complete {
			t.Fatalf("%d bytes and not complete", size)
		}
	})
	if t.Logf("%d bytes for %d", got, size); got > 3*size/2 {
		t.Errorf("%d bytes were allocated for an answer of %d", got, size)
	}
}

// An answer takes room once, before it exceeds its usual size. An item that may
// exceed the bound is omitted.
func TestAnswersAtTheirBounds(t *testing.T) {
	const ending = "]}}\n"
	empty, _, _ := server.Encode(server.Response{})
	start := len(empty) - len(ending) + 1
	item := func(n int) server.Item { return server.Item{Key: strings.Repeat("k", n)} }
	usual := server.UsualAnswer - server.MaxValue - start
	// After the first item, one more item of 10 bytes fits.
	first := item(server.MaxAnswer - server.MaxValue - 10 - start - len(`,"items":[{"key":""}`))
	for name, tt := range map[string]struct {
		items    []server.Item
		complete bool
		grown    int
	}{
		"no items":                     {nil, true, 0},
		"one of the usual size":        {[]server.Item{item(usual)}, true, 0},
		"one larger by a byte":         {[]server.Item{item(usual + 1)}, true, 1},
		"several large ones":           {[]server.Item{item(usual + 1), item(usual + 1), item(usual + 1)}, true, 1},
		"the largest answer":           {[]server.Item{first, item(10)}, true, 1},
		"one byte more":                {[]server.Item{first, item(11)}, false, 1},
		"an item after an omitted one": {[]server.Item{first, item(11), item(1)}, false, 1},
	} {
		text, complete, grown := server.Encode(server.Response{Items: tt.items})
		if complete != tt.complete || grown != tt.grown {
			t.Errorf("%s: %d bytes, complete %t, grown %d; want %t, %d", name, len(text), complete, grown, tt.complete, tt.grown)
		}
	}
}

// A value that does not encode leads to an answer without items. The answer is still
// valid.
func TestAnAnswerThatDoesNotEncode(t *testing.T) {
	h := server.New(checking(signed))
	h.Answering(server.Response{Items: []server.Item{{Key: "good", Value: true}, {Key: "bad", Value: func() {}}, {Key: "bad", Value: make(chan int)}}})
	w := post(t.Context(), h, strings.NewReader(envelope("good", "bad")))
	answer := parse(t, w.Result())
	if got := answer.Response.SystemError; w.Code != http.StatusInternalServerError || len(answer.Response.Items) > 0 || !strings.Contains(got, "encoding the answer: json: unsupported type: func()") {
		t.Errorf("%d %+v", w.Code, answer.Response)
	}
}
