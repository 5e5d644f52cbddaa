package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// bar is the progress line at the bottom of a terminal. Other output replaces it.
type bar struct {
	mu      sync.Mutex
	shown   int       // characters
	changed time.Time // the bar, or what is written in its place
	doing   string    // the step of the command
	text    string    // of the bar, to which a tick adds the time
	timed   bool      // the text has a time
	off     bool      // nothing is shown
	last    string    // what is shown
}

func (b *bar) show(w io.Writer, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draw(w, text)
	b.changed, b.text, b.timed = time.Now(), text, false
}

// showTimed shows a text that says how long something has taken. Ticks leave it alone.
func (b *bar) showTimed(w io.Writer, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draw(w, text)
	b.timed = true
}

func (b *bar) draw(w io.Writer, text string) {
	if b.off {
		return
	}
	text = Clip(text, cmp.Or(terminalWidth(w), 80)-1) // what wraps cannot be taken back
	if b.shown > 0 && text == b.last {
		return
	}
	b.last = text
	_, _ = fmt.Fprintf(w, "\r%-*s", b.shown, text)
	b.shown = utf8.RuneCountInString(text)
}

// Clear removes the bar, to make room for other output.
func (b *bar) Clear(w io.Writer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed, b.text, b.timed = time.Now(), "", false
	if b.shown > 0 {
		_, _ = fmt.Fprintf(w, "\r%*s\r", b.shown, "")
		b.shown = 0
	}
}

// quiet is how long the bar stays as it is before a tick replaces it. A command that is
// done sooner shows none.
const quiet = time.Second

// tick shows how long the command has worked, unless the screen shows something newer.
func (b *bar) tick(w io.Writer, began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.timed && time.Since(b.changed) >= quiet {
		b.draw(w, fmt.Sprintf("%s, %s", cmp.Or(b.text, b.doing, "working"), time.Since(began).Round(time.Second)))
	}
}

// Screen returns t's standard output. Each write to it replaces the bar.
func Screen(t *Terminal) io.Writer { return &screen{t.Streams.Out, t} }

type screen struct {
	io.Writer
	terminal *Terminal
}

func (s *screen) Write(b []byte) (int, error) {
	s.terminal.Bar.Clear(s.terminal.Streams.ErrOut)
	return s.Writer.Write(b)
}

// Fd returns the descriptor of the output, from which the width of a terminal is known.
func (s *screen) Fd() uintptr { return descriptor(s.Writer) }

// descriptor returns the descriptor of a stream, or that of no file.
func descriptor(w io.Writer) uintptr {
	if f, ok := w.(interface{ Fd() uintptr }); ok {
		return f.Fd()
	}
	return ^uintptr(0)
}

// Doing says what the command does next. A terminal shows it if it takes longer than a
// second.
func (t *Terminal) Doing(format string, args ...any) {
	t.Bar.mu.Lock()
	defer t.Bar.mu.Unlock()
	t.Bar.doing = fmt.Sprintf(format, args...)
}

// tick shows at a terminal that the command works, until stop is called.
func (t *Terminal) tick() (stop func()) {
	if !isTerminal(t.Streams.ErrOut) {
		return func() {}
	}
	t.Bar.Clear(t.Streams.ErrOut)
	began, end, ended := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(quiet / 4)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				if t.clocks.standStill() { // a question waits
					t.Bar.Clear(t.Streams.ErrOut)
					began = began.Add(quiet / 4)
				} else {
					t.Bar.tick(t.Streams.ErrOut, began)
				}
			case <-end:
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(end)
		<-ended
		t.Bar.Clear(t.Streams.ErrOut)
	})
}

// Progress returns a function to call when one of total things is done. A terminal
// shows a bar. Other outputs get a line every few seconds, and none for short work.
func (t *Terminal) Progress(format string, total int) func() {
	interval := 3 * time.Second
	tty := isTerminal(t.Streams.ErrOut)
	if tty {
		interval = 100 * time.Millisecond
	}
	var mu sync.Mutex
	done, last := 0, time.Now()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		done++
		switch {
		case tty && done == total:
			t.Bar.Clear(t.Streams.ErrOut)
		case done == total || time.Since(last) < interval:
		case tty:
			last = time.Now()
			const width = 30
			filled := width * done / total
			t.Bar.show(t.Streams.ErrOut, fmt.Sprintf("[%s%s] "+format, strings.Repeat("#", filled), strings.Repeat(".", width-filled), done, total))
		default:
			last = time.Now()
			t.Remark(format, done, total)
		}
	}
}

// waiting shows how long the command has been waiting. The caller calls the returned
// function after each look.
func waiting(t *Terminal, what string) func(state string) {
	began, last, before := time.Now(), time.Time{}, ""
	tty := isTerminal(t.Streams.ErrOut)
	return func(state string) {
		text := fmt.Sprintf("%s: %s, %s", what, state, time.Since(began).Round(time.Second))
		switch {
		case tty:
			t.Bar.showTimed(t.Streams.ErrOut, text)
		case state != before || time.Since(last) >= 30*time.Second:
			last = time.Now()
			t.Remark("%s", text)
		}
		before = state
	}
}
