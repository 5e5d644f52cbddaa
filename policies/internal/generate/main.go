// Command generate writes the generated files of the folder of policies, its only argument.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/oke-sign/oke-sign/policies/internal/inline"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatalf("generate: %v", err)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one argument, the folder of policies; got %d", len(args))
	}
	dir, err := os.OpenRoot(args[0])
	if err != nil {
		return err
	}
	files, err := inline.Files(dir.FS())
	if err != nil {
		return errors.Join(err, dir.Close())
	}
	for file, text := range files {
		file = filepath.FromSlash(file)
		if old, err := dir.ReadFile(file); err == nil && bytes.Equal(old, text) {
			continue // An unchanged modification time keeps the build cache valid.
		}
		if err := dir.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return errors.Join(err, dir.Close())
		}
		if err := dir.WriteFile(file, text, 0o644); err != nil {
			return errors.Join(err, dir.Close())
		}
		fmt.Println(file)
	}
	return dir.Close()
}
