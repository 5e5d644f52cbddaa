package main

import (
	"bytes"
	"fmt"
	"strings"
)

// Mutant is one small change to one source file. It shows whether a test notices the
// change.
type Mutant struct {
	// File is the changed file, relative to the module's folder.
	File string
	// Place is the function or rule that holds the change. With File and Change it
	// identifies the mutant, also after lines have moved.
	Place string
	// Change says what the mutant does: the old text, an arrow, the new text.
	Change string
	// Line is the line of the change, for people.
	Line int

	number     int // from 1, among all mutants
	start, end int // the changed bytes of the file

	// In Rego, text replaces these bytes. In Go, they get a switch around them. The
	// switch takes a comparison's operands as arguments, so a comma replaces the
	// operator.
	text                  string
	switched              wrap
	operator, operatorEnd int
}

// Name identifies a mutant across edits of the file that do not touch its function.
func (m Mutant) Name() string { return m.File + " " + m.Place + ": " + m.Change }

func (m Mutant) isRego() bool { return strings.HasSuffix(m.File, ".rego") }

// Apply returns the Rego file's text with the change made.
func (m Mutant) Apply(source []byte) []byte {
	var b bytes.Buffer
	b.Write(source[:m.start])
	b.WriteString(m.text)
	b.Write(source[m.end:])
	return b.Bytes()
}

// distinguish makes the names of mutants unique, by their order in the file.
func distinguish(mutants []Mutant) []Mutant {
	seen := map[string]int{}
	for i := range mutants {
		name := mutants[i].Name()
		seen[name]++
		if n := seen[name]; n > 1 {
			mutants[i].Change += fmt.Sprintf(" (%d)", n)
		}
	}
	return mutants
}

// oneLine shows a piece of source in one short line.
func oneLine(source string) string {
	const most = 90
	s := strings.Join(strings.Fields(source), " ")
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}
