// Command generate writes the generated files of the folder of policies given as
// its only argument. It lives beside them because nobody else has a use for it.
package main

import (
	"bytes"
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
	dir := args[0]
	files, err := inline.Files(os.DirFS(dir))
	if err != nil {
		return err
	}
	for file, text := range files {
		file = filepath.Join(dir, filepath.FromSlash(file))
		if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
			continue // keeps the modification time, which builds go by
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
		fmt.Println(file)
	}
	return nil
}
