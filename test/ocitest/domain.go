package ocitest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	userToken     = "urn:oci:token-type:oci-upst"
	domainLife    = time.Hour // the lifetime of a domain's tokens
	jobLife       = 5 * time.Minute
)

// identityDomain is an identity domain of IAM. It only exchanges tokens of other
// issuers for tokens of OCI.
type identityDomain struct {
	born
	Tenancy string            `json:"tenancy"`
	Host    string            `json:"host"`
	Clients map[string]string `json:"clients"` // confidential applications: id and secret
	Trusts  []trust           `json:"trusts"`
	Life    time.Duration     `json:"life"` // of the tokens it gives
}

// trust is an Identity Propagation Trust: it names the issuer that the domain
// trusts, and maps the issuer's tokens to users.
type trust struct {
	Issuer    string   `json:"issuer"`
	Key       []byte   `json:"key"` // PKIX, DER
	Audiences []string `json:"audiences"`
	Clients   []string `json:"clients"` // that may exchange them
	Rules     []rule   `json:"rules"`   // the first that fits decides
}

// rule maps a claim to a service user.
type rule struct {
	Claim string `json:"claim"`
	Value string `json:"value"`
	User  string `json:"user"` // OCID
}

// issuer issues OIDC tokens, as a CI service does for its jobs.
type issuer struct {
	Private []byte `json:"private,omitempty"` // PKCS #8
}

// githubJob is a job of GitHub Actions that may request tokens about itself.
type githubJob struct {
	Token  string         `json:"token,omitempty"` // that it asks with
	Issuer string         `json:"issuer"`
	Claims map[string]any `json:"claims"`
}

func (w *world) newDomain(t *tenancy) *identityDomain {
	var b [16]byte
	if _, err := io.ReadFull(w.entropy, b[:]); err != nil {
		panic("ocitest: the source of identifiers ran dry: " + err.Error())
	}
	d := &identityDomain{
		born: w.birth(w.globalOCID("domain", t.realm())), Tenancy: t.ID,
		Host:    "idcs-" + hex.EncodeToString(b[:]) + ".identity." + parseRegion(t.HomeRegion).Domain(),
		Clients: map[string]string{w.unique(32): "idcscs-" + w.unique(36)}, Life: domainLife,
	}
	w.Domains[d.Host] = d
	return d
}

// trustIssuer makes a domain accept an issuer's tokens from all of the domain's
// clients.
func (c *Cloud) trustIssuer(d *identityDomain, url string, audiences ...string) error {
	key, _, err := c.credentialKeys()
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding an issuer's key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encoding an issuer's key: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.world.Issuers[url] = &issuer{Private: private}
	tr := trust{Issuer: url, Key: public, Audiences: audiences}
	for id := range d.Clients {
		tr.Clients = append(tr.Clients, id)
	}
	d.Trusts = append(d.Trusts, tr)
	return nil
}

