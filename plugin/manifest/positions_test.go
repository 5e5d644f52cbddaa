package manifest_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/plugin/manifest"
)

func TestLocate(t *testing.T) {
	const list = "apiVersion: v1\nkind: List\nitems:\n"
	const deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\nspec:\n  template:\n    spec:\n      initContainers:\n      - image: i\n      containers:\n      - name: c\n        image: x\n"
	for name, tc := range map[string]struct {
		text string
		want []string // the line of an object, and those of its images
	}{
		"one":                          {pod + "x\n", []string{"1 containers/web:7"}},
		"behind comments":              {"# one\n\n# two\n" + pod + "x\n", []string{"4 containers/web:10"}},
		"in one line":                  {"{apiVersion: v1, kind: Pod, spec: {containers: [{name: web, image: x}]}}", []string{"1 containers/web:1"}},
		"several documents":            {pod + "x\n---\n" + deployment + "--- # more\n# y\n" + pod + "z", []string{"1 containers/web:7", "9 initContainers/0:17 containers/c:20", "23 containers/web:29"}},
		"separators first and last":    {"---\n" + pod + "x\n---\n---\n\n---\n# z\n---\n" + pod + "x\n---\n", []string{"2 containers/web:8", "15 containers/web:21"}},
		"the same name twice":          {pod + "x\n---\n" + pod + "x\n", []string{"1 containers/web:7", "9 containers/web:15"}},
		"lines of Windows":             {strings.ReplaceAll("---\n"+pod+"x\n---\n# c\n"+deployment, "\n", "\r\n"), []string{"2 containers/web:8", "11 initContainers/0:19 containers/c:22"}},
		"old ends of lines":            {strings.ReplaceAll(pod+"x\n", "\n", "\r"), []string{"1 containers/web:1"}},
		"breaks that only YAML counts": {"apiVersion: v1\nkind: Pod\nmetadata: {annotations: {a: \"x\u2028y\u2029\u0085z\"}}\nspec: {containers: [{name: web,\n  image: x}]}", []string{"1 containers/web:5"}},
		"a mark of byte order":         {"\ufeff" + pod + "x\n---\n" + pod + "x\n", []string{"1 containers/web:7", "9 containers/web:15"}},
		"a mark before a separator":    {"\ufeff---\n" + pod + "x\n", []string{"2 containers/web:8"}},
		"JSON":                         {"{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Pod\",\n  \"spec\": {\"containers\": [\n    {\n      \"name\": \"web\",\n      \"image\": \"x\"\n    }\n  ]}\n}\n", []string{"2 containers/web:7"}},
		"JSON in one line":             {`{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"name":"web","image":"x"}]}}]}`, []string{"1 containers/web:1"}},
		"a list":                       {list + "- apiVersion: v1\n  kind: Service\n-\n  # c\n  " + strings.ReplaceAll(pod, "\n", "\n  ") + "x\n", []string{"4", "8 containers/web:14"}},
		"lists in a list":              {list + "- apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: v1\n    kind: A\n- apiVersion: v1\n  kind: B\n", []string{"7", "9"}},
		"an empty list":                {list + "  []\n---\n" + pod + "x", []string{"6 containers/web:12"}},
		"an item shared":               {list + "- &a\n  apiVersion: v1\n  kind: Pod\n  spec: {containers: [{image: x}]}\n- *a\n", []string{"5 containers/0:7", "5 containers/0:7"}},
		"a spec shared":                {list + "- {apiVersion: v1, kind: A, spec: &s {\n    containers: [{image: x}]}}\n- {apiVersion: v1, kind: B, spec: *s}\n", []string{"4 containers/0:5", "6 containers/0:5"}},
		"an image shared":              {"# c\nx: &i x\n" + pod + "*i\n", []string{"2 containers/web:2"}},
		"a container merged in":        {"x-base: &b\n  image: x\n" + strings.TrimSuffix(pod, "    image: ") + "    <<: *b\n  - <<: [*b]\n    name: two\n", []string{"1 containers/web:2 containers/two:2"}},
		"an object merged in":          {list + "- &a\n  apiVersion: v1\n  kind: Pod\n- <<: *a\n  spec:\n    containers:\n    - image: x\n", []string{"5", "7 containers/0:10"}},
		"on the next line":             {pod + "# c\n      x\n", []string{"1 containers/web:8"}},
		"folded":                       {pod + ">-\n      x\n", []string{"1 containers/web:7"}},
		"a volume":                     {pod + "x\n  volumes:\n  - name: v\n    image:\n      reference: z\n", []string{"1 containers/web:7 volumes/v:11"}},
		"a CronJob":                    {"apiVersion: batch/v1\nkind: CronJob\nspec:\n  jobTemplate:\n    spec:\n      template:\n        spec:\n          containers:\n          - name: c\n            image: x\n", []string{"1 containers/c:10"}},
		"a PodTemplate":                {"apiVersion: v1\nkind: PodTemplate\ntemplate:\n  spec:\n    containers:\n    - image: x\n", []string{"1 containers/0:6"}},
		"a JobSet":                     {"apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\nspec:\n  replicatedJobs:\n  - template: {spec: {template: {spec: {containers: [{name: c, image: x}]}}}}\n  - template: {spec: {template: {spec: {containers: [{name: c, image: z}]}}}}\n", []string{"1 containers/c:5 containers/c:6"}},
		"nothing":                      {"# nothing\n---\n", nil},
	} {
		located, err := manifest.Locate([]byte(tc.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, l := range located {
			line := fmt.Sprint(l.Lines.Object)
			images, err := manifest.Images(l.Object)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, i := range images {
				line += fmt.Sprintf(" %s:%d", i.Place(), l.Lines.Image(i.Place(), i.Ref))
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// An image that cannot be located gets the line of its object, without an error.
func TestLocateWhatIsNotThere(t *testing.T) {
	const long = "a-name-of-a-container-that-is-longer-than-forty-characters"
	text := "# c\n" + pod + "x\n  - name: none\n  - name: " + long + "-1\n    image: w\n  - name: " + long + "-2\n    image: z\n"
	located, err := manifest.Locate([]byte(text))
	if err != nil || len(located) != 1 {
		t.Fatalf("%d objects, %v", len(located), err)
	}
	for _, tc := range []struct {
		place, ref string
		want       int
	}{
		{"containers/web", "x", 8},
		{"containers/web", "z", 2},
		{"containers/other", "x", 2},
		{"object", "Pod", 2},
		{"", "", 2},
		{"containers/none", "", 9},
		{"containers/" + long[:38] + "..", "z", 13}, // as policies cut it
	} {
		if got := located[0].Lines.Image(tc.place, tc.ref); got != tc.want {
			t.Errorf("%s with %q: line %d, want %d", tc.place, tc.ref, got, tc.want)
		}
	}
	var utf16be []byte
	for _, unit := range utf16.Encode([]rune("\ufeff{apiVersion: v1,\u2028\u2028\u2028 kind: Pod, spec: {containers: [{image: x}]}}\n")) {
		utf16be = append(utf16be, byte(unit>>8), byte(unit)) //nolint:gosec // its two bytes
	}
	for name, text := range map[string]string{
		"invalid containers": "apiVersion: v1\nkind: Pod\nspec:\n  containers: {a: {image: x}}",
		"an invalid image":   "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - {name: a, image: 5}",
		"another encoding":   string(utf16be),
	} {
		located, err := manifest.Locate([]byte(text))
		if err != nil || len(located) != 1 || located[0].Lines.Object != 1 || located[0].Lines.Image("containers/a", "x") != 1 {
			t.Errorf("%s: %+v, %v", name, located, err)
		}
	}
}

// In a hostile document, every image can be far from the start of its search.
func TestLocateManyBehindMany(t *testing.T) {
	const many = 100000
	var text strings.Builder
	text.WriteString("apiVersion: v1\nkind: Pod\nspec:\n")
	for i := range many {
		fmt.Fprintf(&text, "  x%d: 1\n", i)
	}
	text.WriteString("  containers:\n" + strings.Repeat("  - image: x\n", many))
	start := time.Now()
	located, err := manifest.Locate([]byte(text.String()))
	if err != nil || len(located) != 1 {
		t.Fatalf("%d objects, %v", len(located), err)
	}
	if got, want := located[0].Lines.Image(fmt.Sprintf("containers/%d", many-1), "x"), 4+2*many; got != want {
		t.Errorf("line %d, want %d", got, want)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Each image has a line that exists.
func FuzzLocate(f *testing.F) {
	f.Add([]byte("{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, spec: &s {containers: [{image: x}]}}, {apiVersion: v1, kind: Pod, spec: *s}]}"))
	f.Add([]byte("\ufeff---\r\napiVersion: v1\rkind: Pod\u2028spec:\u0085 {containers: [{image: x}, {<<: {image: y}}, {\"<<\": z}]}\n---\n"))
	f.Add([]byte(pod + "x\n---\n# c\n---\n" + pod + "&a x\n  - image: *a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		located, err := manifest.Locate(text)
		if err != nil && located != nil {
			t.Error("objects beside an error")
		}
		for _, l := range located {
			lines := []int{l.Lines.Object}
			images, _ := manifest.Images(l.Object)
			for _, i := range images {
				lines = append(lines, l.Lines.Image(i.Place(), i.Ref))
			}
			if most := bytes.Count(text, []byte("\n")) + 1; slices.Min(lines) < 1 || slices.Max(lines) > most {
				t.Errorf("lines %v of %d", lines, most)
			}
		}
	})
}
