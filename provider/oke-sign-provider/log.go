package main

import (
	"io"
	"sync"
	"time"
)

// A line for each decision would be a system call for each, and another process
// to be woken up. So lines are written together, a little later.
const (
	logDelay = 20 * time.Millisecond
	logRoom  = 32 << 10
)

// lines collects what is written to it.
type lines struct {
	out io.Writer

	mu    sync.Mutex
	held  []byte
	flush *time.Timer
}

func newLines(out io.Writer) *lines {
	l := &lines{out: out}
	l.flush = time.AfterFunc(0, l.Flush)
	return l
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) == 0 {
		l.flush.Reset(logDelay)
	}
	if l.held = append(l.held, p...); len(l.held) >= logRoom {
		l.write()
	}
	return len(p), nil
}

// Flush writes what is held.
func (l *lines) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write()
}

// write may fail, and then there is nowhere to say so. The caller holds l.mu, so
// that those who log faster than somebody reads wait.
func (l *lines) write() {
	if len(l.held) > 0 {
		_, _ = l.out.Write(l.held)
		l.held = l.held[:0]
	}
}
