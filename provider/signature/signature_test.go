package signature_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// vector is one record made with another implementation (OpenSSL), and the expected
// reason of its verdict.
type vector struct {
	Name        string
	Image       string
	AllowedKeys []string
	PublicKey   string `json:"publicKeyPEM"`
	Record      struct {
		KeyID        string `json:"kmsKeyId"`
		KeyVersionID string `json:"kmsKeyVersionId"`
		Algorithm    string `json:"signingAlgorithm"`
		Message      string
		Signature    string
		State        string `json:"lifecycleState"`
	}
	Want string
}

func (v vector) record() signature.Record {
	r := v.Record
	return signature.Record{
		KeyID: r.KeyID, KeyVersionID: r.KeyVersionID, Algorithm: r.Algorithm,
		Message: r.Message, Signature: r.Signature, State: r.State,
	}
}

func vectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/signatures.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Vectors) != 47 {
		t.Fatalf("%d vectors, want 47", len(file.Vectors))
	}
	return file.Vectors
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			ref, err := image.Parse(v.Image)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := signature.ParsePublicKey(v.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			img, _ := ref.Pinned()
			m, err := signature.Verify(v.record(), pub, img)
			got := "signed"
			switch {
			case v.Record.State != signature.StateAvailable:
				got = "unsigned" // such records are not looked at; package verdict tests that
			case errors.Is(err, signature.ErrWrongImage), errors.Is(err, signature.ErrMalformed):
				got = "wrong-image"
			case errors.Is(err, signature.ErrWrongKey):
				got = "wrong-key"
			case errors.Is(err, signature.ErrBadSignature):
				got = "bad-signature"
			case err != nil:
				t.Fatalf("an error of unknown kind: %v", err)
			}
			if got != v.Want {
				t.Errorf("got %s (%v), want %s", got, err, v.Want)
			}
			if err != nil && m != (signature.Message{}) {
				t.Errorf("an error with a message: %+v", m)
			}
		})
	}
}

// The test changes each field that is bound to the image or the record, one at a
// time. The right key then signs the message.
func TestVerifyBindsEveryField(t *testing.T) {
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := image.Parse("iad.ocir.io/ns/app/web@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	img, _ := ref.Pinned()
	good := signature.Message{
		ImageDigest: ref.Digest(), RepositoryName: "app/web", Region: "us-phoenix-1",
		KeyID:        "ocid1.key.oc1.iad.ext." + strings.Repeat("k", 60),
		KeyVersionID: "ocid1.keyversion.oc1.iad.ext.v", Algorithm: string(signature.SHA256),
	}
	for name, test := range map[string]struct {
		change func(*signature.Message)
		want   error
	}{
		"nothing":                   {func(*signature.Message) {}, nil},
		"another digest":            {func(m *signature.Message) { m.ImageDigest = "sha256:" + strings.Repeat("b", 64) }, signature.ErrWrongImage},
		"another repository":        {func(m *signature.Message) { m.RepositoryName = "app" }, signature.ErrWrongImage},
		"repository with namespace": {func(m *signature.Message) { m.RepositoryName = "ns/app/web" }, signature.ErrWrongImage},
		"another key":               {func(m *signature.Message) { m.KeyID += "x" }, signature.ErrWrongKey},
		"another version":           {func(m *signature.Message) { m.KeyVersionID += "x" }, signature.ErrWrongKey},
		"another algorithm":         {func(m *signature.Message) { m.Algorithm = string(signature.SHA512) }, signature.ErrBadSignature},
		"digest and algorithm":      {func(m *signature.Message) { m.ImageDigest, m.Algorithm = "sha256:", "x" }, signature.ErrWrongImage},
	} {
		t.Run(name, func(t *testing.T) {
			m := good
			test.change(&m)
			rec := sign(t, priv, good, m.Encode())
			if _, err := signature.Verify(rec, &priv.PublicKey, img); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}

	t.Run("no image", func(t *testing.T) {
		for _, digest := range []string{good.ImageDigest, "sha256:" + strings.Repeat("0", 64)} {
			m := good
			m.ImageDigest = digest
			if _, err := signature.Verify(sign(t, priv, good, m.Encode()), &priv.PublicKey, image.Pinned{}); !errors.Is(err, signature.ErrWrongImage) {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("a text that is not a message", func(t *testing.T) {
		for _, text := range []string{"", "{}", "hello", `{"imageDigest":"` + good.ImageDigest + `"}`} {
			_, err := signature.Verify(sign(t, priv, good, []byte(text)), &priv.PublicKey, img)
			if !errors.Is(err, signature.ErrMalformed) || errors.Is(err, signature.ErrWrongImage) {
				t.Errorf("%q: got %v", text, err)
			}
		}
	})
	t.Run("the field that is not base64", func(t *testing.T) {
		for field, change := range map[string]func(*signature.Record){
			"message":   func(rec *signature.Record) { rec.Message += "!" },
			"signature": func(rec *signature.Record) { rec.Signature += "!" },
		} {
			rec := sign(t, priv, good, good.Encode())
			change(&rec)
			want := "bad signature: " + field + ": not standard base64"
			if _, err := signature.Verify(rec, &priv.PublicKey, img); !errors.Is(err, signature.ErrBadSignature) || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	})
	t.Run("a huge message", func(t *testing.T) {
		m := good
		m.Description = strings.Repeat("x", 1<<20)
		if _, err := signature.Verify(sign(t, priv, good, m.Encode()), &priv.PublicKey, img); !errors.Is(err, signature.ErrBadSignature) {
			t.Errorf("got %v", err)
		}
	})
}

// sign makes the record that m describes. The key signs the given text.
func sign(t *testing.T, priv *rsa.PrivateKey, m signature.Message, text []byte) signature.Record {
	t.Helper()
	h := crypto.SHA256.New()
	h.Write(text)
	sig, err := rsa.SignPSS(rand.Reader, priv, crypto.SHA256, h.Sum(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	return signature.Record{
		KeyID: m.KeyID, KeyVersionID: m.KeyVersionID, Algorithm: m.Algorithm,
		Message:   base64.StdEncoding.EncodeToString(text),
		Signature: base64.StdEncoding.EncodeToString(sig),
	}
}

func TestParsePublicKey(t *testing.T) {
	good := vectors(t)[0].PublicKey
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(good))
	for name, test := range map[string]struct {
		text string
		err  string // a part of the error; empty: a key
	}{
		"as OCI returns it":       {good, ""},
		"without final line feed": {strings.TrimSpace(good), ""},
		"with CRLF":               {strings.ReplaceAll(good, "\n", "\r\n"), ""},
		"empty":                   {"", "not exactly one PEM block"},
		"two blocks":              {good + good, "not exactly one PEM block"},
		"text before":             {"x\n" + good, "not exactly one PEM block"},
		"text after":              {good + "x", "not exactly one PEM block"},
		"a broken block before":   {"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n" + good, "not exactly one PEM block"},
		"with headers":            {strings.Replace(good, "-----\n", "-----\nA: b\n\n", 1), "not exactly one PEM block"},
		"of another type":         {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes})), `type "CERTIFICATE"`},
		"ECDSA":                   {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: ecDER})), "not an RSA public key: *ecdsa.PublicKey"},
		"RSA of 1024 bits":        {shortKey, "1024 bits"},
		"not a PKIX key":          {string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}})), "parsing a public key: asn1"},
		"not a PKCS #1 key":       {string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: []byte{1}})), "parsing a public key: asn1"},
	} {
		t.Run(name, func(t *testing.T) {
			pub, err := signature.ParsePublicKey(test.text)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want a part %q", err, test.err)
			}
			if err != nil && pub != nil {
				t.Error("an error with a key")
			}
		})
	}
}

