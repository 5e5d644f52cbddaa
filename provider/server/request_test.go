package server_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/server"
)

var (
	keyA = "ocid1.key.oc1.iad.b5r7bu4kaaeug." + strings.Repeat("a", 60)
	keyB = "ocid1.key.oc1.iad.b5r7bu4kaaeug." + strings.Repeat("b", 60)
)

const pinned = "iad.ocir.io/idwpqivumvev/scan-test@sha256:ee44f2ebbc5b6bdd6f0b6d6f6c6f5a1ab45fe0f4b2a3a1f1b6d0d4c3b2a19081"

// ask returns a question in the policy's form.
func ask(image string, keys ...string) string {
	b, err := json.Marshal(map[string]any{"image": image, "keys": keys})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// long returns a question of the maximum size.
func long(keys ...string) string {
	return ask(strings.Repeat("a", server.MaxQuestion-len(ask("", keys...))), keys...)
}

func TestParseQuestion(t *testing.T) {
	quoted := func(s string) string { return `"` + s + `"` }
	six := make([]string, 6)
	for i := range six {
		six[i] = keyA[:len(keyA)-1] + string(rune('a'+i))
	}
	tests := map[string]struct {
		key   string
		image string
		keys  []string
		err   string // a part of the error; empty: a question
	}{
		"one key":                     {key: ask(pinned, keyA), image: pinned, keys: []string{keyA}},
		"two keys":                    {key: ask(pinned, keyA, keyB), image: pinned, keys: []string{keyA, keyB}},
		"five keys":                   {key: ask(pinned, six[:5]...), image: pinned, keys: six[:5]},
		"white space and other order": {key: " { \"keys\" :\t[ " + quoted(keyA) + " ] ,\n\"image\": " + quoted(pinned) + " } ", image: pinned, keys: []string{keyA}},
		"an image that is not a reference is still a question": {key: ask("a<b>\n\u2028😀", keyA), image: "a<b>\n\u2028😀", keys: []string{keyA}},
		"escapes in a value": {key: `{"image":"\u0061\ud83d\ude00\/\"\\\b\f\n\r\t","keys":["` + keyA + `"]}`, image: "a😀/\"\\\b\f\n\r\t", keys: []string{keyA}},

		"the longest question":        {key: long(keyA), image: strings.Repeat("a", server.MaxQuestion-len(ask("", keyA))), keys: []string{keyA}},
		"white space in a string":     {key: ask("a b", keyA), image: "a b", keys: []string{keyA}},
		"white space after an escape": {key: `{"image":"\u0061 b","keys":["` + keyA + `"]}`, image: "a b", keys: []string{keyA}},

		"nothing":                              {key: "", err: "expected an object"},
		"an image alone":                       {key: pinned, err: "expected an object"},
		"a string":                             {key: quoted(pinned), err: "expected an object"},
		"an array":                             {key: `[]`, err: "expected an object"},
		"null":                                 {key: `null`, err: "expected an object"},
		"an empty object":                      {key: `{}`, err: "image is missing"},
		"no image":                             {key: `{"keys":["` + keyA + `"]}`, err: "image is missing"},
		"an empty image":                       {key: ask("", keyA), err: "image is missing"},
		"a null image":                         {key: `{"image":null,"keys":["` + keyA + `"]}`, err: "expected a string"},
		"an image in an array":                 {key: `{"image":["a"],"keys":["` + keyA + `"]}`, err: "expected a string"},
		"keys is missing":                      {key: `{"image":"` + pinned + `"}`, err: "keys is missing or empty"},
		"no keys":                              {key: `{"image":"` + pinned + `","keys":[]}`, err: "keys is missing or empty"},
		"keys is null":                         {key: `{"image":"` + pinned + `","keys":null}`, err: "expected an array"},
		"keys is a string":                     {key: `{"image":"` + pinned + `","keys":"` + keyA + `"}`, err: "expected an array"},
		"keys holds null":                      {key: `{"image":"` + pinned + `","keys":[null]}`, err: "expected a string"},
		"six keys":                             {key: ask(pinned, six...), err: "more than 5 keys"},
		"keys out of order":                    {key: ask(pinned, keyB, keyA), err: "not sorted"},
		"a key twice":                          {key: ask(pinned, keyA, keyA), err: "given twice"},
		"an empty key":                         {key: ask(pinned, ""), err: "not the OCID of a key"},
		"the OCID of something else":           {key: ask(pinned, "ocid1.vault.oc1.iad.b5r7bu4kaaeug.x"), err: "not the OCID of a key"},
		"a good key and another OCID":          {key: ask(pinned, keyA, "x"), err: "not the OCID of a key"},
		"image twice":                          {key: `{"image":"a","image":"` + pinned + `","keys":["` + keyA + `"]}`, err: "image is given twice"},
		"keys twice":                           {key: `{"image":"a","keys":["` + keyA + `"],"keys":["` + keyB + `"]}`, err: "keys is given twice"},
		"image twice, in two cases":            {key: `{"image":"a","Image":"b","keys":["` + keyA + `"]}`, err: `unknown field "Image"`},
		"image in another case":                {key: `{"Image":"b","keys":["` + keyA + `"]}`, err: `unknown field "Image"`},
		"keys with a Kelvin sign":              {key: `{"image":"b","` + "\u212a" + `eys":["` + keyA + `"]}`, err: "unknown field"},
		"a field name in escapes":              {key: `{"\u0069mage":"b","keys":["` + keyA + `"]}`, err: "unknown field"},
		"an extra field":                       {key: `{"image":"b","keys":["` + keyA + `"],"x":1}`, err: `unknown field "x"`},
		"text after the object":                {key: ask(pinned, keyA) + "{}", err: "expected nothing more"},
		"a byte order mark":                    {key: "\ufeff" + ask(pinned, keyA), err: "expected an object"},
		"a comma too many":                     {key: `{"image":"b","keys":["` + keyA + `"],}`, err: "expected a string"},
		"a comma too many in keys":             {key: `{"image":"b","keys":["` + keyA + `",]}`, err: "expected a string"},
		"a comma too few":                      {key: `{"image":"b" "keys":["` + keyA + `"]}`, err: "expected a comma"},
		"a comma too few in keys":              {key: `{"image":"b","keys":["` + keyA + `" "` + keyB + `"]}`, err: "expected a comma or the end of an array"},
		"half a surrogate pair without digits": {key: `{"image":"\ud83d\uzzzz"}`, err: "four hexadecimal digits"},
		"an incomplete escape":                 {key: `{"image":"\u00`, err: "four hexadecimal digits"},
		"no colon":                             {key: `{"image" "b","keys":["` + keyA + `"]}`, err: "expected a colon"},
		"not closed":                           {key: `{"image":"b","keys":["` + keyA + `"]`, err: "expected a comma or the end of an object"},
		"a string not closed":                  {key: `{"image":"b`, err: "expected the end of a string"},
		"an escape not closed":                 {key: `{"image":"b\`, err: "expected the rest of an escape"},
		"an escape at the end":                 {key: `{"image":"\u0061`, err: "expected the end of a string"},
		"a line break after an escape":         {key: "{\"image\":\"\\u0061\nb\",\"keys\":[\"" + keyA + "\"]}", err: "no control character"},
		"a short escape":                       {key: `{"image":"\u00"}`, err: "four hexadecimal digits"},
		"an unknown escape":                    {key: `{"image":"\x41"}`, err: "JSON's escapes"},
		"half a surrogate pair":                {key: `{"image":"\ud83d","keys":["` + keyA + `"]}`, err: "surrogate pair"},
		"the low surrogate first":              {key: `{"image":"\ude00\ud83d","keys":["` + keyA + `"]}`, err: "surrogate pair"},
		"a line break in a string":             {key: "{\"image\":\"a\nb\",\"keys\":[\"" + keyA + "\"]}", err: "no control character"},
		"a NUL in a string":                    {key: "{\"image\":\"\\u0061\x00\",\"keys\":[]}", err: "no control character"},
		"invalid UTF-8":                        {key: "{\"image\":\"\xff\",\"keys\":[\"" + keyA + "\"]}", err: "not valid UTF-8"},
		"too long":                             {key: long(keyA) + " ", err: "not valid UTF-8 of at most"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			image, allowed, err := server.ParseQuestion(tt.key)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got error %v, want a part %q", err, tt.err)
				}
				if image != "" || allowed != nil {
					t.Errorf("got %q, %v with an error", image, allowed)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var keys []string
			for _, id := range allowed {
				keys = append(keys, id.String())
			}
			if image != tt.image || !slices.Equal(keys, tt.keys) {
				t.Errorf("got %q, %q; want %q, %q", image, keys, tt.image, tt.keys)
			}
		})
	}
}

// A question asks for 2 to 5 keys, and for no more than it lists, in one spelling.
func TestParseAtLeast(t *testing.T) {
	question := func(atLeast, keys string) string {
		return `{"atLeast":` + atLeast + `,"image":"` + pinned + `","keys":[` + keys + `]}`
	}
	two := `"` + keyA + `","` + keyB + `"`
	for key, want := range map[string]int{
		ask(pinned, keyA, keyB):                               1,
		question("2", two):                                    2,
		question(" 2 ", two):                                  2,
		`{"image":"a","keys":[` + two + `],"atLeast":2}`:      2,
		question("0", two):                                    0,
		question("1", two):                                    0,
		question("3", two):                                    0,
		question("9", two):                                    0,
		question("2", `"`+keyA+`"`):                           0,
		question("2", ""):                                     0,
		question("02", two):                                   0,
		question("22", two):                                   0,
		question("2.0", two):                                  0,
		question("2e0", two):                                  0,
		question("-2", two):                                   0,
		question("+2", two):                                   0,
		question(`"2"`, two):                                  0,
		question("null", two):                                 0,
		question("[2]", two):                                  0,
		question("", two):                                     0,
		question("2,\"atLeast\":2", two):                      0,
		`{"AtLeast":2,"image":"a","keys":[` + two + `]}`:      0,
		`{"atleast":2,"image":"a","keys":[` + two + `]}`:      0,
		`{"at\u004ceast":2,"image":"a","keys":[` + two + `]}`: 0,
	} {
		if got := server.AtLeast(key); got != want {
			t.Errorf("%s asks for %d keys, want %d", key, got, want)
		}
	}
}

// TestParseQuestionsWithoutKeys reads questions about scans and digests. They have
// the same bounds as questions about signatures.
func TestParseQuestionsWithoutKeys(t *testing.T) {
	longest := strings.Repeat("a", server.MaxQuestion)
	for name, tt := range map[string]struct {
		parse func(string) (string, error)
		key   string
		image string
		err   string
	}{
		"a scan":                    {server.ParseScanQuestion, askScan("a b"), "a b", ""},
		"the longest scan":          {server.ParseScanQuestion, askScan(longest[len(askScan("")):]), longest[len(askScan("")):], ""},
		"a scan too long":           {server.ParseScanQuestion, askScan(longest[len(askScan(""))-1:]), "", "at most 4096 bytes"},
		"a scan in invalid UTF-8":   {server.ParseScanQuestion, "{\"image\":\"\xff\"}", "", "not valid UTF-8"},
		"a scan without an image":   {server.ParseScanQuestion, `{"image":""}`, "", "image is missing or empty"},
		"a scan with keys":          {server.ParseScanQuestion, `{"image":"a","keys":[]}`, "", `unknown field "keys"`},
		"a scan with text after it": {server.ParseScanQuestion, `{"image":"a"} {}`, "", "expected nothing more"},
		"the longest tag":           {server.ParseDigestQuestion, longest, longest, ""},
		"a tag too long":            {server.ParseDigestQuestion, longest + "a", "", "at most 4096 bytes"},
		"a tag in invalid UTF-8":    {server.ParseDigestQuestion, "a\xff", "", "not valid UTF-8"},
		"a tag without an image, as Gatekeeper sends it": {server.ParseDigestQuestion, "", "", ""},
	} {
		image, err := tt.parse(tt.key)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || image != tt.image {
			t.Errorf("%s: got %q, %v; want %q, %s", name, image, err, tt.image, tt.err)
		}
	}
}

func TestDecodeRequest(t *testing.T) {
	const head = `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest",`
	many := func(n int) string {
		return head + `"request":{"keys":[` + strings.TrimSuffix(strings.Repeat(`"a",`, n), ",") + `]}}`
	}
	tests := map[string]struct {
		body string
		keys []string
		err  string
	}{
		"as Gatekeeper sends it":           {body: head + `"request":{"keys":["a","a","{\"x\":\"é\"}"]}}`, keys: []string{"a", "a", `{"x":"é"}`}},
		"fields of a later release":        {body: `{"x":[{"keys":["no"]},-1.5e3,true,null,"\""],` + head[1:] + `"request":{"idempotent":{},"keys":["a"],"y":""},"Kind":7}`, keys: []string{"a"}},
		"the largest number of keys":       {body: many(server.MaxKeys), keys: strings.Split(strings.TrimSuffix(strings.Repeat("a,", server.MaxKeys), ","), ",")},
		"an empty key is a key":            {body: head + `"request":{"keys":[""]}}`, keys: []string{""}},
		"one key too many":                 {body: many(server.MaxKeys + 1), err: "more than 256 keys"},
		"the rest of the body is not read": {body: strings.TrimSuffix(many(server.MaxKeys+1), "]}}") + "\x01", err: "more than 256 keys"},
		"the longest key":                  {body: head + `"request":{"keys":["` + strings.Repeat("a", server.MaxQuestion) + `"]}}`, keys: []string{strings.Repeat("a", server.MaxQuestion)}},
		"the deepest nesting":              {body: `{"x":` + strings.Repeat("[", 32) + "0" + strings.Repeat("]", 32) + "," + head[1:] + `"request":{"keys":["a"]}}`, keys: []string{"a"}},
		"nested one level deeper":          {body: `{"x":` + strings.Repeat("[", 33) + "0" + strings.Repeat("]", 33) + "," + head[1:] + `"request":{"keys":["a"]}}`, err: "nested too deeply"},
		"a key too long":                   {body: head + `"request":{"keys":["` + strings.Repeat("a", server.MaxQuestion+1) + `"]}}`, err: "a key of more than"},

		"an incomplete value":       {body: `{"x":1`, err: "end of an object"},
		"nothing":                   {body: "", err: "expected an object"},
		"text":                      {body: "hello", err: "expected an object"},
		"null":                      {body: "null", err: "expected an object"},
		"an array":                  {body: "[]", err: "expected an object"},
		"an empty object":           {body: "{}", err: `apiVersion is ""`},
		"another version":           {body: `{"apiVersion":"externaldata.gatekeeper.sh/v1alpha1","kind":"ProviderRequest","request":{"keys":["a"]}}`, err: "apiVersion is"},
		"another kind":              {body: `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderResponse","request":{"keys":["a"]}}`, err: "kind is"},
		"no request":                {body: strings.TrimSuffix(head, ",") + "}", err: "request.keys is missing"},
		"request is null":           {body: head + `"request":null}`, err: "expected an object"},
		"keys is missing":           {body: head + `"request":{}}`, err: "request.keys is missing"},
		"no keys":                   {body: head + `"request":{"keys":[]}}`, err: "request.keys is missing or empty"},
		"keys is null":              {body: head + `"request":{"keys":null}}`, err: "expected an array"},
		"keys is a string":          {body: head + `"request":{"keys":"a"}}`, err: "expected an array"},
		"a key is a number":         {body: head + `"request":{"keys":[1]}}`, err: "expected a string"},
		"a key is null":             {body: head + `"request":{"keys":["a",null]}}`, err: "expected a string"},
		"keys twice":                {body: head + `"request":{"keys":["a"],"keys":["b"]}}`, err: "keys is given twice"},
		"request twice":             {body: head + `"request":{"keys":["a"]},"request":{"keys":["b"]}}`, err: "request is given twice"},
		"keys in another case":      {body: head + `"request":{"Keys":["a"]}}`, err: "request.keys is missing"},
		"keys in escaped spelling":  {body: head + `"request":{"\u006beys":["a"]}}`, err: "request.keys is missing"},
		"text after the object":     {body: many(1) + "x", err: "expected nothing more"},
		"incomplete":                {body: strings.TrimSuffix(many(1), "}"), err: "end of an object"},
		"invalid UTF-8":             {body: strings.Replace(many(1), "a", "\xff", 1), err: "not valid UTF-8"},
		"an unknown field is wrong": {body: `{"x":01,` + head[1:] + `"request":{"keys":["a"]}}`, err: "expected a value"},
		"a bare word":               {body: `{"x":nul,` + head[1:] + `"request":{"keys":["a"]}}`, err: "expected a value"},
		"nested without end":        {body: `{"x":` + strings.Repeat("[", 100_000), err: "nested too deeply"},
		"objects without end":       {body: strings.Repeat(`{"x":`, 100_000), err: "nested too deeply"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			keys, err := server.DecodeRequest(tt.body)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("got error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.keys, keys); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

// TestEscapesTakeNoMoreRoom reads a body with an escape in each key. A key takes
// room for its own text, not for the rest of the body.
func TestEscapesTakeNoMoreRoom(t *testing.T) {
	key := `"\u0061` + strings.Repeat("a", server.MaxBody/server.MaxKeys-20) + `"`
	body := `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":[` +
		strings.TrimSuffix(strings.Repeat(key+",", server.MaxKeys), ",") + `]}}`
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	keys, err := server.DecodeRequest(body)
	runtime.ReadMemStats(&after)
	if err != nil || len(keys) != server.MaxKeys {
		t.Fatal(len(keys), err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 2*server.MaxBody {
		t.Errorf("%d bytes were allocated for a body of %d", took, len(body))
	}
}

// An accepted question has the same meaning for encoding/json, also when it is
// written again.
func FuzzParseQuestion(f *testing.F) {
	for _, s := range []string{
		ask(pinned, keyA), ask(pinned, keyA, keyB), `{"image":"\ud83d\ude00","keys":[]}`, `{"image":"a","Image":"b"}`, "", "null",
		`{"atLeast":2,"image":"a","keys":["` + keyA + `","` + keyB + `"]}`, `{"atLeast":2.0,"image":"a","keys":[]}`,
		` {"keys":["` + keyA + `"],"image":"\u0061\/"} `, `{"image":"a","keys":["` + keyA + `"],"x":{}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		image, allowed, err := server.ParseQuestion(key)
		if err != nil {
			if image != "" || allowed != nil {
				t.Fatalf("got %q, %v with an error", image, allowed)
			}
			return
		}
		if len(allowed) < 1 || len(allowed) > 5 || image == "" || !utf8.ValidString(image) {
			t.Fatalf("accepted image %q, keys %v", image, allowed)
		}
		var keys []string
		for _, id := range allowed {
			keys = append(keys, id.String())
		}
		if !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
			t.Fatalf("accepted keys %q", keys)
		}
		var std map[string]any
		if err := json.Unmarshal([]byte(key), &std); err != nil {
			t.Fatalf("accepted a text that encoding/json rejects: %v", err)
		}
		again := ask(image, keys...)
		if n := server.AtLeast(key); n > 1 {
			again = fmt.Sprintf(`{"atLeast":%d,%s`, n, again[1:])
		}
		var want map[string]any
		if err := json.Unmarshal([]byte(again), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, std); diff != "" {
			t.Fatalf("encoding/json reads it differently (-ours +theirs):\n%s", diff)
		}
		if _, _, err := server.ParseQuestion(again); err != nil {
			t.Fatalf("%s does not parse again: %v", again, err)
		}
	})
}

// An accepted request is valid JSON within the limits. It has the keys that
// encoding/json finds, as far as encoding/json distinguishes the fields.
func FuzzDecodeRequest(f *testing.F) {
	const head = `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest",`
	for _, s := range []string{
		head + `"request":{"keys":["a","a","{\"x\":\"é\"}"]}}`, head + `"request":{"keys":[]},"x":[1,{"y":null}]}`,
		head + `"request":{"Keys":["a"],"keys":["\ud83d\ude00"]}}`, "", "{}", "[[[[", `{"x":-0.1e+5}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		keys, err := server.DecodeRequest(body)
		if err != nil {
			if keys != nil {
				t.Fatalf("got %q with an error", keys)
			}
			return
		}
		if n := len(keys); n < 1 || n > server.MaxKeys {
			t.Fatalf("accepted %d keys", n)
		}
		for _, k := range keys {
			if len(k) > server.MaxQuestion || !utf8.ValidString(k) {
				t.Fatalf("accepted key %q", k)
			}
		}
		var std map[string]any
		if err := json.Unmarshal([]byte(body), &std); err != nil {
			t.Fatalf("accepted a text that encoding/json rejects: %v", err)
		}
		// A map contains the last of the fields whose names differ only by escapes.
		if strings.Contains(body, `\u`) {
			return
		}
		var theirs []string
		for _, k := range std["request"].(map[string]any)["keys"].([]any) {
			theirs = append(theirs, k.(string))
		}
		if diff := cmp.Diff(theirs, keys); diff != "" {
			t.Fatalf("encoding/json reads other keys (-theirs +ours):\n%s", diff)
		}
	})
}
