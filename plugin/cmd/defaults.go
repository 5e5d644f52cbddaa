package cmd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/lockedfile"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/provider/signature"
)

// maxDefaults bounds the file of defaults, in bytes.
const maxDefaults = 1 << 20

// defaults is what a user has chosen once, in a file of theirs: nothing in it is
// secret, and nothing in it says what is trusted.
type defaults struct {
	// Contexts are the choices by kubeconfig context; "" is outside of any.
	Contexts map[string]choice `json:"contexts,omitempty"`
}

// choice is what holds in one context.
type choice struct {
	Key string `json:"key"` // OCID of the key to sign with
}

// defaultsFile is where they are kept.
func (g *global) defaultsFile() string { return filepath.Join(g.configDir, "oke-sign", "config.yaml") }

// readDefaults reads them. A file with anything in it that is not known is an
// error: what a newer version wrote there would be lost at the next change.
func (g *global) readDefaults() (defaults, error) {
	var d defaults
	if g.configDir == "" {
		return d, nil
	}
	file := g.defaultsFile()
	text, err := readFile(g.streams.In, file)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil && len(text) > maxDefaults {
		err = fmt.Errorf("more than %d bytes", maxDefaults)
	}
	if err == nil {
		d, err = parseDefaults(text)
	}
	if err != nil {
		return defaults{}, &refusal{fmt.Errorf("%s: %w", file, err), "mend the file or remove it, and choose anew with kubectl oke-sign keys use"}
	}
	return d, nil
}

func parseDefaults(text []byte) (defaults, error) {
	var d defaults
	if err := yaml.UnmarshalStrict(text, &d); err != nil {
		// The library says by which ways it got there.
		return defaults{}, errors.New(strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: json: "))
	}
	for name, c := range d.Contexts {
		if _, err := signature.ParseKeyID(c.Key); err != nil {
			return defaults{}, fmt.Errorf("context %.80q: %w", name, err)
		}
	}
	return d, nil
}

// changeDefaults changes the defaults. Of several commands at once each changes what
// the one before it has kept.
func (g *global) changeDefaults(change func(*defaults)) (err error) {
	if g.configDir == "" {
		return &refusal{errors.New("there is no directory to keep the default key in"), "set HOME, or name the key with --key each time"}
	}
	file := g.defaultsFile()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("keeping the default key: %w", err)
	}
	unlock, err := lockedfile.MutexAt(filepath.Join(filepath.Dir(file), ".lock")).Lock()
	if err != nil {
		return fmt.Errorf("keeping the default key: %w", err)
	}
	defer unlock()
	d, err := g.readDefaults()
	if err != nil {
		return err
	}
	change(&d)
	if err := writeDefaults(file, d); err != nil {
		return fmt.Errorf("keeping the default key: %w", err)
	}
	return nil
}

// writeDefaults keeps the defaults. Readers see the old file or the new one, never a
// part of it.
func writeDefaults(file string, d defaults) error {
	text, err := yaml.Marshal(d)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".config-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(bytes.Join([][]byte{[]byte("# Default keys, by kubectl oke-sign keys use.\n"), text}, nil))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), file)
}

// defaultKey is the key that was chosen for the context in use, if any.
func (g *global) defaultKey() (id signature.KeyID, context string, err error) {
	d, err := g.readDefaults()
	if err != nil || len(d.Contexts) == 0 {
		return signature.KeyID{}, "", err
	}
	if context, err = g.kube.context(); err != nil {
		return signature.KeyID{}, "", err
	}
	if c, ok := d.Contexts[context]; ok {
		id, err = signature.ParseKeyID(c.Key)
	}
	return id, context, err
}

// inContext says where a default holds.
func inContext(name string) string {
	if name == "" {
		return "outside of any context"
	}
	return "in context " + name
}
