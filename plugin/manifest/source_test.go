package manifest_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/provider/image"
)

const (
	tagged = "iad.ocir.io/ns/web:v1"
	digest = "sha256:9b2f2a1cf4a1b2d0a5d2f2a1cf4a1b2d0a5d2f2a1cf4a1b2d0a5d2f2a1cf4a1b"
	pinned = "iad.ocir.io/ns/web@" + digest
	kept   = "iad.ocir.io/ns/web:v1@" + digest
)

// pod is a manifest up to the value of its image.
const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: web\n    image: "

func TestPin(t *testing.T) {
	kustomization := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nimages:\n"
	for name, text := range map[string]string{
		"plain":                    pod + "IMAGE\n",
		"without a last line":      pod + "IMAGE",
		"in double quotes":         pod + "\"IMAGE\"\n",
		"in single quotes":         pod + "'IMAGE' # not 'iad.ocir.io/ns/web:v1'\n",
		"with a comment":           "# iad.ocir.io/ns/web:v1 first\n" + pod + "IMAGE # iad.ocir.io/ns/web:v1, or another\n    # more\n",
		"on the next line":         pod + "\n      IMAGE\n",
		"folded":                   pod + ">-\n      IMAGE\n    env: []\n",
		"as a block":               pod + "|-  # why\n      IMAGE\n\n",
		"with an anchor":           pod + "&image IMAGE\n",
		"with an anchor and a tag": pod + "&image !!str 'IMAGE'\n",
		"with a tag and a comment": pod + "!!str # a comment\n      IMAGE\n",
		"used twice":               pod + "&image IMAGE\n  initContainers:\n  - {name: b, image: *image}\n",
		"merged in":                "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - &base\n    image: IMAGE\n  - <<: *base\n    name: a\n  - <<: [*base]\n",
		"a whole spec shared":      "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  spec: &spec {containers: [{name: a, image: IMAGE}]}\n- {apiVersion: v1, kind: Pod, spec: *spec}\n",
		"lines of Windows":         strings.ReplaceAll(pod+"IMAGE\n  - {name: b, image: 'IMAGE'}\n", "\n", "\r\n"),
		"a mark of byte order":     "\ufeff" + pod + "IMAGE\n",
		"a mark and flow style":    "\ufeff{apiVersion: v1, kind: Pod, spec: {containers: [{name: a, image: IMAGE}]}}",
		"behind other characters":  "{apiVersion: v1, kind: Pod, metadata: {annotations: {wo: 'größer → 日本 🚀'}}, spec: {containers: [{name: a, image: IMAGE}]}}",
		"behind other breaks":      "apiVersion: v1\nkind: Pod\nmetadata: {annotations: {a: \"x\u2028y\u0085z\"}}\nspec: {containers: [{name: a, image: IMAGE}]}",
		"behind tabs":              "apiVersion:\tv1\nkind: Pod\t# x\nspec:\n  containers:\n  - name: a\n    image:\t \tIMAGE\t\n",
		"JSON":                     `{"apiVersion":"v1","kind":"Pod","spec":{"containers":[{"image":"IMAGE","name":"a"}]}}`,
		"JSON with tabs":           "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\",\n\t\"spec\": {\"containers\": [\n\t\t{\"name\": \"a\", \"image\": \"IMAGE\"}\n\t]}\n}\n",
		"several documents":        "# first\n---\n" + pod + "IMAGE\n--- # second\n" + pod + "'IMAGE'\n---\n\n---\n# last\n",
		"a Deployment":             "apiVersion: apps/v1\nkind: Deployment\nspec:\n  template:\n    spec:\n      containers: [{name: a, image: IMAGE}]\n      volumes: [{name: v, image: {reference: IMAGE}}, {name: w, emptyDir: {}}]\n",
		"a CronJob":                "apiVersion: batch/v1\nkind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a, image: IMAGE}]}}}}}\n",
		"a set of jobs":            "apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\nspec: {replicatedJobs: [{template: {spec: {template: {spec: {containers: [{image: IMAGE}]}}}}}]}\n",
		"a patch":                  "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, env: []}, {name: b, image: IMAGE}]}\n",
		"many":                     pod + "IMAGE\n  - name: other\n    image: docker.io/library/nginx:1\n  - name: done\n    image: iad.ocir.io/ns/web:v2@" + digest + "\n  - name: again\n    image: IMAGE\n",
		"escaped":                  pod + `"iad.ocir.io/ns\x2fweb\u003av1"` + "\n",
		"folded in quotes":         pod + "\"iad.ocir.io/\\\n      ns/web:v1\"\n",

		"a kustomization":               kustomization + "- name: web # the web\n  newName: iad.ocir.io/ns/web\n  newTag: v1 # latest\nresources: [a.yaml]\n",
		"a kustomization, tag first":    kustomization + "  - newTag: 'v1'\n    name: iad.ocir.io/ns/web\n",
		"a kustomization in flow style": kustomization + "- {name: web, newName: iad.ocir.io/ns/web, newTag: v1}\n",
		"a kustomization in JSON":       `{"apiVersion":"kustomize.config.k8s.io/v1alpha1","kind":"Component","images":[{"name":"iad.ocir.io/ns/web","newTag":"v1"}]}`,
		"a kustomization without kind":  "images:\r\n- name: iad.ocir.io/ns/web\r\n  newTag: v1\r\n",
	} {
		text = strings.ReplaceAll(text, "IMAGE", tagged)
		for _, keep := range []bool{false, true} {
			source, err := manifest.Read("dir/kustomization.yaml", []byte(text))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			got, err := source.Pin(map[string]string{tagged: digest}, keep)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			want := expected(text, keep)
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("%s, keeping tags: %v: %s", name, keep, diff)
			}
			again, err := manifest.Read("kustomization.yaml", got)
			if err != nil {
				t.Fatalf("%s: reading what was pinned: %v", name, err)
			}
			for _, image := range again.Images {
				if image.Ref == tagged {
					t.Errorf("%s: %s was left", name, image.Place())
				}
			}
		}
	}
}

