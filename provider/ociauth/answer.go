package ociauth

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/oke-sign/oke-sign/provider/oci"
)

// answer is a JSON object of a service that issues tokens.
type answer map[string]json.RawMessage

// parseAnswer reads one JSON object. It rejects an object that two readers could
// understand in two ways: with a member twice, even in another case, or with text after
// the object.
func parseAnswer(data []byte) (answer, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	a := make(answer)
	seen := make(map[string]bool)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, errors.New("not a JSON object")
		}
		key, _ := name.(string) // the decoder allows nothing else here
		if folded := strings.ToLower(key); seen[folded] {
			return nil, fmt.Errorf("member %.40q occurs twice", key)
		} else {
			seen[folded] = true
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errors.New("not a JSON object")
		}
		a[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("not a JSON object")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text follows the object")
	}
	return a, nil
}

// text returns a string member, or "".
func (a answer) text(name string) string {
	var s string
	if json.Unmarshal(a[name], &s) != nil {
		return ""
	}
	return s
}

// number returns a number member, or 0.
func (a answer) number(name string) float64 {
	var n float64
	if json.Unmarshal(a[name], &n) != nil {
		return 0
	}
	return n
}

// told returns the text of a refusal for an error. A service may repeat what it was
// sent. So told leaves out a text that contains one of the secrets, and every word that
// is as long as a token.
func told(body []byte, secrets ...string) string {
	text := string(body)
	if refused, err := parseAnswer(body); err == nil {
		text = refused.text("error") + ": " + cmp.Or(refused.text("error_description"), refused.text("message"))
	}
	for _, secret := range secrets {
		if secret != "" && (strings.Contains(text, secret) || bytes.Contains(body, []byte(secret))) {
			return "its text repeats a secret and is not shown"
		}
	}
	const longest = 60
	words := strings.Fields(oci.Printable(text, 1000))
	for i, word := range words {
		if len(word) > longest {
			words[i] = "…"
		}
	}
	return oci.Printable(strings.Join(words, " "), 200)
}
