package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

func TestReport(t *testing.T) {
	hinted := &cli.HintedError{What: errors.New("no such key"), Hint: "keys list\nkeys create"}
	for name, tc := range map[string]struct {
		err  error
		code int
		text string
	}{
		"done":                              {nil, 0, ""},
		"a no that was reported":            {cli.ErrNo, 3, ""},
		"a failure that was reported":       {fmt.Errorf("x: %w", cli.ErrFailed), 1, ""},
		"a failure outweighs a no":          {errors.Join(cli.ErrNo, cli.ErrFailed), 1, ""},
		"wrong use":                         {cli.Usage("-f is missing", "name a file"), 2, "error: -f is missing\nhint: name a file\n"},
		"wrong use, said by something else": {fmt.Errorf("x: %w", cli.Usage("-f is missing", "name a file")), 2, "error: -f is missing\nhint: name a file\n"},
		"a hint for each thing to type":     {hinted, 1, "error: no such key\nhint: keys list\nhint: keys create\n"},
		"a hint keeps what was being done":  {fmt.Errorf("signing: %w", hinted), 1, "error: signing: no such key\nhint: keys list\nhint: keys create\n"},
		"several errors are one line":       {errors.Join(errors.New("a"), errors.New("b")), 1, "error: a; b\n"},
		"an error that a terminal obeys":    {errors.New("a\x1b[2Jb"), 1, "error: a?[2Jb\n"},
	} {
		var text bytes.Buffer
		if code := cli.Report(&text, tc.err); code != tc.code || text.String() != tc.text {
			t.Errorf("%s: got %d, %q; want %d, %q", name, code, &text, tc.code, tc.text)
		}
	}
}

// The message says why a command stopped, not that a context ended.
func TestStopCause(t *testing.T) {
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	terminal := cli.Terminal{Timeout: time.Nanosecond}
	late, cancel := terminal.WithTimeout(t.Context())
	defer cancel()
	<-late.Done()
	broken := errors.New("connection reset")
	for name, tc := range map[string]struct {
		ctx  context.Context
		err  error
		want string
	}{
		"nothing failed":                {interrupted, nil, "<nil>"},
		"nothing was stopped":           {t.Context(), broken, "connection reset"},
		"the interrupt alone":           {interrupted, interrupted.Err(), "interrupted"},
		"an error that came of it":      {interrupted, broken, "interrupted: connection reset"},
		"the deadline alone":            {late, late.Err(), "not done within --timeout 1ns"},
		"the deadline by its cause":     {late, context.Cause(late), "not done within --timeout 1ns"},
		"an error that the latter made": {late, broken, "not done within --timeout 1ns: connection reset"},
	} {
		if got := fmt.Sprint(cli.StopCause(tc.ctx, tc.err)); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
	if terminal.Timeout = 0; true {
		ctx, cancel := terminal.WithTimeout(t.Context())
		defer cancel()
		if _, ok := ctx.Deadline(); ok {
			t.Error("--timeout 0 has a deadline")
		}
	}
}

// At a terminal errors and hints wrap between words. A command to copy stays whole.
func TestComplainAtATerminal(t *testing.T) {
	const image = "iad.ocir.io/idwpqivumvev/project01/web@sha256:0123456789abcdef"
	for name, tc := range map[string]struct {
		columns   uint16
		err, hint string
		want      string
	}{
		"short":                          {60, "no such key", "keys list", "error: no such key\nhint: keys list\n"},
		"long":                           {40, "signing web: OCI Vault answered 401 NotAuthenticated", "the session has expired; sign in again", "error: signing web: OCI Vault answered\n       401 NotAuthenticated\nhint: the session has expired; sign in\n      again\n"},
		"a word, too long":               {40, "signing " + image + ": 404", "", "error: signing\n       " + image + ":\n       404\n"},
		"a command to copy":              {40, "no key", "this looks like Cloud Shell: kubectl oke-sign sign web --auth instance_obo_user", "error: no key\nhint: this looks like Cloud Shell:\n      kubectl oke-sign sign web --auth instance_obo_user\n"},
		"a command of another program":   {40, "no key", "sign in again: oci session authenticate --region us-ashburn-1", "error: no key\nhint: sign in again:\n      oci session authenticate --region us-ashburn-1\n"},
		"a statement to copy":            {40, "no right", "a policy must say: Allow group GROUP to read keys in tenancy", "error: no right\nhint: a policy must say:\n      Allow group GROUP to read keys in tenancy\n"},
		"a command that fits its line":   {80, "no key", "this looks like Cloud Shell: kubectl oke-sign sign web", "error: no key\nhint: this looks like Cloud Shell: kubectl oke-sign sign web\n"},
		"a terminal too narrow for text": {20, "no such key in region us-ashburn-1", "", "error: no such key in region us-ashburn-1\n"},
	} {
		tty, shown := screen(t, tc.columns)
		cli.Complain(tty, errors.New(tc.err), tc.hint)
		if diff := cmp.Diff(tc.want, shown()); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}
