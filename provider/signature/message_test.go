package signature_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/signature"
)

var message = signature.Message{
	ImageDigest:    "sha256:bb9c3dd02f145291c5d4e218bf1b505ac1b0b4f62c25c13a1ffd293bd2ef556a",
	KeyID:          "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a",
	KeyVersionID:   "ocid1.keyversion.oc1.iad.b5q4c5lnaahik.examplekeyversionaa.abuwcljexampleexampleexampleexampleexampleexampleexampleexampl",
	Region:         "us-ashburn-1",
	RepositoryName: "project01/acme-web-app",
	Algorithm:      "SHA_256_RSA_PKCS_PSS",
}

// The sums are of the text that CPython's json.dumps writes for the same message.
func TestEncodeAsOracleDoes(t *testing.T) {
	for name, test := range map[string]struct {
		description, metadata string
		size                  int
		sum                   string
	}{
		"neither description nor metadata": {"", "", 476, "cb86a11ed6782239ef3617c72bb104d2a6315bcad54e29b067013b35ba2284a8"},
		"both":                             {"Image for UAT testing", `{"buildNumber":"123"}`, 522, "16a1139212ae6975c3075e05f7dbd5c16b18ff1948dc5b168b8bc6f3bdcff4d0"},
		"metadata keeps its white space":   {"x", `{"buildnumber": "8447"}`, 504, "79e3b4b90bc58fa896b3de65f05f741f13f13b65748ea9a628a1b3585cbfa22b"},
		"every kind of escape": {"é € 🔐 \"q\" \\ \t\n\x00\x7f\u2028 <b>&amp;</b> / '", "", 551,
			"954830e39db067c1b7884d1f1194df569b8a8da2a099a63bf8175cd524ed201f"},
	} {
		t.Run(name, func(t *testing.T) {
			m := message
			m.Description, m.Metadata = test.description, test.metadata
			got := m.Encode()
			if sum := sha256.Sum256(got); len(got) != test.size || hex.EncodeToString(sum[:]) != test.sum {
				t.Errorf("%d bytes, want %d: %s", len(got), test.size, got)
			}
		})
	}
	t.Run("the escapes with letters", func(t *testing.T) {
		m := signature.Message{Description: "\b\f\r\x01\U00010000\uffff~"}
		if got, want := string(m.Encode()), `{"description":"\b\f\r\u0001\ud800\udc00\uffff~",`; !strings.HasPrefix(got, want) {
			t.Errorf("got %s, want it to begin %s", got, want)
		}
	})
}

func TestParseMessage(t *testing.T) {
	good := string(message.Encode())
	with := func(old, new string) string {
		t.Helper()
		s := strings.Replace(good, old, new, 1)
		if s == good {
			t.Fatalf("%q is not in the message", old)
		}
		return s
	}
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"as written":                     {good, true},
		"white space around":             {" \n" + good + "\n ", true},
		"null description":               {with(`"description":""`, `"description":null`), true},
		"null region":                    {with(`"region":"us-ashburn-1"`, `"region":null`), true},
		"no description":                 {with(`"description":"",`, ``), true},
		"an extra field":                 {with(`{`, `{"extra":{"a":[1,2]},`), true},
		"values with escapes":            {with(`sha256:`, `\u0073ha256:`), true},
		"empty":                          {"", false},
		"null":                           {"null", false},
		"an array":                       {"[" + good + "]", false},
		"cut short":                      {good[:len(good)-1], false},
		"a byte order mark":              {"\ufeff" + good, false},
		"invalid UTF-8":                  {with(`"description":"`, "\"description\":\"\xff"), false},
		"text after the object":          {good + "{}", false},
		"a brace after":                  {good + "}", false},
		"null digest":                    {with(`"imageDigest":"`+message.ImageDigest+`"`, `"imageDigest":null`), false},
		"no digest":                      {with(`"imageDigest":"`+message.ImageDigest+`",`, ``), false},
		"a number for a digest":          {with(`"imageDigest":"`+message.ImageDigest+`"`, `"imageDigest":1`), false},
		"a field twice":                  {with(`{`, `{"imageDigest":"sha256:x",`), false},
		"a field twice, the same":        {with(`{`, `{"region":"us-ashburn-1",`), false},
		"an unknown field twice":         {with(`{`, `{"a":1,"a":1,`), false},
		"an unknown field in two cases":  {with(`{`, `{"a":1,"A":1,`), false},
		"a field in another case":        {with(`"imageDigest"`, `"ImageDigest"`), false},
		"a second field in another case": {with(`{`, `{"IMAGEDIGEST":"x",`), false},
		"a Kelvin sign for a k":          {with(`"kmsKeyId"`, `"`+"\u212a"+`msKeyId"`), false},
		"a field name with escapes":      {with(`"imageDigest"`, `"image\u0044igest"`), false},
		"twice, once with escapes":       {with(`{`, `{"image\u0044igest":"x",`), false},
		"an unpaired surrogate's digest": {with(`"imageDigest":"`, `"imageDigest":"\ud800`), true}, // reads as U+FFFD, equals no digest
		"a comment":                      {good + "//", false},
		"a comma before the end":         {good[:len(good)-1] + ",}", false},
		"no value":                       {`{"a":}`, false},
		"no value in the last field":     {good[:len(good)-1] + `,"a":}`, false},
		"an invalid value":               {good[:len(good)-1] + `,"a":nul}`, false},
		"a known field without value":    {with(`"region":"us-ashburn-1"`, `"region":`), false},
		"a number beyond floats":         {with(`{`, `{"a":1e999,`), true},
		"a number before the object":     {"1e999 " + good, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := signature.ParseMessage([]byte(test.text))
			if (err == nil) != test.ok {
				t.Errorf("error %v, want ok %v", err, test.ok)
			}
			if err != nil && m != (signature.Message{}) {
				t.Errorf("an error with a message: %+v", m)
			}
		})
	}
}