// TestSizesOfPublicKeys accepts the sizes at both bounds, and rejects sizes beyond
// them.
func TestSizesOfPublicKeys(t *testing.T) {
	for bits, ok := range map[int]bool{2047: false, 2048: true, 8192: true, 8193: false} {
		pub := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), bits-1, 1), E: 65537}
		text := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(pub)})
		if _, err := signature.ParsePublicKey(string(text)); (err == nil) != ok {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
	good := vectors(t)[0].PublicKey
	for size, ok := range map[int]bool{4096: true, 4097: false} {
		text := good + strings.Repeat("\n", size-len(good))
		if _, err := signature.ParsePublicKey(text); (err == nil) != ok {
			t.Errorf("%d bytes of text: %v", size, err)
		}
	}
}

// TestSizesOfRecords accepts the largest fields, and rejects larger ones.
func TestSizesOfRecords(t *testing.T) {
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := image.Parse("iad.ocir.io/ns/app/web@sha256:" + strings.Repeat("a", 64))
	if err != nil {
		t.Fatal(err)
	}
	img, _ := ref.Pinned()
	m := signature.Message{
		ImageDigest: ref.Digest(), RepositoryName: "app/web", KeyID: "ocid1.key.x",
		KeyVersionID: "ocid1.keyversion.x", Algorithm: string(signature.SHA256),
	}
	const largest = 4*signature.MaxMessage + 2 // base64 has room for two more bytes
	for size, want := range map[int]error{largest: nil, largest + 1: signature.ErrBadSignature} {
		m.Description = ""
		m.Description = strings.Repeat("x", size-len(m.Encode()))
		if _, err := signature.Verify(sign(t, priv, m, m.Encode()), &priv.PublicKey, img); !errors.Is(err, want) {
			t.Errorf("a message of %d bytes: got %v, want %v", size, err, want)
		}
	}
}

// shortKey was made with `openssl genrsa 1024 | openssl rsa -pubout`.
const shortKey = `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDAPBGaBi3bZgRjz73AytR9nmL4
TjZbTIdJIzhmzjSAM685kjMGlX44g4a1w2BbwfSVgv4ulALTkURsZ4jdBWSvw051
WmXxQMyUkVKuKaVxs++krJ4SZg4s1DeTMh8P0VxSB2bn5+GyKpz7cRQWJGFabLCw
fu8V//P1PIY++8GBAQIDAQAB
-----END PUBLIC KEY-----
`

func FuzzParsePublicKey(f *testing.F) {
	f.Add(vectors(f)[0].PublicKey)
	f.Add(shortKey)
	f.Fuzz(func(t *testing.T, text string) {
		pub, err := signature.ParsePublicKey(text)
		if err != nil {
			if pub != nil {
				t.Error("an error with a key")
			}
			return
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		again, err := signature.ParsePublicKey(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
		if err != nil || !again.Equal(pub) {
			t.Errorf("does not parse back: %v", err)
		}
	})
}
