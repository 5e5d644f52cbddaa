package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// writes counts the writes that the reader receives. The reader reads while open is
// closed.
type writes struct {
	mu   sync.Mutex
	text bytes.Buffer
	n    int
	open chan struct{} // closed while the reader reads; nil: it always reads
}

func (w *writes) Write(p []byte) (int, error) {
	if w.open != nil {
		<-w.open
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n++
	return w.text.Write(p)
}

func (w *writes) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *writes) expect(t *testing.T, writes, lines int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Count(w.text.String(), "\n"); w.n != writes || got != lines {
		t.Errorf("%d lines in %d writes, want %d in %d", got, w.n, lines, writes)
	}
}

func asText(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) }

func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out writes
		l := newLines(&out, asText)
		for n := range 10 {
			fmt.Fprintf(l, "%d\n", n)
		}
		synctest.Wait()
		out.expect(t, 0, 0)
		time.Sleep(logDelay)
		synctest.Wait()
		out.expect(t, 1, 10)
		if got := out.String(); got != "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n" {
			t.Errorf("got %q", got)
		}
		time.Sleep(time.Minute)
		out.expect(t, 1, 10)
		long := strings.Repeat("x", logRoom/4-1) + "\n"
		for range 4 {
			fmt.Fprint(l, long)
		}
		synctest.Wait()
		out.expect(t, 2, 14)
		fmt.Fprint(l, "last\n")
		l.Flush()
		out.expect(t, 3, 15)
	})
}

// No caller waits for a log without a reader. Lines without room are counted, and
// the count is logged when the reader reads again.
func TestLinesWithoutAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := writes{open: make(chan struct{})}
		l := newLines(&out, asText)
		line := strings.Repeat("x", 1023) + "\n"
		fmt.Fprint(l, line)
		time.Sleep(time.Second) // the writer has taken the line, and waits
		if got := l.Stuck(); got != "" {
			t.Errorf("waiting after one second: %q", got)
		}
		began := time.Now()
		for range maxHeld/1024 + 500 {
			fmt.Fprint(l, line)
		}
		if took := time.Since(began); took > 0 || l.Dropped() != 500 {
			t.Errorf("%d lines were dropped after %v, want 500 at once", l.Dropped(), took)
		}
		time.Sleep(9 * time.Second)
		if got, want := l.Stuck(), "nobody has read standard error for 10s, and 500 lines of the log were dropped"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		close(out.open)
		time.Sleep(time.Second)
		if got := l.Stuck(); got != "" {
			t.Errorf("read again, and waiting: %q", got)
		}
		said := `level=WARN msg="log lines were dropped: nobody read standard error" lines=500`
		if got := out.String(); strings.Count(got, line) != maxHeld/1024+1 || strings.Count(got, said) != 1 || !strings.HasSuffix(got, said+"\n") {
			t.Errorf("%d lines, and then %q", strings.Count(got, line), got[max(0, len(got)-200):])
		}
		fmt.Fprint(l, "more\n")
		l.Flush()
		if got := out.String(); !strings.HasSuffix(got, "\nmore\n") || l.Dropped() != 500 {
			t.Errorf("afterwards %q, %d dropped", got[max(0, len(got)-100):], l.Dropped())
		}
	})
}

// The end of the program does not wait for a reader that never comes.
func TestFlushGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := writes{open: make(chan struct{})}
		l := newLines(&out, asText)
		fmt.Fprint(l, "x\n")
		began := time.Now()
		l.Flush()
		if took := time.Since(began); took != flushTime {
			t.Errorf("took %v, want %v", took, flushTime)
		}
		close(out.open)
	})
}
