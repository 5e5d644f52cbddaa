package ocitest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/md5" // of fingerprints
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxSkew is the largest difference between the clocks of a client and of OCI.
const maxSkew = 5 * time.Minute

// unauthenticated returns the answer to every request with a wrong signature. Its
// header has the reason, for debugging. OCI gives no reason.
func unauthenticated(format string, args ...any) error {
	return &failure{
		status: 401, code: "NotAuthenticated",
		message: "The required information to complete authentication was not provided or was incorrect.",
		why:     fmt.Sprintf(format, args...),
	}
}

// authorization is a request's Authorization header with its parameters by name.
// Each SDK writes the parameters in another order.
type authorization struct {
	keyID     string
	headers   []string
	signature []byte
}

func parseAuthorization(header string) (authorization, error) {
	rest, ok := strings.CutPrefix(header, "Signature ")
	if !ok {
		return authorization{}, fmt.Errorf("no Authorization of scheme Signature")
	}
	params := map[string]string{}
	for rest = strings.TrimSpace(rest); rest != ""; {
		name, after, ok := strings.Cut(rest, `="`)
		if !ok {
			return authorization{}, fmt.Errorf("a parameter of Authorization has no quoted value")
		}
		value, after, ok := strings.Cut(after, `"`)
		if !ok {
			return authorization{}, fmt.Errorf("a parameter of Authorization does not end")
		}
		name = strings.TrimSpace(name)
		if _, twice := params[name]; twice {
			return authorization{}, fmt.Errorf("parameter %s of Authorization stands twice", name)
		}
		params[name] = value
		after = strings.TrimSpace(after)
		if after != "" {
			if after, ok = strings.CutPrefix(after, ","); !ok {
				return authorization{}, fmt.Errorf("no comma between parameters of Authorization")
			}
		}
		rest = strings.TrimSpace(after)
	}
	if v := params["version"]; v != "1" {
		return authorization{}, fmt.Errorf("version %q of request signatures", v)
	}
	if a := params["algorithm"]; a != "rsa-sha256" {
		return authorization{}, fmt.Errorf("algorithm %q", a)
	}
	sig, err := base64.StdEncoding.DecodeString(params["signature"])
	if err != nil {
		return authorization{}, fmt.Errorf("signature is no base64")
	}
	a := authorization{keyID: params["keyId"], signature: sig}
	for name := range strings.SplitSeq(params["headers"], " ") {
		a.headers = append(a.headers, strings.ToLower(name))
	}
	if a.keyID == "" {
		return authorization{}, fmt.Errorf("no keyId")
	}
	return a, nil
}

// authenticate returns the sender of a request. It checks the raw request line and
// the whole body. It takes Cloud.mu to look at the world.
func (c *Cloud) authenticate(r *http.Request, body []byte) (*user, error) {
	auth, err := parseAuthorization(r.Header.Get("Authorization"))
	if err != nil {
		return nil, unauthenticated("%v", err)
	}
	who, pub, needed, err := c.keyHolder(auth.keyID, body)
	if err != nil {
		return nil, unauthenticated("%v", err)
	}
	text, err := signingString(r, needed, auth.headers, body, c.cfg.Now())
	if err != nil {
		return nil, unauthenticated("%v", err)
	}
	sum := sha256.Sum256([]byte(text))
	if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], auth.signature); err != nil {
		return nil, unauthenticated("the signature does not fit this signing string: %q", text)
	}
	if who, err = c.onBehalf(r, who, auth.headers); err != nil {
		return nil, unauthenticated("%v", err)
	}
	return who, nil
}

