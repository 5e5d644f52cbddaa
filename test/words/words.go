// Package words finds sentences that break the rules in CONTRIBUTING.md's section
// "Words". It reads comments, help texts, messages and documents. It only knows the
// words in its lists.
package words

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// openers start sentences whose subject is a clause.
var openers = regexp.MustCompile(`^(?:What|Whatever|Whoever|Whose|Who|Whichever|That (?:it|they|this|the|a|an|no|nobody|nothing)|Such)\b`)

// phrases are archaic words, double negatives, and words that the glossary replaces.
var phrases = regexp.MustCompile(`(?i)\b(?:` + strings.Join([]string{
	`all the same`, `anew`, `had better`, `(?:is|are) none of`, `lies in`, `mend(?:s|ed)?`,
	`no longer`, `not but`, `of (?:its|their) own`, `the like`, `whoever`,
	`break(?:s|ing)? the glass`, `under (?:the )?glass`, `glassed`,
	`doubtful`, `foresees?`, `foreseen`, `foresight`,
}, "|") + `)\b`)

// A Finding is a sentence with a banned word.
type Finding struct {
	Line     int
	Word     string
	Sentence string
}

// Find returns the banned words of a file. The file's name says its kind. Files of
// other kinds have none.
func Find(name string, text []byte) ([]Finding, error) {
	var found []Finding
	prose, err := read(name, string(text))
	for _, block := range prose {
		for sentence := range sentences(block.text) {
			word := phrases.FindString(strings.ReplaceAll(sentence, "no longer than", ""))
			if word == "" && block.kind == statement && !strings.HasSuffix(strings.TrimRight(sentence, ";"), "?") {
				word = openers.FindString(sentence)
			}
			if word != "" {
				found = append(found, Finding{block.line, word, sentence})
			}
		}
	}
	return found, err
}

// A block is a paragraph, a list item or a table's cell.
type block struct {
	line int
	text string
	kind kind
}

type kind int

const (
	statement kind = iota
	// A fragment is a heading or a message: it may start with any word.
	fragment
)

func read(name, text string) ([]block, error) {
	switch ext := filepath.Ext(name); {
	case ext == ".go":
		return readGo(name, text)
	case ext == ".md":
		return readMarkdown(text), nil
	case ext == ".rego", ext == ".yaml", ext == ".yml", ext == ".sh", filepath.Base(name) == "Makefile":
		return readComments(text), nil
	}
	return nil, nil
}

// readGo returns a Go file's comments, and its strings of more than one word. Strings of
// tests are not prose.
func readGo(name, text string) ([]block, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	var blocks []block
	for _, group := range file.Comments {
		blocks = append(blocks, paragraphs(group.Text(), files.Position(group.Pos()).Line, statement)...)
	}
	if strings.HasSuffix(name, "_test.go") {
		return blocks, nil
	}
	ast.Inspect(file, func(n ast.Node) bool {
		literal, isLiteral := n.(*ast.BasicLit)
		if !isLiteral || literal.Kind != token.STRING {
			return true
		}
		if text, err := strconv.Unquote(literal.Value); err == nil && strings.Contains(text, " ") {
			blocks = append(blocks, paragraphs(text, files.Position(literal.Pos()).Line, fragment)...)
		}
		return true
	})
	return blocks, nil
}

var (
	fence    = regexp.MustCompile("^ *```")
	code     = regexp.MustCompile("`[^`]*`")
	item     = regexp.MustCompile(`^ *(?:[-*]|\d+\.) +`)
	comment  = regexp.MustCompile(`^\s*#+ ?(.*)$`)
	trailing = regexp.MustCompile(`^[^"'#]*\S +# (.*)$`)
	end      = regexp.MustCompile(`[.!?:;]["')*_]*\s+`)
)

// readMarkdown returns the prose of a document, without code.
func readMarkdown(text string) []block {
	var prose strings.Builder
	inFence := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case fence.MatchString(line):
			inFence = !inFence
			line = ""
		case inFence, strings.HasPrefix(line, "    "), strings.HasPrefix(line, "<"):
			line = ""
		case strings.HasPrefix(line, "#"):
			line = "" // A heading may ask what it answers.
		case strings.HasPrefix(line, "|"):
			line = "- " + strings.ReplaceAll(strings.Trim(line, "| "), " | ", "; ")
		}
		prose.WriteString(line)
		prose.WriteString("\n")
	}
	return paragraphs(code.ReplaceAllString(prose.String(), "`code`"), 1, statement)
}

// readComments returns the comments of a language that starts them with #.
func readComments(text string) []block {
	var prose strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case comment.MatchString(line):
			prose.WriteString(comment.FindStringSubmatch(line)[1])
		case trailing.MatchString(line):
			prose.WriteString("- " + trailing.FindStringSubmatch(line)[1])
		}
		prose.WriteString("\n")
	}
	return paragraphs(prose.String(), 1, statement)
}

// paragraphs cuts a text at its empty lines and list items.
func paragraphs(text string, line int, kind kind) []block {
	var blocks []block
	var words []string
	first := line
	flush := func() {
		if len(words) > 0 {
			blocks = append(blocks, block{first, strings.Join(words, " "), kind})
		}
		words = nil
	}
	for row := range strings.Lines(text) {
		isItem := item.MatchString(row)
		row = strings.TrimSpace(item.ReplaceAllString(row, ""))
		if row == "" || isItem {
			flush()
		}
		if len(words) == 0 {
			first = line
		}
		if row != "" {
			words = append(words, row)
		}
		line++
	}
	flush()
	return blocks
}

// sentences yields a block's sentences. A colon and a semicolon end one, too.
func sentences(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for text != "" {
			at := end.FindStringIndex(text)
			if at == nil {
				yield(text)
				return
			}
			if !yield(strings.TrimSpace(text[:at[1]])) {
				return
			}
			text = text[at[1]:]
		}
	}
}
