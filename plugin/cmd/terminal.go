package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// terminal is where a command talks to a person: what it prints, remarks and asks,
// and how long it may take.
type terminal struct {
	streams    genericiooptions.IOStreams
	bar        bar
	interrupts *Interrupts
	timeout    time.Duration // of --timeout; zero is none
}

// isTerminal reports whether a stream is one that a person looks at or types on.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a descriptor is small
}

// interactive reports whether there is a person to ask.
func (t *terminal) interactive() bool {
	return isTerminal(t.streams.In) && isTerminal(t.streams.ErrOut)
}

// bar is the line at the bottom of a terminal that says how far things are. It
// makes way for everything else that is written.
type bar struct {
	mu    sync.Mutex
	shown int // characters
}

func (b *bar) show(w io.Writer, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	text = clip(text, cmp.Or(terminalWidth(w), 80)-1) // what wraps cannot be taken back
	_, _ = fmt.Fprintf(w, "\r%-*s", b.shown, text)
	b.shown = utf8.RuneCountInString(text)
}

func (b *bar) clear(w io.Writer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shown > 0 {
		_, _ = fmt.Fprintf(w, "\r%*s\r", b.shown, "")
		b.shown = 0
	}
}

// progress returns a function to call when one of total things is done. On a
// terminal a bar says how far things are; elsewhere a line does every few
// seconds, and nothing about what takes less.
func (t *terminal) progress(format string, total int) func() {
	interval := 3 * time.Second
	tty := isTerminal(t.streams.ErrOut)
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
			t.bar.clear(t.streams.ErrOut)
		case done == total || time.Since(last) < interval:
		case tty:
			last = time.Now()
			const width = 30
			filled := width * done / total
			t.bar.show(t.streams.ErrOut, fmt.Sprintf("[%s%s] "+format, strings.Repeat("#", filled), strings.Repeat(".", width-filled), done, total))
		default:
			last = time.Now()
			t.remark(format, done, total)
		}
	}
}

// waiting says, while something is waited for, for how long it has been. The
// function that it returns is called at every look.
func (t *terminal) waiting(what string) func(state string) {
	began, last, before := time.Now(), time.Time{}, ""
	tty := isTerminal(t.streams.ErrOut)
	return func(state string) {
		text := fmt.Sprintf("%s: %s, %s", what, state, time.Since(began).Round(time.Second))
		switch {
		case tty:
			t.bar.show(t.streams.ErrOut, text)
		case state != before || time.Since(last) >= 30*time.Second:
			last = time.Now()
			t.remark("%s", text)
		}
		before = state
	}
}

var errNoAnswer = errors.New("nothing was answered")

// readLine reads what a person types, until they press the key that ends the
// line. It reads no further, because others may want what comes then.
func (t *terminal) readLine(ctx context.Context) (string, error) {
	type typed struct {
		line string
		err  error
	}
	read := make(chan typed, 1)
	go func() { // a read of a terminal cannot be broken off
		var line []byte
		for b := make([]byte, 1); len(line) < 4096; {
			n, err := t.streams.In.Read(b)
			if n == 1 && b[0] == '\n' {
				break
			}
			line = append(line, b[:n]...)
			if err != nil {
				read <- typed{err: errNoAnswer}
				return
			}
		}
		read <- typed{line: strings.TrimSpace(string(line))}
	}()
	select {
	case answer := <-read:
		if answer.err != nil {
			t.remark("")
		}
		return answer.line, answer.err
	case <-ctx.Done():
		t.remark("")
		return "", ctx.Err()
	}
}

// maxShown is how many choices stand on a screen.
const maxShown = 15

// pick asks which of several things is meant, and returns its index. A number
// picks; any other text searches.
func (t *terminal) pick(ctx context.Context, what string, choices []string) (int, error) {
	search := ""
	for {
		shown, more := matching(choices, search)
		if len(shown) == 0 {
			t.remark("nothing matches %q", search)
			search = ""
			continue
		}
		width := cmp.Or(terminalWidth(t.streams.ErrOut), 80)
		for n, i := range shown {
			t.remark("%3d  %s", n+1, clip(choices[i], width-5))
		}
		if more > 0 {
			t.remark("     and %d more; type a part of the name to search", more)
		}
		_, _ = fmt.Fprintf(t.streams.ErrOut, "%s (1-%d, or text to search): ", what, len(shown))
		line, err := t.readLine(ctx)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(line)
		switch {
		case err == nil && n >= 1 && n <= len(shown):
			return shown[n-1], nil
		case err == nil:
			t.remark("there is no %d", n)
		case line == "" && len(shown) == 1:
			return shown[0], nil
		default:
			search = line
		}
	}
}

// matching are the first choices that hold every word of a search, and how many
// there are besides.
func matching(choices []string, search string) (shown []int, more int) {
	words := strings.Fields(strings.ToLower(search))
next:
	for i, choice := range choices {
		for _, word := range words {
			if !strings.Contains(strings.ToLower(choice), word) {
				continue next
			}
		}
		if len(shown) == maxShown {
			more++
		} else {
			shown = append(shown, i)
		}
	}
	return shown, more
}

// confirm asks. What is not a yes is a no.
func (t *terminal) confirm(ctx context.Context, question string) error {
	_, _ = fmt.Fprintf(t.streams.ErrOut, "%s [y/N] ", printable(question))
	answer, err := t.readLine(ctx)
	switch answer = strings.ToLower(strings.TrimSpace(answer)); {
	case ctx.Err() != nil:
		return fmt.Errorf("%w; nothing was changed", errInterrupted)
	case err == nil && (answer == "y" || answer == "yes"):
		return nil
	}
	return errors.New("not confirmed; nothing was changed")
}
