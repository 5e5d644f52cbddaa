package words_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/oke-sign/oke-sign/test/words"
)

// kept are sentences that need a banned word, with the cause.
var kept = map[string]string{
	"doubtful":       "the glossary names the words that it replaces",
	"judge, foresee": "the glossary names the words that it replaces",
	"`code` runs `code`, which finds sentences that start with a clause (\"What …\", \"Whoever …\") and words that the glossary replaces.": "the rule gives examples",
}

// keptNames are terms that others have coined.
var keptNames = map[string]string{
	"Principal":                  "OCI's IAM has principals, which the emulator plays",
	`json:"principal,omitempty"`: "the same in the emulator's state",
}

// eachFile calls check with each file of the project, by its path from the root.
func eachFile(t *testing.T, check func(path string, text []byte) error) {
	t.Helper()
	const root = "../.."
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "bin", "dist", "testdata", "generated", "words"}, entry.Name()):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return check(strings.TrimPrefix(filepath.ToSlash(path), root+"/"), text)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheTree(t *testing.T) {
	used := make(map[string]bool)
	eachFile(t, func(file string, text []byte) error {
		found, err := words.Find(file, text)
		for _, f := range found {
			if _, isKept := kept[f.Sentence]; isKept {
				used[f.Sentence] = true
				continue
			}
			t.Errorf("%s:%d: %q: %s", file, f.Line, f.Word, f.Sentence)
		}
		return err
	})
	for sentence := range kept {
		if !used[sentence] {
			t.Errorf("no file has the exception %q", sentence)
		}
	}
}

func TestNamesAreOfTheGlossary(t *testing.T) {
	eachFile(t, func(file string, text []byte) error {
		found, err := words.FindNames(file, text)
		for _, name := range found {
			if keptNames[name] == "" || path.Dir(file) != "test/ocitest" {
				t.Errorf("%s: %s", file, name)
			}
		}
		return err
	})
}

func TestFind(t *testing.T) {
	for name, tc := range map[string]struct {
		file, text string
		want       []words.Finding
	}{
		"a Go comment": {
			"a.go", "package a\n\n// A is good.\n// What B says\n// is so. A is made anew.\nvar A int\n",
			[]words.Finding{{3, "What", "What B says is so."}, {3, "anew", "A is made anew."}},
		},
		"a question": {"a.go", "// What is it?\npackage a\n", nil},
		"a message of Go": {
			"a.go", "package a\n\nconst a = \"what is none of them\"\n",
			[]words.Finding{{3, "is none of", "what is none of them"}},
		},
		"a string of a test": {"a_test.go", "package a\n\nconst a = \"is none of them\"\n", nil},
		"paragraphs of a document": {
			"a.md", "# What it is\n\nGood.\n\nSuch is\nbad.\n\n    what is none\n\n```\nanew\n```\n- `anew`: That it is.\n",
			[]words.Finding{{5, "Such", "Such is bad."}, {13, "That it", "That it is."}},
		},
		"cells of a table": {
			"a.md", "| a | b |\n|---|---|\n| good | Who asks |\n",
			[]words.Finding{{3, "Who", "Who asks"}},
		},
		"comments of Rego": {
			"a.rego", "package a\n\n# Whoever asks.\na := \"# anew\" # whoever\nb := 1 # anew\n",
			[]words.Finding{{3, "Whoever", "Whoever asks."}, {5, "anew", "anew"}},
		},
		"another kind of file": {"a.json", "anew", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := words.Find(tc.file, []byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := words.Find("a.go", []byte("package")); err == nil {
		t.Error("an invalid Go file returns no error")
	}
}

func TestFindNames(t *testing.T) {
	for name, tc := range map[string]struct {
		file, text string
		want       []string
	}{
		"exported names of Go": {
			"a.go", "package gate\n\ntype Judge struct {\n\tKept, kept int\n}\n\nfunc (Judge) Foresee(glass int) {}\n\nconst BreakGlass, Gatekeeper = 1, 2\n",
			[]string{"gate", "Judge", "Kept", "Foresee"},
		},
		"flags, JSON and metrics": {
			"a.go", "package a\n\nfunc a() { f.StringVar(&x, \"break-the-glass\", \"a gate\"); f.Bool(\"break-glass\", false) }\n\nvar b struct {\n\tA int `json:\"lane\"`\n}\n\nvar c = \"oke_sign_kept_total\"\n",
			[]string{"break-the-glass", `json:"lane"`, "oke_sign_kept_total"},
		},
		"terms of OCI": {"a.go", "package a\n\nconst InstancePrincipal = \"instance_principal\"\n", nil},
		"Rego": {
			"a.rego", "package lib.doubtful\n\nimport rego.v1\n\n# glass\ndefault kept := 1\n\nlifted(x) if { x }\n",
			[]string{"lib.doubtful", "kept", "lifted"},
		},
		"a test": {"a_test.go", "package a\n\ntype Judge int\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := words.FindNames(tc.file, []byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
		})
	}
}
