package connect

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

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// maxDefaults bounds the file of defaults, in bytes.
const maxDefaults = 1 << 20

// Defaults are a user's choices, in a file of the user. The file has no secret, and
// it does not say what is trusted.
type Defaults struct {
	// Contexts has the choices by kubeconfig context. "" is for commands without a
	// context.
	Contexts map[string]Choice `json:"contexts,omitempty"`
}

// Choice has the choices of one context.
type Choice struct {
	Key string `json:"key"` // OCID of the key to sign with
}

// defaultsFile returns the path of the file.
func (s *Session) defaultsFile() string { return filepath.Join(s.ConfigDir, "oke-sign", "config.yaml") }

// ReadDefaults reads the file. An unknown field is an error: otherwise the next
// change would lose the fields of a newer version.
func (s *Session) ReadDefaults() (Defaults, error) {
	var d Defaults
	if s.ConfigDir == "" {
		return d, nil
	}
	file := s.defaultsFile()
	text, err := cli.ReadFile(s.Streams.In, file)
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
		return Defaults{}, &cli.HintedError{What: fmt.Errorf("%s: %w", file, err), Hint: "fix or remove the file, and choose a key with kubectl oke-sign keys use"}
	}
	return d, nil
}

func parseDefaults(text []byte) (Defaults, error) {
	var d Defaults
	if err := yaml.UnmarshalStrict(text, &d); err != nil {
		// The library adds a prefix for each of its steps.
		return Defaults{}, errors.New(strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: json: "))
	}
	for name, c := range d.Contexts {
		if _, err := signature.ParseKeyID(c.Key); err != nil {
			return Defaults{}, fmt.Errorf("context %.80q: %w", name, err)
		}
	}
	return d, nil
}

// ChangeDefaults changes the defaults. Simultaneous commands change them one after
// the other, so no change is lost.
func (s *Session) ChangeDefaults(change func(*Defaults)) (err error) {
	if s.ConfigDir == "" {
		return &cli.HintedError{What: errors.New("there is no directory to keep the default key in"), Hint: "set HOME, or name the key with --key each time"}
	}
	file := s.defaultsFile()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("keeping the default key: %w", err)
	}
	unlock, err := lockedfile.MutexAt(filepath.Join(filepath.Dir(file), ".lock")).Lock()
	if err != nil {
		return fmt.Errorf("keeping the default key: %w", err)
	}
	defer unlock()
	d, err := s.ReadDefaults()
	if err != nil {
		return err
	}
	change(&d)
	if err := writeDefaults(file, d); err != nil {
		return fmt.Errorf("keeping the default key: %w", err)
	}
	return nil
}

// writeDefaults writes the file. Readers see the old file or the new one, never a
// part of it.
func writeDefaults(file string, d Defaults) error {
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

// DefaultKey returns the key that the user has chosen for the current context, if
// any.
func (s *Session) DefaultKey() (id signature.KeyID, context string, err error) {
	d, err := s.ReadDefaults()
	if err != nil || len(d.Contexts) == 0 {
		return signature.KeyID{}, "", err
	}
	if context, err = s.Kube.ContextName(); err != nil {
		return signature.KeyID{}, "", err
	}
	if c, ok := d.Contexts[context]; ok {
		id, err = signature.ParseKeyID(c.Key)
	}
	return id, context, err
}

// InContext describes the context of a default.
func InContext(name string) string {
	if name == "" {
		return "outside of any context"
	}
	return "in context " + name
}