// expected returns the result of pinning, from the text alone.
func expected(text string, keep bool) string {
	to := pinned
	if keep {
		to = kept
	}
	var out []string
	for line := range strings.Lines(text) {
		code, comment, _ := strings.Cut(line, " #")
		if comment != "" {
			comment = " #" + comment
		}
		if !strings.HasPrefix(code, "#") {
			code = strings.ReplaceAll(code, tagged, to)
			code = strings.ReplaceAll(code, `iad.ocir.io/ns\x2fweb\u003av1`, to)
		}
		out = append(out, code+comment)
	}
	text = strings.ReplaceAll(strings.Join(out, ""), "iad.ocir.io/\\\n      ns/web:v1", to)
	replace := func(tag, without, with string) {
		if keep {
			without = with + tag
		}
		text = strings.ReplaceAll(text, tag, without)
	}
	replace("  newTag: v1 # latest", "  digest: "+digest+" # latest", "  digest: "+digest+"\n")
	replace("newTag: 'v1'", "digest: '"+digest+"'", "digest: "+digest+"\n    ")
	replace("newTag: v1}", "digest: "+digest+"}", "digest: "+digest+", ")
	replace(`"newTag":"v1"`, `"digest":"`+digest+`"`, `"digest": "`+digest+`", `)
	replace("  newTag: v1\r\n", "  digest: "+digest+"\r\n", "  digest: "+digest+"\r\n")
	return text
}

