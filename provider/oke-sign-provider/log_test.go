package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// writes counts the writes that reach the other side.
type writes struct {
	bytes.Buffer
	n int
}

func (w *writes) Write(p []byte) (int, error) {
	w.n++
	return w.Buffer.Write(p)
}

func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out writes
		l := newLines(&out)
		synctest.Wait()
		expect := func(writes, lines int) {
			t.Helper()
			l.mu.Lock()
			defer l.mu.Unlock()
			if got := strings.Count(out.String(), "\n"); out.n != writes || got != lines {
				t.Errorf("%d lines in %d writes, want %d in %d", got, out.n, lines, writes)
			}
		}
		for n := range 10 {
			fmt.Fprintf(l, "%d\n", n)
		}
		expect(0, 0)
		time.Sleep(logDelay)
		synctest.Wait()
		expect(1, 10)
		if got := out.String(); got != "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n" {
			t.Errorf("got %q", got)
		}
		time.Sleep(time.Minute)
		expect(1, 10)
		long := strings.Repeat("x", logRoom/4-1) + "\n"
		for range 4 {
			fmt.Fprint(l, long)
		}
		expect(2, 14)
		fmt.Fprint(l, "last\n")
		l.Flush()
		expect(3, 15)
		time.Sleep(time.Minute)
		expect(3, 15)
	})
}