// oidcToken returns an RS256 token of an issuer. It adds the claims that every token
// has, unless more sets them. Cloud.mu is held.
func (c *Cloud) oidcToken(issuerURL string, more map[string]any, life time.Duration) (string, error) {
	i := c.world.Issuers[issuerURL]
	if i == nil {
		return "", fmt.Errorf("no issuer %.80q", issuerURL)
	}
	key, err := parseSigner(i.Private)
	if err != nil {
		return "", err
	}
	now := c.cfg.Now()
	all := map[string]any{"iss": issuerURL, "jti": rand.Text(), "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(life).Unix()}
	for name, value := range more {
		all[name] = value
	}
	body, err := json.Marshal(all)
	if err != nil {
		return "", fmt.Errorf("encoding a token: %w", err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"1","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	sig, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

func domainRoutes() []route {
	return []route{
		to("domain", "POST", "/oauth2/v1/token", "identitydomains.ExchangeToken", (*call).exchangeToken),
		to("github", "GET", "/{pool}/_apis/distributedtask/hubs/Actions/plans/{plan}/jobs/{id}/idtoken", "github.GetIDToken", (*call).githubToken),
	}
}

// oauth returns an error in the form of RFC 6749.
func oauth(status int, code, format string, args ...any) error {
	return &failure{status: status, code: code, message: fmt.Sprintf(format, args...), oauth: true}
}

// form reads a form, and rejects repeated fields.
func (c *call) form() (url.Values, error) {
	kind, _, err := mime.ParseMediaType(c.in.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, oauth(400, "invalid_request", "Content-Type is not application/x-www-form-urlencoded")
	}
	in, err := url.ParseQuery(string(c.body))
	if err != nil {
		return nil, oauth(400, "invalid_request", "the form cannot be read")
	}
	for name, values := range in {
		if len(values) != 1 {
			return nil, oauth(400, "invalid_request", "%s stands %d times", name, len(values))
		}
	}
	return in, nil
}

// exchangeToken exchanges another issuer's token for a session token, which is bound
// to the client's key.
func (c *call) exchangeToken() (any, error) {
	d := c.Domains[c.host]
	if d == nil {
		return nil, notFound("the identity domain is gone")
	}
	client, err := c.oauthClient(d)
	if err != nil {
		return nil, err
	}
	in, err := c.form()
	if err != nil {
		return nil, err
	}
	if got := in.Get("grant_type"); got != exchangeGrant {
		return nil, oauth(400, "unsupported_grant_type", "grant_type %.80q is not %s", got, exchangeGrant)
	}
	if got := in.Get("requested_token_type"); got != userToken {
		return nil, oauth(400, "invalid_request", "requested_token_type %.80q is not %s", got, userToken)
	}
	if got := in.Get("subject_token_type"); got != "jwt" {
		return nil, oauth(400, "invalid_request", "subject_token_type %.80q is not jwt", got)
	}
	der, err := base64.StdEncoding.DecodeString(in.Get("public_key"))
	if err != nil {
		return nil, oauth(400, "invalid_request", "public_key is no base64")
	}
	public, err := parsePublic(der)
	if err != nil || public.N.BitLen() < 2048 {
		return nil, oauth(400, "invalid_request", "public_key is no RSA key of 2048 bits or more")
	}
	u, err := c.impersonated(d, client, in.Get("subject_token"))
	if err != nil {
		status := 400
		if c.sw.OIDCRefusal == "401" {
			status = 401
		}
		return nil, oauth(status, "invalid_grant", "%v", err)
	}
	token, err := c.cloud.issueFor(claims{Subject: u.ID, Tenant: u.Tenancy}, public, d.Life)
	return map[string]string{"token": token}, err
}

// oauthClient returns the confidential application that sent the request.
func (c *call) oauthClient(d *identityDomain) (string, error) {
	text, ok := strings.CutPrefix(c.in.Get("Authorization"), "Basic ")
	if !ok {
		return "", oauth(401, "invalid_client", "the client does not authenticate by Basic")
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", oauth(401, "invalid_client", "Authorization is no base64")
	}
	id, secret, _ := strings.Cut(string(b), ":")
	want, ok := d.Clients[id]
	if !ok || subtle.ConstantTimeCompare([]byte(secret), []byte(want)) != 1 {
		return "", oauth(401, "invalid_client", "no such client, or another secret")
	}
	return id, nil
}

// impersonated returns the service user that a trust of the domain maps a token to.
func (c *call) impersonated(d *identityDomain, client, token string) (*user, error) {
	var named struct {
		Issuer string `json:"iss"`
	}
	body, _, err := splitToken(token)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &named); err != nil {
		return nil, fmt.Errorf("the token's claims are malformed")
	}
	at := slices.IndexFunc(d.Trusts, func(t trust) bool { return t.Issuer == named.Issuer })
	if at < 0 {
		return nil, fmt.Errorf("no trust is in issuer %.120q", named.Issuer)
	}
	t := d.Trusts[at]
	if !slices.Contains(t.Clients, client) {
		return nil, fmt.Errorf("the trust is not for this client")
	}
	said, err := t.read(token, c.cloud.cfg.Now())
	if err != nil {
		return nil, err
	}
	for _, r := range t.Rules {
		if value, ok := said[r.Claim].(string); ok && value == r.Value {
			if u := c.Users[r.User]; u != nil && u.Tenancy == d.Tenancy {
				return u, nil
			}
		}
	}
	return nil, fmt.Errorf("no rule of the trust maps sub %.120q to a user", said["sub"])
}

// splitToken splits an RS256 JWT into its body and its signature.
func splitToken(token string) (body, signature []byte, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, nil, fmt.Errorf("the subject token is no JWT")
	}
	var decoded [3][]byte
	for i, p := range parts {
		if decoded[i], err = base64.RawURLEncoding.DecodeString(p); err != nil {
			return nil, nil, fmt.Errorf("the subject token is malformed")
		}
	}
	var head struct {
		Alg string `json:"alg"`
	}
	if err := json.Unmarshal(decoded[0], &head); err != nil || head.Alg != "RS256" {
		return nil, nil, fmt.Errorf("the subject token's algorithm %.20q is not RS256", head.Alg)
	}
	return decoded[1], decoded[2], nil
}

// read verifies a token and returns its claims.
func (t trust) read(token string, now time.Time) (map[string]any, error) {
	body, sig, err := splitToken(token)
	if err != nil {
		return nil, err
	}
	public, err := parsePublic(t.Key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(token[:strings.LastIndexByte(token, '.')]))
	if rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sig) != nil {
		return nil, fmt.Errorf("the subject token is not by its issuer")
	}
	var said map[string]any
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, fmt.Errorf("the subject token's claims are malformed")
	}
	exp, ok := said["exp"].(float64)
	if !ok || now.Unix() >= int64(exp) {
		return nil, fmt.Errorf("the subject token ran out, or does not say when")
	}
	if nbf, ok := said["nbf"].(float64); ok && now.Add(maxSkew).Unix() < int64(nbf) {
		return nil, fmt.Errorf("the subject token does not hold yet")
	}
	if !slices.ContainsFunc(audiences(said["aud"]), func(a string) bool { return slices.Contains(t.Audiences, a) }) {
		return nil, fmt.Errorf("the subject token is for audience %.200q, and the trust asks for %.200q", said["aud"], t.Audiences)
	}
	return said, nil
}

