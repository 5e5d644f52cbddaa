// Command generate writes the generated files of the folder of charts, its only argument. It
// copies the ConstraintTemplates and the ValidatingAdmissionPolicy from package policies, and
// writes the tables of values.yaml and alerts.yaml into each README.
package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/oke-sign/oke-sign/policies"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatalf("generate: %v", err)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one argument, the folder of charts; got %d", len(args))
	}
	dir, err := os.OpenRoot(args[0])
	if err != nil {
		return err
	}
	return errors.Join(write(dir), dir.Close())
}

func write(dir *os.Root) error {
	made, err := files(dir.FS())
	if err != nil {
		return err
	}
	for name, text := range made {
		if old, err := dir.ReadFile(name); err == nil && bytes.Equal(old, text) {
			continue
		}
		if err := dir.WriteFile(name, text, 0o644); err != nil {
			return err
		}
		fmt.Println(name)
	}
	return nil
}

// files returns every generated file of the folder of charts, by its path.
func files(charts fs.FS) (map[string][]byte, error) {
	made := make(map[string][]byte)
	for _, kind := range policies.Kinds() {
		name := strings.ToLower(kind)
		text, err := policies.Templates.ReadFile(name + "/template.yaml")
		if err != nil {
			return nil, err
		}
		made["oke-sign/policies/"+name+".yaml"] = text
	}
	made["oke-sign/admission/namespace-labels.yaml"] = policies.NamespaceLabels
	readmes, err := fs.Glob(charts, "*/README.md")
	if err != nil {
		return nil, err
	}
	if len(readmes) == 0 {
		return nil, errors.New("no */README.md found: not the folder of charts")
	}
	for _, readme := range readmes {
		text, err := fs.ReadFile(charts, readme)
		if err != nil {
			return nil, err
		}
		for source, table := range map[string]func([]byte) (string, error){"values.yaml": values, "alerts.yaml": alerts} {
			if text, err = fill(charts, path.Dir(readme), source, text, table); err != nil {
				return nil, err
			}
		}
		made[readme] = text
	}
	return made, nil
}

// fill writes the table of a source between its marks in the README. A chart without the source
// keeps its README.
func fill(charts fs.FS, chart, source string, readme []byte, table func([]byte) (string, error)) ([]byte, error) {
	text, err := fs.ReadFile(charts, path.Join(chart, source))
	if errors.Is(err, fs.ErrNotExist) {
		return readme, nil
	}
	if err != nil {
		return nil, err
	}
	begin, end := "<!-- begin "+source+" -->\n", "<!-- end "+source+" -->\n"
	before, rest, found := strings.Cut(string(readme), begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return nil, fmt.Errorf("%s/README.md has no marks for %s: %q and %q", chart, source, begin, end)
	}
	rows, err := table(text)
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", chart, source, err)
	}
	return []byte(before + begin + rows + end + after), nil
}

// values returns a table of all values. A value with a comment is a row, also if it is a map. A
// map without a comment is a group of values.
func values(text []byte) (string, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| value | default | meaning |\n|---|---|---|\n")
	err := rows(&b, "", document.Content[0])
	return b.String(), err
}

func rows(b *strings.Builder, group string, node *yaml.Node) error {
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := group + key.Value
		switch {
		case key.HeadComment != "":
			fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, inline(value), cell(comment(key.HeadComment)))
		case value.Kind == yaml.MappingNode && len(value.Content) > 0:
			if err := rows(b, name+".", value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("line %d: %s has no comment", key.Line, name)
		}
	}
	return nil
}

// comment returns the text of the last paragraph of comment lines. Earlier paragraphs describe
// more than the value.
func comment(lines string) string {
	paragraphs := strings.Split(lines, "\n\n")
	var words []string
	for line := range strings.Lines(paragraphs[len(paragraphs)-1]) {
		words = append(words, strings.Fields(strings.TrimPrefix(line, "#"))...)
	}
	return strings.Join(words, " ")
}

func inline(value *yaml.Node) string {
	if value.Kind == yaml.ScalarNode {
		return "`" + cmp.Or(value.Value, `""`) + "`"
	}
	flow := *value
	flow.Style = yaml.FlowStyle
	text, err := yaml.Marshal(&flow)
	if err != nil {
		return "" // A parsed node is always marshaled without an error.
	}
	return "`" + cell(strings.TrimSpace(string(text))) + "`"
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// alerts returns a table with the problem and the next step of each alert.
func alerts(text []byte) (string, error) {
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Labels      struct{ Severity string }
				Annotations struct{ Summary, Runbook string }
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("| alert | problem | next step |\n|---|---|---|\n")
	for _, group := range file.Groups {
		for _, r := range group.Rules {
			if r.Annotations.Summary == "" || r.Annotations.Runbook == "" {
				return "", fmt.Errorf("alert %s has no summary or no runbook", r.Alert)
			}
			fmt.Fprintf(&b, "| %s (%s) | %s | %s |\n", r.Alert, r.Labels.Severity, cell(r.Annotations.Summary), cell(r.Annotations.Runbook))
		}
	}
	return b.String(), nil
}
