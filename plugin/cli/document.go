package cli

import (
	"cmp"
	"errors"
)

// WithErrorDocument calls run. If run fails before it prints data and -o is json or yaml,
// WithErrorDocument prints a document with the error.
func WithErrorDocument(t *Terminal, out *Output, run func() error) error {
	written := &countingWriter{Writer: t.Streams.Out}
	t.Streams.Out = written
	err := run()
	var wrong *UsageError
	if err == nil || errors.As(err, &wrong) || written.n > 0 || out.Format != "json" && out.Format != "yaml" {
		return err
	}
	return cmp.Or(out.Print(written, Document{Value: failure{Error: Clip(err.Error(), 1000)}}), err)
}
