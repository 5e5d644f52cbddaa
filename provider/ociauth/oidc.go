package ociauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// oidc is a job with an OIDC token that an identity domain trusts. The session token is
// bound to a key that never leaves this process.
type oidc struct {
	cfg       OIDC
	host      string // of the identity domain
	realm     string // domain of the realm's services
	request   *url.URL
	tenancy   string
	transport *http.Transport
	tokens
}

// fromOIDC signs in with the OIDC token of a job.
func fromOIDC(ctx context.Context, cfg Config, transport *http.Transport) (oci.Identity, error) {
	if cfg.Region == "" {
		return oci.Identity{}, errors.New("the region is missing, and an OIDC token does not name one: set --region or OCI_CLI_REGION")
	}
	o, err := newOIDC(cfg, transport)
	if err != nil {
		return oci.Identity{}, err
	}
	t, err := o.get(ctx)
	if err != nil {
		return oci.Identity{}, err
	}
	id, err := locate(oci.Identity{Name: "OIDC token by way of " + o.host, Sign: signer(o.identify), Refused: o.refused}, t.tenancy, cfg.Region)
	if err != nil {
		return oci.Identity{}, err
	}
	if id.Region.Domain() != o.realm {
		return oci.Identity{}, fmt.Errorf("the identity domain is in the realm of %s, and region %s in that of %s", o.realm, id.Region, id.Region.Domain())
	}
	return id, nil
}

func newOIDC(cfg Config, transport *http.Transport) (*oidc, error) {
	o := &oidc{cfg: cfg.OIDC, tenancy: cfg.Override.Tenancy, transport: transport}
	var err error
	if o.host, o.realm, err = parseDomain(o.cfg.Domain); err != nil {
		return nil, err
	}
	switch {
	case o.cfg.Client == "" || !consists(o.cfg.Client, letters+"._-"):
		return nil, errors.New("the client id of the identity domain's application is missing or malformed: set --oidc-client or OCI_OIDC_CLIENT_ID")
	case o.cfg.Secret == "" && o.cfg.SecretFile == "":
		return nil, errors.New("the secret of the identity domain's application is missing: set OCI_OIDC_CLIENT_SECRET or --oidc-client-secret-file")
	case o.cfg.TokenFile != "" || o.cfg.Token != "":
	case o.cfg.RequestURL != "" && o.cfg.RequestToken != "":
		if o.request, err = parseRequestURL(o.cfg.RequestURL, cmp.Or(o.cfg.Audience, "https://"+o.host)); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("the OIDC token is missing: set --oidc-token-file or OCI_OIDC_TOKEN; in a job of GitHub, add id-token: write to permissions")
	}
	o.tokens = newTokens(o.fetch, 2*cfg.Client.AttemptTimeout)
	return o, nil
}

// parseDomain reads the URL of an identity domain. It rejects a host that is not
// Oracle's, since the host gets a secret and an OIDC token.
func parseDomain(text string) (host, realm string, err error) {
	if text == "" {
		return "", "", errors.New("the URL of the identity domain is missing: set --oidc-domain or OCI_DOMAIN_URL")
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", "", errors.New("the URL of the identity domain is malformed: it must look like https://idcs-0123456789abcdef.identity.oraclecloud.com")
	}
	host = strings.ToLower(strings.TrimSuffix(u.Host, ":443"))
	for _, region := range image.Regions() {
		if isHost(host) && strings.HasSuffix(host, ".identity."+region.Domain()) {
			return host, region.Domain(), nil
		}
	}
	return "", "", fmt.Errorf("the identity domain is at %.100q, which is not under identity.oraclecloud.com or another realm's identity domains", u.Host)
}

// parseRequestURL reads the URL at which GitHub gives a job its token. The request
// carries a secret of the job, so it may go to GitHub only.
func parseRequestURL(text, audience string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.User != nil || u.Fragment != "" {
		return nil, errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is not an https URL")
	}
	host := strings.ToLower(strings.TrimSuffix(u.Host, ":443"))
	if !isHost(host) || !strings.HasSuffix(host, ".actions.githubusercontent.com") && !strings.HasSuffix(host, ".ghe.com") {
		return nil, fmt.Errorf("ACTIONS_ID_TOKEN_REQUEST_URL is at %.100q, which is not GitHub: if you run your own server, get the token in the job and set OCI_OIDC_TOKEN", u.Host)
	}
	u.Host = host
	more := "audience=" + url.QueryEscape(audience)
	if u.RawQuery != "" {
		more = u.RawQuery + "&" + more
	}
	u.RawQuery = more
	return u, nil
}

