package cli

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminalWidth returns the number of columns of the terminal behind w. It returns 0 if
// w is not a terminal or does not report its size.
func terminalWidth(w io.Writer) int {
	if counting, ok := w.(*countingWriter); ok {
		w = counting.Writer
	}
	f, ok := w.(interface{ Fd() uintptr })
	if !ok || !isTerminal(w) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd())) //nolint:gosec // a descriptor is small
	if err != nil {
		return 0
	}
	return width
}

// copied marks a cell for copying. It never wraps, because a shell would run the part
// before the line break.
const copied = "\x00"

// ToCopy marks a text that people copy, such as a command: a table never breaks it.
func ToCopy(text string) string { return copied + text }

// Sizes of tables that fit the terminal.
const (
	gap       = 2  // between columns
	leastCell = 16 // a column is made no narrower
	mostLines = 3  // text stays in a narrow column as long as it takes no more lines
	shortText = 24 // is no text, and a column as any other
	leastName = 30 // of the widest column beside it, which has the names
	wideText  = 44 // in a column so wide, it may take as many as it needs
	below     = "    "
)

// fit writes a table in lines of at most width where possible. Longer cells wrap
// between words. Text that would become a narrow column goes below its row, across the
// whole width.
func fit(b *bytes.Buffer, table [][]string, st style) {
	last, width := len(table[0])-1, st.width
	widths := make([]int, last+1)
	for _, row := range table {
		for i, cell := range row {
			if !strings.HasPrefix(cell, copied) {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	text := width - total(widths[:last]) - gap
	beside := slices.Clone(widths)
	under := text < widths[last] && text < wideText && lines(table, last, text) > mostLines
	if widths[last] <= shortText {
		narrow(beside, width)
		under = last > 0 && slices.Max(beside[:last]) < leastName
	} else {
		beside[last] = min(widths[last], text)
	}
	if under {
		narrow(widths[:last], width)
	} else {
		widths = beside
	}
	for _, row := range table {
		end := row[last]
		whole, isCopied := strings.CutPrefix(end, copied)
		fits := isCopied && utf8.RuneCountInString(whole) <= max(text, 0)
		var cells []lined
		for i, cell := range row[:last] {
			cells = append(cells, lined{broken(cell, widths[i], anywhere), st.tint(cell)})
		}
		switch {
		case fits && !under:
			cells = append(cells, lined{[]string{whole}, ""})
		case !under && !isCopied:
			cells = append(cells, lined{broken(end, widths[last], inNames), st.tint(end)})
		}
		writeCells(b, cells, grid{widths, gap})
		switch {
		case isCopied && (under || !fits):
			b.WriteString(below + whole + "\n")
		case under:
			// A long word, such as a digest, is left to the terminal, which can still copy it.
			for _, line := range broken(end, width-len(below), nowhere) {
				b.WriteString(below + line + "\n")
			}
		}
	}
}

func total(widths []int) int {
	sum := gap * max(0, len(widths)-1)
	for _, w := range widths {
		sum += w
	}
	return sum
}

// lines returns the number of lines of the longest cell of a column.
func lines(table [][]string, column, width int) int {
	most := 0
	for _, row := range table {
		if width < leastCell {
			return mostLines + 1
		}
		if !strings.HasPrefix(row[column], copied) {
			most = max(most, len(broken(row[column], width, inNames)))
		}
	}
	return most
}

// narrow shrinks the widest columns until all columns fit, or none can shrink further.
func narrow(widths []int, width int) {
	for total(widths) > width {
		widest := slices.Index(widths, slices.Max(widths))
		next := leastCell
		for _, w := range widths {
			if w < widths[widest] {
				next = max(next, w)
			}
		}
		if widths[widest] <= leastCell {
			return
		}
		widths[widest] -= max(1, min(total(widths)-width, widths[widest]-next))
	}
}

// lined is a cell in lines, and its colour.
type lined struct {
	lines []string
	tint  string
}

// grid has the widths of columns, and the text between them.
type grid struct {
	widths []int
	gap    int
}

// writeCells writes the cells of a row beside each other. A colour takes no room.
func writeCells(b *bytes.Buffer, cells []lined, g grid) {
	height := 0
	for _, c := range cells {
		height = max(height, len(c.lines))
	}
	for n := range height {
		line, at, written := "", 0, 0
		for i, c := range cells {
			if n < len(c.lines) {
				if text := strings.TrimRight(c.lines[n], " "); text != "" {
					line += strings.Repeat(" ", at-written)
					written = at + utf8.RuneCountInString(text)
					if c.tint != "" {
						text = c.tint + text + noTint
					}
					line += text
				}
			}
			at += g.widths[i] + g.gap
		}
		if line != "" || height == 1 {
			b.WriteString(line + "\n")
		}
	}
}

// Places at which a word that is longer than a line may break. Other words stay whole:
// the terminal wraps them, and users can still copy them.
const (
	nowhere  = iota
	inNames  // after parts of an image's name
	anywhere // to keep out of the next column
)

// broken returns a text in lines of at most width where possible. It breaks between words;
// words says where a longer word may break.
func broken(text string, width, words int) []string {
	var found []string
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	width -= len(indent)
	line := ""
	flush := func() {
		if line != "" {
			found = append(found, indent+line)
		}
		line = ""
	}
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width {
			line += " " + word
			continue
		}
		flush()
		for words != nowhere && utf8.RuneCountInString(word) > max(width, 1) {
			start := string([]rune(word)[:max(width, 1)])
			end := cmp.Or(strings.LastIndexAny(start, "/@")+1, strings.LastIndexAny(start, ":,")+1)
			if end == 0 && words == inNames {
				break
			}
			end = cmp.Or(end, len(start))
			found = append(found, indent+word[:end])
			word = word[end:]
		}
		line = word
	}
	flush()
	return found
}

// countingWriter counts the bytes that go through it.
type countingWriter struct {
	io.Writer
	n int
}

func (w *countingWriter) Write(b []byte) (int, error) {
	w.n += len(b)
	return w.Writer.Write(b)
}