// signingString returns the text that the client must have signed. It fails if the
// signed headers lack a needed header, a date or the body.
func signingString(r *http.Request, needed, headers []string, body []byte, now time.Time) (string, error) {
	date := "date"
	if r.Header.Get("X-Date") != "" {
		date = "x-date" // it wins
	}
	needed = append([]string{date}, needed...)
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		needed = append(needed, "content-length", "content-type", "x-content-sha256")
		sum := sha256.Sum256(body)
		if want := base64.StdEncoding.EncodeToString(sum[:]); r.Header.Get("X-Content-Sha256") != want {
			return "", fmt.Errorf("x-content-sha256 is not the body's: %s", want)
		}
	}
	for _, name := range needed {
		if !slices.Contains(headers, name) {
			return "", fmt.Errorf("%s is not among the signed headers", name)
		}
	}
	at, err := http.ParseTime(r.Header.Get(date))
	if err != nil {
		return "", fmt.Errorf("%s: %w", date, err)
	}
	if skew := now.Sub(at).Abs(); skew > maxSkew {
		return "", fmt.Errorf("%s is %s away from OCI's clock", date, skew.Round(time.Second))
	}
	lines := make([]string, len(headers))
	for i, name := range headers {
		var value string
		switch name {
		case "(request-target)":
			value = strings.ToLower(r.Method) + " " + r.RequestURI // as it came, never encoded again
		case "host":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		default:
			values := r.Header.Values(name)
			if len(values) == 0 {
				return "", fmt.Errorf("signed header %s is not there", name)
			}
			value = strings.Join(values, ", ")
		}
		lines[i] = name + ": " + value
	}
	return strings.Join(lines, "\n"), nil
}

// keyHolder returns the user and the public key of a keyId, and the headers that
// must be signed with it.
func (c *Cloud) keyHolder(keyID string, body []byte) (*user, *rsa.PublicKey, []string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	needed := []string{"(request-target)", "host"}
	if token, ok := strings.CutPrefix(keyID, "ST$"); ok {
		u, pub, err := c.readSession(token)
		return u, pub, needed, err
	}
	parts := strings.Split(keyID, "/")
	if len(parts) != 3 {
		return nil, nil, nil, fmt.Errorf("keyId is neither tenancy/user/fingerprint nor ST$token")
	}
	if parts[1] == federated || parts[1] == federatedSHA1 {
		u, pub, err := c.readInstance(parts[0], parts[1], parts[2], body)
		return u, pub, needed[:1], err
	}
	u, pub, err := c.readAPIKey(parts)
	return u, pub, needed, err
}

// readAPIKey returns the user and the API key of a keyId. Cloud.mu is held.
func (c *Cloud) readAPIKey(parts []string) (*user, *rsa.PublicKey, error) {
	u, ok := c.world.Users[parts[1]]
	if !ok || u.Tenancy != parts[0] {
		return nil, nil, fmt.Errorf("no user %s in tenancy %s", parts[1], parts[0])
	}
	der, ok := u.Keys[parts[2]]
	if !ok {
		return nil, nil, fmt.Errorf("user %s has no API key %s", u.Name, parts[2])
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the API key of %s: %w", u.Name, err)
	}
	k, ok := pub.(*rsa.PublicKey)
	if !ok {
		return nil, nil, fmt.Errorf("the API key of %s is no RSA key", u.Name)
	}
	return u, k, nil
}

// fingerprint returns the fingerprint by which OCI names an API key, and the key in
// DER.
func fingerprint(pub *rsa.PublicKey) (string, []byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", nil, fmt.Errorf("encoding an API key: %w", err)
	}
	sum := md5.Sum(der)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = hex.EncodeToString([]byte{b})
	}
	return strings.Join(parts, ":"), der, nil
}

// claims are the content of a token that the emulator issued: a session token for
// the APIs, or an access token of OCI Registry.
type claims struct {
	Issuer   string `json:"iss"`
	Kind     string `json:"ptype"` // "session" or "registry"
	Subject  string `json:"sub"`
	Tenant   string `json:"tenant,omitempty"`
	Resource string `json:"res_tenant,omitempty"` // the tenancy of a workload or resource, where its clients look for it

	ResourceType string `json:"res_type,omitempty"`
	Compartment  string `json:"res_compartment,omitempty"`
	Actor        string `json:"act,omitempty"` // who may show the token

	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	JWK      string `json:"jwk,omitempty"`   // public key of the session, JSON in a string as OCI has it
	Scope    string `json:"scope,omitempty"` // of OCI Registry

	Workload *serviceAccount `json:"workload,omitempty"` // whose session it is, if nobody's of Users
}

type jwk struct {
	Kty string `json:"kty"`
	N   string `json:"n"`
	E   string `json:"e"`
}

