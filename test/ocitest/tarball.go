package ocitest

import (
	"archive/tar"
	"bytes"
)

// tarball returns a layer with one file. Its bytes are the same every time.
func tarball(name string, content []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: name, Mode: 0o444, Size: int64(len(content)), Format: tar.FormatUSTAR}) //nolint:errcheck // a buffer accepts everything
	w.Write(content)                                                                                        //nolint:errcheck // as above
	w.Close()                                                                                               //nolint:errcheck // as above
	return b.Bytes()
}
