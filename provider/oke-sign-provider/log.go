package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// A write for each verdict would cost a system call and wake up the reader.
	// Therefore several lines are written together, after a short time.
	logDelay = 20 * time.Millisecond
	logRoom  = 32 << 10 // bytes of one write
	// If nothing reads the log, lines are dropped and answers continue.
	maxHeld   = 1 << 20
	logStuck  = 2 * time.Second // the longest write of a log that is read
	flushTime = time.Second
)

// lines collects log lines, which one goroutine writes. No caller waits for the reader of
// the log.
type lines struct {
	out  io.Writer
	lost func(lines int64) // writes a line that says how many were dropped

	some, much chan struct{} // there is something, or enough, to write
	end, ended chan struct{}

	mu      sync.Mutex
	held    []byte
	missing int64     // lines dropped since the last message about it
	dropped int64     // lines dropped so far
	since   time.Time // when the write that is under way began; zero if none is
}

// newLines writes to out in the form of a handler of slog.
func newLines(out io.Writer, handler func(io.Writer) slog.Handler) *lines {
	l := &lines{
		out: out, some: make(chan struct{}, 1), much: make(chan struct{}, 1),
		end: make(chan struct{}), ended: make(chan struct{}),
	}
	said := slog.New(handler(said{l}))
	l.lost = func(n int64) { said.Warn("log lines were dropped: nobody read standard error", "lines", n) }
	go l.run()
	return l
}

// said appends a line to the buffer. The caller holds l.mu.
type said struct{ l *lines }

func (s said) Write(p []byte) (int, error) {
	s.l.held = append(s.l.held, p...)
	return len(p), nil
}

// Write buffers one line, or drops it if the buffer is full.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held)+len(p) > maxHeld {
		l.missing++
		l.dropped++
		return len(p), nil
	}
	if l.held = append(l.held, p...); len(l.held) >= logRoom {
		nudge(l.much)
	}
	nudge(l.some)
	return len(p), nil
}

func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake already
	}
}

// run writes batches until the end, and then the rest.
func (l *lines) run() {
	defer close(l.ended)
	var spare []byte
	for more := true; more; {
		select {
		case <-l.some:
			l.gather()
		case <-l.end:
			more = false
		}
		batch := l.take(spare)
		if len(batch) > 0 {
			_, _ = l.out.Write(batch) // an error here could be reported nowhere
		}
		spare = l.wrote(batch)
	}
}

// gather waits until the buffer is worth a write, or for a short time.
func (l *lines) gather() {
	delay := time.NewTimer(logDelay)
	defer delay.Stop()
	select {
	case <-delay.C:
	case <-l.much:
	case <-l.end:
	}
}

// take returns the buffer and continues with spare.
func (l *lines) take(spare []byte) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missing > 0 {
		l.lost(l.missing)
		l.missing = 0
	}
	batch := l.held
	l.held = spare
	l.since = time.Now()
	return batch
}

func (l *lines) wrote(batch []byte) (spare []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = time.Time{}
	if cap(batch) > 4*logRoom { // after a burst
		return nil
	}
	return batch[:0]
}

// Flush writes the buffer, and gives up soon if nothing reads the log. Call it once, at
// the end.
func (l *lines) Flush() {
	close(l.end)
	select {
	case <-l.ended:
	case <-time.After(flushTime):
	}
}

// Stuck returns why the log is stuck, or "".
func (l *lines) Stuck() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() || time.Since(l.since) < logStuck {
		return ""
	}
	return fmt.Sprintf("nobody has read standard error for %s, and %d lines of the log were dropped", time.Since(l.since).Round(time.Second), l.dropped)
}

// Dropped returns how many lines were dropped so far.
func (l *lines) Dropped() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}