// issue signs claims into a token. The token contains all claims, so it stays valid
// when the emulator restarts from saved state.
func (c *Cloud) issue(cl claims) (string, error) {
	body, err := json.Marshal(cl)
	if err != nil {
		return "", fmt.Errorf("encoding a token: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"oci-emulator","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(nil, c.ca.key, sum[:])
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig[:]), nil
}

func (c *Cloud) readToken(token, kind string) (claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return claims{}, fmt.Errorf("the token is no JWT")
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(sig) != 64 {
		return claims{}, fmt.Errorf("the token's signature is malformed")
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !ecdsa.Verify(&c.ca.key.PublicKey, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return claims{}, fmt.Errorf("the token was not issued here")
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return claims{}, fmt.Errorf("the token's claims are malformed")
	}
	var cl claims
	if err := json.Unmarshal(body, &cl); err != nil {
		return claims{}, fmt.Errorf("the token's claims are malformed")
	}
	if cl.Kind != kind {
		return claims{}, fmt.Errorf("the token is for something else")
	}
	if c.cfg.Now().Unix() >= cl.Expires {
		return claims{}, fmt.Errorf("the token ran out")
	}
	return cl, nil
}

func (c *Cloud) issueSession(u *user, pub *rsa.PublicKey, life time.Duration) (string, error) {
	return c.issueFor(claims{Subject: u.ID, Tenant: u.Tenancy}, pub, life)
}

func (c *Cloud) issueResource(u *user, pub *rsa.PublicKey, life time.Duration) (string, error) {
	return c.issueFor(claims{
		Subject: u.ID, Tenant: u.Tenancy, Resource: u.Tenancy,
		ResourceType: u.Principal["request.principal.type"], Compartment: u.Principal["request.principal.compartment.id"],
	}, pub, life)
}

func (c *Cloud) issueFor(cl claims, pub *rsa.PublicKey, life time.Duration) (string, error) {
	key, err := json.Marshal(jwk{
		Kty: "RSA",
		N:   base64.RawURLEncoding.EncodeToString(pub.N.Bytes()),
		E:   base64.RawURLEncoding.EncodeToString(big.NewInt(int64(pub.E)).Bytes()),
	})
	if err != nil {
		return "", fmt.Errorf("encoding a session key: %w", err)
	}
	now := c.cfg.Now()
	cl.Issuer, cl.Kind, cl.JWK = "oci-emulator", "session", string(key)
	cl.IssuedAt, cl.Expires = now.Unix(), now.Add(life).Unix()
	return c.issue(cl)
}

// readSession returns the user and the key of a session token. Cloud.mu is held.
func (c *Cloud) readSession(token string) (*user, *rsa.PublicKey, error) {
	cl, err := c.readToken(token, "session")
	if err != nil {
		return nil, nil, err
	}
	u := c.world.actor(cl.Subject)
	if cl.Workload != nil {
		u = c.world.workload(*cl.Workload)
	}
	if u == nil {
		return nil, nil, fmt.Errorf("the session is of a user, a resource or a cluster that is gone")
	}
	var k jwk
	if err := json.Unmarshal([]byte(cl.JWK), &k); err != nil {
		return nil, nil, fmt.Errorf("the session carries no key")
	}
	n, err1 := base64.RawURLEncoding.DecodeString(k.N)
	e, err2 := base64.RawURLEncoding.DecodeString(k.E)
	if err1 != nil || err2 != nil || len(e) > 4 {
		return nil, nil, fmt.Errorf("the session's key is malformed")
	}
	return u, &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
}

// basicUser returns the user of a docker login: namespace/name and an auth token.
// Cloud.mu is held.
func (c *Cloud) basicUser(r *http.Request, realm string) (*user, bool) {
	name, password, ok := r.BasicAuth()
	if !ok {
		return nil, false
	}
	namespace, name, ok := strings.Cut(name, "/")
	if !ok {
		return nil, false
	}
	t := c.world.tenancyByNamespace(namespace, realm)
	if t == nil {
		return nil, false
	}
	u := c.world.userByName(t.ID, name)
	if u == nil || !u.logsIn(password) {
		return nil, false
	}
	return u, true
}