// TestParseMessageSaysWhy reads the error messages. They name the field and the
// mistake.
func TestParseMessageSaysWhy(t *testing.T) {
	good := string(message.Encode())
	for old, tc := range map[string]struct{ new, want string }{
		`{"description"`:      {`[{"description"`, "not a JSON object"},
		`"region":`:           {`"region":"a","region":`, `field "region" is given twice`},
		`"imageDigest":"`:     {`"imageDigest":null,"x":"`, "field imageDigest is not a string"},
		`"repositoryName":"`:  {`"repositoryName":1,"x":"`, "field repositoryName is not a string"},
		`"kmsKeyId":"`:        {`"kmsKeyId":"","x":"`, "field kmsKeyId is missing or empty"},
		`"signingAlgorithm":`: {`"SigningAlgorithm":`, `field "SigningAlgorithm" can be taken for signingAlgorithm`},
		`"kmsKeyVersionId"`:   {`"kmsKeyVersion\u0049d"`, `field "kmsKeyVersionId" is spelled with escapes`},
	} {
		text := strings.Replace(good, old, tc.new, 1)
		if _, err := signature.ParseMessage([]byte(text)); err == nil || err.Error() != tc.want {
			t.Errorf("%s: got %v, want %s", text, err, tc.want)
		}
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add(message.Encode())
	f.Add([]byte(`{"imageDigest":"a","imageDigest":"b"}`))
	f.Add([]byte(`{"kmsKeyId":"\ud83d\udd10","KmsKeyID":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := signature.ParseMessage(data)
		if err != nil {
			if m != (signature.Message{}) {
				t.Errorf("an error with a message: %+v", m)
			}
			return
		}
		again, err := signature.ParseMessage(m.Encode())
		if err != nil {
			t.Fatalf("%s does not parse back: %v", m.Encode(), err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzEncode(f *testing.F) {
	f.Add("image-sign demo", `{"a": "b"}`)
	f.Add("\x7f\u2028🔐", "\xff")
	f.Fuzz(func(t *testing.T, description, metadata string) {
		m := message
		m.Description, m.Metadata = description, metadata
		text := m.Encode()
		for _, b := range text {
			if b < ' ' || b > '~' {
				t.Fatalf("byte %#x in %q", b, text)
			}
		}
		again, err := signature.ParseMessage(text)
		if err != nil {
			t.Fatal(err)
		}
		if utf8.ValidString(description) && utf8.ValidString(metadata) && again != m {
			t.Error(cmp.Diff(m, again))
		}
	})
}
