package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// Remark prints a message for people, which is not data.
func (t *Terminal) Remark(format string, args ...any) {
	t.Bar.Clear(t.Streams.ErrOut)
	_, _ = fmt.Fprintf(t.Streams.ErrOut, "%s\n", Printable(fmt.Sprintf(format, args...)))
}

// Parallel bounds the images or keys that are processed concurrently. OCI Vault answers
// ten reads a second for a whole tenancy, which other clients share.
const Parallel = 6

// Limited is a group that does not stop at an error: each call reports its own.
func Limited() *errgroup.Group {
	group := new(errgroup.Group)
	group.SetLimit(Parallel)
	return group
}

// Poll calls look, with growing pauses, until look reports that it is done.
func (t *Terminal) Poll(ctx context.Context, what string, look func() (state string, done bool, err error)) error {
	const least, most = 250 * time.Millisecond, 10 * time.Second
	tell := waiting(t, what)
	for pause := least; ; pause = min(pause*3/2, most) {
		state, done, err := look()
		if err != nil || done {
			t.Bar.Clear(t.Streams.ErrOut)
			return err
		}
		tell(state)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// Terminal connects a command to a person: output, remarks, questions and the timeout.
type Terminal struct {
	Streams    genericiooptions.IOStreams
	Bar        bar
	Interrupts *Interrupts
	Timeout    time.Duration // of --timeout; zero is none
	// Advise returns an error with the hints that its cause calls for. Nil adds none.
	Advise func(error) error

	clocks clocks // of --timeout
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd())) //nolint:gosec // a descriptor is small
}

// Interactive reports whether there is a person to ask.
func (t *Terminal) Interactive() bool {
	return isTerminal(t.Streams.In) && isTerminal(t.Streams.ErrOut)
}

var errNoAnswer = errors.New("nothing was answered")

// readLine reads one line that a person types. It reads nothing after the line, because
// another reader may want it. The clock of --timeout stands still meanwhile.
func (t *Terminal) readLine(ctx context.Context) (string, error) {
	defer t.clocks.pause()()
	type typed struct {
		line string
		err  error
	}
	read := make(chan typed, 1)
	go func() { // a read of a terminal cannot be broken off
		var line []byte
		for b := make([]byte, 1); len(line) < 4096; {
			n, err := t.Streams.In.Read(b)
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
			t.Remark("")
		}
		return answer.line, answer.err
	case <-ctx.Done():
		t.Remark("")
		return "", ctx.Err()
	}
}

// maxShown bounds the choices on a screen.
const maxShown = 15

// Pick asks the user to choose one of several items, and returns its index. A number
// chooses, and any other text searches.
func (t *Terminal) Pick(ctx context.Context, what string, choices []string) (int, error) {
	search := ""
	for {
		shown, more := matching(choices, search)
		if len(shown) == 0 {
			t.Remark("nothing matches %q", search)
			search = ""
			continue
		}
		width := cmp.Or(terminalWidth(t.Streams.ErrOut), 80)
		for n, i := range shown {
			t.Remark("%3d  %s", n+1, Clip(choices[i], width-5))
		}
		if more > 0 {
			t.Remark("     and %d more; type a part of the name to search", more)
		}
		ask := fmt.Sprintf("%s (1-%d, or text to search): ", what, len(shown))
		if len(shown) == 1 {
			ask = what + " (Enter for this one, or text to search): "
		}
		_, _ = fmt.Fprint(t.Streams.ErrOut, ask)
		line, err := t.readLine(ctx)
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(line)
		switch {
		case err == nil && n >= 1 && n <= len(shown):
			return shown[n-1], nil
		case err == nil:
			t.Remark("there is no %d", n)
		case line == "" && len(shown) == 1:
			return shown[0], nil
		default:
			search = line
		}
	}
}

// matching returns the first choices that contain every word of a search, and the
// number of further ones.
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

// Confirm asks a question. Every answer but yes is a no.
func (t *Terminal) Confirm(ctx context.Context, question string) error {
	t.Bar.Clear(t.Streams.ErrOut)
	_, _ = fmt.Fprintf(t.Streams.ErrOut, "%s [y/N] ", Printable(question))
	answer, err := t.readLine(ctx)
	switch answer = strings.ToLower(strings.TrimSpace(answer)); {
	case ctx.Err() != nil:
		return fmt.Errorf("%w; nothing was changed", ErrInterrupted)
	case err == nil && (answer == "y" || answer == "yes"):
		return nil
	}
	return errors.New("not confirmed; nothing was changed")
}
