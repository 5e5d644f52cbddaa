package ocitest_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

const authService = "https://auth.us-ashburn-1.oraclecloud.com"

// bearer signs requests under a keyId that the cloud issued.
type bearer struct {
	id  string
	key *rsa.PrivateKey
}

func (b bearer) KeyID() (string, error)                  { return b.id, nil }
func (b bearer) PrivateRSAKey() (*rsa.PrivateKey, error) { return b.key, nil }

// metadata returns a page of an instance's metadata service.
func metadata(t *testing.T, base, page string) string {
	t.Helper()
	req := newRequest(t, "GET", base+page, "")
	req.Header.Set("Authorization", "Bearer Oracle")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s %v", page, res.StatusCode, body, err)
	}
	return string(body)
}

func der(t *testing.T, text string) []byte {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %q", text)
	}
	return block.Bytes
}

// exchange returns the request by which an instance requests a token. form replaces
// the user in the keyId. algorithm is a field of the body; "" omits the field.
func exchange(t *testing.T, base, tenancy, form, fingerprint, algorithm string, session *rsa.PrivateKey) *http.Request {
	t.Helper()
	key, err := x509.ParsePKCS1PrivateKey(der(t, metadata(t, base, "/identity/key.pem")))
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&session.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	in := map[string]any{
		"certificate":              base64.StdEncoding.EncodeToString(der(t, metadata(t, base, "/identity/cert.pem"))),
		"intermediateCertificates": []string{base64.StdEncoding.EncodeToString(der(t, metadata(t, base, "/identity/intermediate.pem")))},
		"publicKey":                base64.StdEncoding.EncodeToString(public),
	}
	if algorithm != "" {
		in["fingerprintAlgorithm"] = algorithm
	}
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	req := newRequest(t, "POST", authService+"/v1/x509", string(body))
	signer := common.RequestSigner(bearer{tenancy + "/" + form + "/" + fingerprint, key}, []string{"date", "(request-target)"}, []string{"content-length", "content-type", "x-content-sha256"})
	if err := signer.Sign(req); err != nil {
		t.Fatal(err)
	}
	return req
}

// Oracle's SDKs for Go and Python name an instance's certificate in different ways.
// OCI accepts both, and no mixture of the two.
func TestFederationForms(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	i := tenancy.Admin().NewInstance()
	leaf := der(t, metadata(t, i.MetadataURL, "/identity/cert.pem"))
	long, short := sha256.Sum256(leaf), sha1.Sum(leaf)
	sha2, sha := fmt.Sprintf("% x", long), fmt.Sprintf("% X", short)
	colons := func(s string) string { return strings.ReplaceAll(s, " ", ":") }
	session, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		form, fingerprint, algorithm string
		want                         int
		why                          string
	}{
		"as the SDK for Go":            {"fed-x509-sha256", colons(sha2), "SHA256", 200, ""},
		"as the SDK for Python":        {"fed-x509", colons(sha), "", 200, ""},
		"SHA-1 with an algorithm":      {"fed-x509", colons(sha), "SHA256", 401, "fingerprintAlgorithm"},
		"SHA-256 without an algorithm": {"fed-x509-sha256", colons(sha2), "", 401, "fingerprintAlgorithm"},
		"SHA-256 in place of SHA-1":    {"fed-x509", colons(sha2), "", 401, "no instance"},
		"SHA-1 in place of SHA-256":    {"fed-x509-sha256", colons(sha), "SHA256", 401, "no instance"},
		"an unknown fingerprint":       {"fed-x509", colons(sha[:len(sha)-2] + "zz"), "", 401, "no instance"},
		"an unknown form":              {"fed-x509-sha512", colons(sha2), "SHA256", 401, "no user"},
		"a fingerprint in lower case":  {"fed-x509", strings.ToLower(colons(sha)), "", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := exchange(t, i.MetadataURL, tenancy.ID, tt.form, tt.fingerprint, tt.algorithm, session)
			if tt.want != 200 {
				if status, code, why := send(t, req); status != tt.want || !strings.Contains(why, tt.why) {
					t.Errorf("%d %s (%s), want %d (…%s…)", status, code, why, tt.want, tt.why)
				}
				return
			}
			var answer struct{ Token string }
			receive(t, req, &answer)
			req = signed(t, bearer{"ST$" + answer.Token, session}, newRequest(t, "GET", configuration+tenancy.ID, ""))
			if status, code, why := send(t, req); status != 200 {
				t.Errorf("with the token: %d %s (%s)", status, code, why)
			}
		})
	}
}

// receive decodes the JSON of a success.
func receive(t *testing.T, req *http.Request, into any) {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s (%s) %v", res.StatusCode, body, res.Header.Get("X-Oci-Emulator-Why"), err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
}

func privateKey(t *testing.T, text string) *rsa.PrivateKey {
	t.Helper()
	k, err := x509.ParsePKCS8PrivateKey(der(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return k.(*rsa.PrivateKey)
}
