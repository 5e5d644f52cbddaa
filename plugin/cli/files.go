package cli

import (
	"context"
	"fmt"
	"io"
	"os"
)

// maxFile is the maximum size of a file of manifests, in bytes.
const maxFile = 64 << 20

// ReadInput reads a file as ReadFile does, but stops when ctx ends: a pipe may never
// end.
func ReadInput(ctx context.Context, in io.Reader, file string) ([]byte, error) {
	type input struct {
		text []byte
		err  error
	}
	read := make(chan input, 1)
	go func() { // a read of a pipe cannot be interrupted
		text, err := ReadFile(in, file)
		read <- input{text, err}
	}()
	select {
	case i := <-read:
		return i.text, i.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ReadFile reads a file of at most maxFile bytes. "-" is standard input.
func ReadFile(in io.Reader, file string) ([]byte, error) {
	from := in
	if file != "-" {
		f, err := os.Open(file) //nolint:gosec // the user names it
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // it is only read
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return text, nil
}
