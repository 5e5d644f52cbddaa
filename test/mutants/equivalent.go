package main

import (
	"fmt"
	"os"
	"strings"
)

// equivalent has the reasons why mutants change nothing observable, by name.
type equivalent map[string]string

// readEquivalent reads pairs of lines: the mutant's name, then the reason, indented.
// Empty lines and lines that begin with # count for nothing.
func readEquivalent(file string) (equivalent, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	explained := equivalent{}
	name := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch reason, indented := strings.CutPrefix(line, "\t"); {
		case line == "" || strings.HasPrefix(line, "#"):
		case indented && name != "":
			explained[name] = strings.TrimSpace(explained[name] + " " + reason)
		case indented:
			return nil, fmt.Errorf("%s: a reason without a mutant: %s", file, line)
		default:
			name = line
			explained[name] = ""
		}
	}
	for name, reason := range explained {
		if reason == "" {
			return nil, fmt.Errorf("%s: no reason for %s", file, name)
		}
	}
	return explained, nil
}

// check returns an error if an explanation names a mutant that does not exist.
func (e equivalent) check(all []Mutant) error {
	names := map[string]bool{}
	for _, m := range all {
		names[m.Name()] = true
	}
	for name := range e {
		if !names[name] {
			return fmt.Errorf("equivalent.txt explains a mutant that does not exist: %s", name)
		}
	}
	return nil
}