func (o *oidc) fetch(ctx context.Context) (token, error) {
	subject, err := o.subject(ctx)
	if err != nil {
		return token{}, &unvouchedError{err}
	}
	secret, err := o.secret()
	if err != nil {
		return token{}, &unvouchedError{err}
	}
	t, err := newToken()
	if err != nil {
		return token{}, err
	}
	text, err := o.exchange(ctx, subject, secret, t)
	if err == nil {
		err = t.hold(text, "")
	}
	if err == nil && o.tenancy != "" && t.tenancy != o.tenancy {
		err = fmt.Errorf("the token is of tenancy %.80s, and OCI_CLI_TENANCY is %.80s", t.tenancy, o.tenancy)
	}
	if err != nil {
		return token{}, &unvouchedError{fmt.Errorf("exchanging the OIDC token at %s: %w", o.host, err)}
	}
	return t, nil
}

// subject gets the OIDC token of the job.
func (o *oidc) subject(ctx context.Context) (string, error) {
	if o.cfg.TokenFile != "" {
		text, err := readToken(o.cfg.TokenFile)
		if err != nil {
			return "", fmt.Errorf("reading the OIDC token: %s: %w", o.cfg.TokenFile, err)
		}
		return text, nil
	}
	text := strings.TrimSpace(o.cfg.Token)
	if text == "" {
		var err error
		if text, err = o.ask(ctx); err != nil {
			return "", fmt.Errorf("asking GitHub for the OIDC token of this job: %w", err)
		}
	}
	if err := checkToken(text, time.Now()); err != nil {
		return "", fmt.Errorf("the OIDC token: %w", err)
	}
	return text, nil
}

// ask asks GitHub for the job's token.
func (o *oidc) ask(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.request.String(), nil)
	if err != nil {
		return "", err
	}
	if !isSecret(o.cfg.RequestToken) {
		return "", errors.New("ACTIONS_ID_TOKEN_REQUEST_TOKEN cannot stand in a header")
	}
	req.Header.Set("Authorization", "Bearer "+o.cfg.RequestToken)
	given, err := o.send(req, o.cfg.RequestToken)
	if err != nil {
		return "", err
	}
	return given.text("value"), nil
}

// secret reads the application's secret.
func (o *oidc) secret() (string, error) {
	secret := o.cfg.Secret
	if o.cfg.SecretFile != "" {
		content, err := oci.ReadFile(o.cfg.SecretFile, maxTokenFile)
		if err != nil {
			return "", fmt.Errorf("reading the secret of the identity domain's application: %w", err)
		}
		secret = strings.TrimRight(string(content), "\r\n")
	}
	if !isSecret(secret) {
		return "", errors.New("the secret of the identity domain's application is empty, or not one line of ASCII")
	}
	return secret, nil
}

// isSecret reports whether s is a line of printable ASCII.
func isSecret(s string) bool {
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return false
		}
	}
	return s != ""
}

// exchange is the token exchange of RFC 8693 in OCI's form. The answer is bound to the
// public key, and OCI accepts it as a user's session token.
func (o *oidc) exchange(ctx context.Context, subject, secret string, t token) (string, error) {
	key, err := encodeKey(&t.key.PublicKey)
	if err != nil {
		return "", err
	}
	form := url.Values{
		"grant_type":           {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"requested_token_type": {"urn:oci:token-type:oci-upst"},
		"public_key":           {key},
		"subject_token":        {subject},
		"subject_token_type":   {"jwt"},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+o.host+"/oauth2/v1/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(o.cfg.Client, secret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	given, err := o.send(req, subject, secret)
	if err != nil {
		return "", err
	}
	return given.text("token"), nil
}

// send sends a request with secrets, and reads the JSON object of the answer.
func (o *oidc) send(req *http.Request, secrets ...string) (answer, error) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", oci.UserAgent)
	res, err := o.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	body, err := oci.ReadBody(res.Body, maxTokenFile)
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode >= 300 && res.StatusCode <= 399:
		return nil, fmt.Errorf("%d %s: redirects are not followed", res.StatusCode, http.StatusText(res.StatusCode))
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%d %s: %s", res.StatusCode, http.StatusText(res.StatusCode), told(body, secrets...))
	}
	given, err := parseAnswer(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", oci.ErrMalformed, err)
	}
	return given, nil
}
