package signature

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxMessage is the size of the largest message, in bytes, that OCI Vault signs
// as it is (messageType RAW).
const MaxMessage = 4096

// Message is what a key states about an image: the payload that OCI's clients
// sign and store beside the signature. Its fields mean something only once the
// signature over the very bytes they were read from has been verified.
type Message struct {
	Description    string
	ImageDigest    string
	KeyID          string
	KeyVersionID   string
	Metadata       string // JSON text, as text
	Region         string // of the signer's configuration; proves nothing
	RepositoryName string // without host and namespace
	Algorithm      string
}

// Encode writes the message byte for byte as `oci artifacts container
// image-signature sign-upload` does: fields in this order, no white space,
// everything beyond printable ASCII escaped as Python's json.dumps does.
func (m Message) Encode() []byte {
	var b bytes.Buffer
	for i, field := range []struct{ name, value string }{
		{"description", m.Description},
		{"imageDigest", m.ImageDigest},
		{"kmsKeyId", m.KeyID},
		{"kmsKeyVersionId", m.KeyVersionID},
		{"metadata", m.Metadata},
		{"region", m.Region},
		{"repositoryName", m.RepositoryName},
		{"signingAlgorithm", m.Algorithm},
	} {
		if i == 0 {
			b.WriteByte('{')
		} else {
			b.WriteByte(',')
		}
		writeString(&b, field.name)
		b.WriteByte(':')
		writeString(&b, field.value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

func writeString(b *bytes.Buffer, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case ' ' <= r && r <= '~':
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
}

// ParseMessage reads a signed message. It accepts any order of fields, further fields, and
// null for description, metadata and region, because other clients write these. It rejects
// a message that two readers could understand in two ways: a repeated field, a field in
// another case or in escaped spelling, invalid UTF-8, and text after the object. With an
// error it returns the zero Message.
func ParseMessage(data []byte) (Message, error) {
	if !utf8.Valid(data) {
		return Message{}, errors.New("not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if open, _ := dec.Token(); open != json.Delim('{') { // with an error it is nil
		return Message{}, errors.New("not a JSON object")
	}

	var m Message
	fields := map[string]*string{
		"description":      &m.Description,
		"imageDigest":      &m.ImageDigest,
		"kmsKeyId":         &m.KeyID,
		"kmsKeyVersionId":  &m.KeyVersionID,
		"metadata":         &m.Metadata,
		"region":           &m.Region,
		"repositoryName":   &m.RepositoryName,
		"signingAlgorithm": &m.Algorithm,
	}
	folded := make(map[string]string, len(fields))
	for name := range fields {
		folded[fold(name)] = name
	}
	seen := make(map[string]bool, len(fields))
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return Message{}, fmt.Errorf("reading a field name: %w", err)
		}
		name := token.(string) // the decoder allows nothing else here
		if !bytes.HasSuffix(data[:dec.InputOffset()], []byte(`"`+name+`"`)) {
			return Message{}, fmt.Errorf("field %.40q is spelled with escapes", name)
		}
		if known := folded[fold(name)]; known != "" && known != name {
			return Message{}, fmt.Errorf("field %.40q can be taken for %s", name, known)
		}
		if seen[fold(name)] {
			return Message{}, fmt.Errorf("field %.40q is given twice", name)
		}
		seen[fold(name)] = true

		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return Message{}, fmt.Errorf("reading field %.40q: %w", name, err)
		}
		field := fields[name]
		if field == nil {
			continue
		}
		if string(raw) == "null" && (name == "description" || name == "metadata" || name == "region") {
			continue
		}
		if raw[0] != '"' {
			return Message{}, fmt.Errorf("field %s is not a string", name)
		}
		if err := json.Unmarshal(raw, field); err != nil {
			return Message{}, fmt.Errorf("reading field %s: %w", name, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return Message{}, fmt.Errorf("reading the end of the object: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Message{}, errors.New("something stands after the object")
	}
	for _, name := range []string{"imageDigest", "kmsKeyId", "kmsKeyVersionId", "repositoryName", "signingAlgorithm"} {
		if *fields[name] == "" {
			return Message{}, fmt.Errorf("field %s is missing or empty", name)
		}
	}
	return m, nil
}

// fold returns the same text for all names that are equal under Unicode's simple case
// folding, by which encoding/json and other lenient readers match field names.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, s)
}