func TestRead(t *testing.T) {
	const text = "# x\n---\n" + pod + "a:1\n  volumes: [{name: v, image: {reference: b}}]\n---\n" +
		"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nimages: [{name: c}, {name: d, newTag: x}, {name: e, newName: f, newTag: why, digest: z}]\n"
	type named struct {
		Object, Place, Ref string
		Line               int
		Elsewhere          bool
	}
	want := []named{
		{"Pod/a", "containers/web", "a:1", 9, false},
		{"Pod/a", "volumes/v", "b", 10, false},
		{"Kustomization", "images/c", "c", 14, true},
		{"Kustomization", "images/d", "d:x", 14, false},
		{"Kustomization", "images/e", "f:why@z", 14, false},
	}
	for _, end := range []string{"\n", "\r\n"} {
		source, err := manifest.Read("x.yaml", []byte(strings.ReplaceAll(text, "\n", end)))
		if err != nil {
			t.Fatal(err)
		}
		var got []named
		for _, i := range source.Images {
			got = append(got, named{i.Object, i.Place(), i.Ref, i.Line, i.Elsewhere})
		}
		if diff := cmp.Diff(want, got); diff != "" || source.Objects != 2 {
			t.Errorf("%d objects, lines ended by %q: %s", source.Objects, end, diff)
		}
	}
	for name, tc := range map[string]struct {
		text string
		is   error
		says string
	}{
		"values":                    {"image: nginx\n", manifest.ErrNoObject, "document 1"},
		"a list of patches":         {"- op: add\n", manifest.ErrNoObject, ""},
		"a kustomization in a list": {"{apiVersion: v1, kind: List, items: [{images: []}]}", manifest.ErrNoObject, "item 0"},
		"a template":                {"apiVersion: v1\nkind: Pod\n{{ if .x }}\nspec: {}\n{{ end }}", manifest.ErrTemplate, ""},
		"a template of an image":    {pod + "'{{ .Values.image }}'", manifest.ErrTemplate, "containers/web of Pod/a"},
		"items in a Pod":            {"apiVersion: v1\nkind: Pod\nitems: []\n", nil, "items in a Pod, which is no list"},
		"a field that is twice":     {pod + "a\n    image: b\n", nil, "already set"},
		"containers as a map":       {"apiVersion: v1\nkind: Pod\nspec: {containers: {a: {}}}", nil, "containers must be a list"},
		"an invalid image":          {pod + "5", nil, "names no image"},
		"a tag that is a number":    {"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nimages: [{name: a, newTag: 1.0}]", nil, "newTag must be text; quote it"},
		"invalid images":            {"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nimages: {}", nil, "images must be a list"},
		"two on a line":             {"--- {apiVersion: v1, kind: Pod}\n--- {apiVersion: v1, kind: Pod}", nil, "more than one document"},
		"another encoding":          {"\xff\xfea\x00", nil, "UTF-8"},
	} {
		_, err := manifest.Read("x.yaml", []byte(tc.text))
		if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An anchor with another user cannot be pinned in place.
func TestPinSharedWithOthers(t *testing.T) {
	source, err := manifest.Read("x.yaml", []byte("x-image: &image "+tagged+"\n"+pod+"*image\n"))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := source.Pin(map[string]string{tagged: digest}, false); err == nil || text != nil || !strings.Contains(err.Error(), "&name") {
		t.Errorf("%s, %v", text, err)
	}
}

// Pinning changes only the values of images, as Kubernetes' own reader reads them.
func FuzzPin(f *testing.F) {
	for _, seed := range []string{
		pod + tagged + "\n", pod + "&a 'x'\n  - image: *a\n", "\ufeff" + pod + ">-\r\n      x\r\n",
		pod + "!!str # c\n      x\n---\n" + pod + "\"x\\x61\"", "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, spec: &s {containers: [{image: x}]}}, {apiVersion: v1, kind: Pod, spec: *s}]}",
		"images: [{name: x, newTag: v1}, {\"name\": y/z, ? \"newTag\" : v1}]", "images:\r\n- name: x\r\n  newTag: |-\r\n    v1\r\n",
		"a: &a {image: x}\napiVersion: v1\nkind: Pod\nspec: {containers: [{<<: *a}]}", "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: \"\u2028\u0085ä\", image: ä}]}",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, keep bool) {
		source, err := manifest.Read("kustomization.yaml", text)
		if err != nil {
			return
		}
		digests := make(map[string]string)
		var refs []string
		for _, named := range source.Images {
			refs = append(refs, named.Ref)
			if !strings.Contains(named.Ref, "@") && !named.Elsewhere && image.Classify(named.Ref) != image.Ambiguous {
				digests[named.Ref] = digest
			}
		}
		got, err := source.Pin(digests, keep)
		if err != nil {
			if got != nil {
				t.Error("text beside an error")
			}
			return
		}
		if len(digests) == 0 && !bytes.Equal(text, got) {
			t.Error("nothing was to be pinned, and something was")
		}
		again, err := manifest.Read("kustomization.yaml", got)
		if err != nil {
			t.Fatalf("what was pinned cannot be read: %v", err)
		}
		var want, found []string
		for i, named := range again.Images {
			found = append(found, named.Ref)
			if _, ok := digests[refs[i]]; ok && !source.Images[i].Elsewhere {
				refs[i] = manifest.Pinned(refs[i], digest, keep)
			}
			want = append(want, refs[i])
		}
		if diff := cmp.Diff(want, found); diff != "" {
			t.Error(diff)
		}
		before, err := manifest.Objects(text)
		if err != nil {
			return // a kustomization, or a patch
		}
		after, err := manifest.Objects(got)
		if err != nil || len(before) != len(after) {
			t.Fatalf("%d objects of %d: %v", len(after), len(before), err)
		}
		for i := range before {
			if _, err := manifest.Images(before[i]); err != nil {
				continue
			}
			if diff := cmp.Diff(blank(before[i].Object), blank(after[i].Object)); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// blank returns a value without the fields that can have images.
func blank(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for k, v := range value {
			_, text := v.(string)
			if text && (k == "image" || k == "reference") {
				v = ""
			}
			value[k] = blank(v)
		}
	case []any:
		for i, v := range value {
			value[i] = blank(v)
		}
	}
	return value
}