// audiences returns the audience or audiences of a token.
func audiences(aud any) []string {
	switch aud := aud.(type) {
	case string:
		return []string{aud}
	case []any:
		var all []string
		for _, a := range aud {
			if text, ok := a.(string); ok {
				all = append(all, text)
			}
		}
		return all
	}
	return nil
}

// githubHost is the host where jobs of GitHub request their tokens.
const githubHost = "pipelines.actions.githubusercontent.com"

// newJob makes a job and returns the URL at which the job requests a token.
func (w *world) newJob(issuerURL string, said map[string]any) (requestURL string, j *githubJob) {
	id := w.unique(20)
	j = &githubJob{Token: w.unique(40), Issuer: issuerURL, Claims: said}
	w.Jobs[id] = j
	return "https://" + githubHost + "/" + w.unique(20) + "/_apis/distributedtask/hubs/Actions/plans/" + w.unique(20) + "/jobs/" + id + "/idtoken?api-version=2.0", j
}

// jobAt returns the job that requests its token at a URL.
func (w *world) jobAt(requestURL string) *githubJob {
	for id, j := range w.Jobs {
		if strings.Contains(requestURL, "/jobs/"+id+"/") {
			return j
		}
	}
	return nil
}

// githubToken gives a job a token about itself, for the audience in the query.
func (c *call) githubToken() (any, error) {
	j := c.Jobs[c.path["id"]]
	scheme, bearer, _ := strings.Cut(c.in.Get("Authorization"), " ")
	if j == nil || !strings.EqualFold(scheme, "bearer") || subtle.ConstantTimeCompare([]byte(bearer), []byte(j.Token)) != 1 {
		return nil, &failure{status: 401, code: "Unauthorized", message: "the job's token does not hold"}
	}
	said := map[string]any{"aud": "https://github.com/octo-org"}
	for name, value := range j.Claims {
		said[name] = value
	}
	if asked := c.query.Get("audience"); asked != "" {
		said["aud"] = asked
	}
	token, err := c.cloud.oidcToken(j.Issuer, said, jobLife)
	return map[string]any{"count": len(token), "value": token}, err
}

// Domain is an identity domain of a tenancy, with one confidential application.
type Domain struct {
	URL                    string
	ClientID, ClientSecret string

	tenancy *Tenancy
	d       *identityDomain
}

// NewDomain makes an identity domain that trusts no issuer yet. Its tokens are valid
// for an hour.
func (t *Tenancy) NewDomain() *Domain {
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	d := &Domain{tenancy: t, d: t.cloud.world.newDomain(t.t)}
	d.URL = "https://" + d.d.Host
	for d.ClientID, d.ClientSecret = range d.d.Clients {
	}
	return d
}

// SetLife sets the lifetime of tokens that the domain issues after the call.
func (d *Domain) SetLife(life time.Duration) {
	d.tenancy.cloud.mu.Lock()
	defer d.tenancy.cloud.mu.Unlock()
	d.d.Life = life
}

// Issuer issues OIDC tokens that a domain trusts.
type Issuer struct {
	URL string

	domain *Domain
}

// Trust makes an issuer. The domain accepts its tokens if they are for one of the
// audiences. The URL is the issuer's name and must be new.
func (d *Domain) Trust(url string, audiences ...string) *Issuer {
	t := d.tenancy
	t.tb.Helper()
	if err := t.cloud.trustIssuer(d.d, url, audiences...); err != nil {
		t.tb.Fatal(err)
	}
	return &Issuer{URL: url, domain: d}
}

// Map makes the domain map a token with this claim to a user.
func (i *Issuer) Map(claim, value string, u *User) {
	c := i.domain.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := range i.domain.d.Trusts {
		if t := &i.domain.d.Trusts[at]; t.Issuer == i.URL {
			t.Rules = append(t.Rules, rule{claim, value, u.ID})
		}
	}
}

// Token returns a token with these claims, and with those that every token has.
func (i *Issuer) Token(claims map[string]any) string {
	t := i.domain.tenancy
	t.tb.Helper()
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	token, err := t.cloud.oidcToken(i.URL, claims, jobLife)
	if err != nil {
		t.tb.Fatal(err)
	}
	return token
}

// NewJob makes a job of GitHub Actions whose tokens have these claims. It returns
// the values of ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN.
func (i *Issuer) NewJob(claims map[string]any) (requestURL, requestToken string) {
	c := i.domain.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	requestURL, j := c.world.newJob(i.URL, claims)
	return requestURL, j.Token
}

// resolveDomain finds an identity domain by its host name. Cloud.mu is held.
func (c *Cloud) resolveDomain(host string) (endpoint, bool) {
	d := c.world.Domains[host]
	if d == nil {
		return endpoint{}, false
	}
	t := c.world.Tenancies[d.Tenancy]
	if t == nil {
		return endpoint{}, false
	}
	r, err := image.ParseRegion(t.HomeRegion)
	return endpoint{service: "domain", region: r, tenancy: t.ID}, err == nil
}
