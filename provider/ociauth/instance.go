package ociauth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

const (
	metadataService = "http://169.254.169.254/opc/v2"
	metadataOverV6  = "fd00:c1::a9fe:a9fe"
	maxMetadata     = 64 << 10
)

// instance is the compute instance that this process runs on. Its metadata service
// gives it a certificate. OCI's federation endpoint exchanges the certificate for a token,
// which is bound to a key that never leaves this process.
type instance struct {
	metadata  string
	region    image.Region
	tenancy   string
	transport *http.Transport // to OCI
	tokens
}

// fromInstance signs in as the compute instance that this process runs on.
func fromInstance(ctx context.Context, cfg Config, transport *http.Transport) (oci.Identity, error) {
	i, err := newInstance(ctx, cfg, transport)
	if err != nil {
		return oci.Identity{}, err
	}
	return locate(oci.Identity{Name: "instance principal from " + i.metadata, Sign: signer(i.identify), Refused: i.refused},
		i.tenancy, cmp.Or(cfg.Region, i.region.ID()))
}

// newInstance asks the metadata service for the tenancy and the region of the instance.
func newInstance(ctx context.Context, cfg Config, transport *http.Transport) (*instance, error) {
	i := &instance{metadata: strings.TrimSuffix(cmp.Or(cfg.Metadata, metadataService), "/"), transport: transport}
	if err := checkMetadata(i.metadata); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Client.AttemptTimeout)
	defer cancel()
	name, err := i.read(ctx, "/instance/region")
	if err != nil {
		return nil, &unvouchedError{fmt.Errorf("%w: is this machine a compute instance of OCI?", err)}
	}
	if i.region, err = image.ParseRegion(strings.ToLower(strings.TrimSpace(string(name)))); err != nil {
		return nil, fmt.Errorf("the instance's metadata: %w", err)
	}
	leaf, err := i.leaf(ctx)
	if err != nil {
		return nil, &unvouchedError{err}
	}
	i.tenancy = leaf.tenancy
	i.tokens = newTokens(i.fetch, cfg.Client.AttemptTimeout)
	return i, nil
}

// checkMetadata rejects an address outside of this machine and its link, since the
// metadata service decides who this process is.
func checkMetadata(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("OCI_METADATA_BASE_URL is not the URL of a metadata service, such as " + metadataService)
	}
	at, err := netip.ParseAddr(u.Hostname())
	if err != nil || !at.IsLoopback() && !at.IsLinkLocalUnicast() && at.String() != metadataOverV6 {
		return fmt.Errorf("OCI_METADATA_BASE_URL is at %.100q, which is neither this machine nor its link", u.Host)
	}
	return nil
}

// read asks the metadata service, without any proxy.
func (i *instance) read(ctx context.Context, page string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.metadata+page, nil)
	if err != nil {
		return nil, err
	}
	// The service wants this header, so that a forged request without headers fails.
	req.Header.Set("Authorization", "Bearer Oracle")
	req.Header.Set("User-Agent", oci.UserAgent)
	direct := &http.Transport{DisableKeepAlives: true}
	res, err := direct.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("asking %s%s: %w", i.metadata, page, err)
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	answer, err := oci.ReadBody(res.Body, maxMetadata)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%d %s: %s", res.StatusCode, http.StatusText(res.StatusCode), oci.Printable(string(answer), 200))
	}
	if err != nil {
		return nil, fmt.Errorf("asking %s%s: %w", i.metadata, page, err)
	}
	return answer, nil
}

// leaf is the instance's certificate. OCI replaces it every few hours.
type leaf struct {
	der, chain []byte
	public     any
	tenancy    string
}

func (i *instance) leaf(ctx context.Context) (leaf, error) {
	var found leaf
	var cert *x509.Certificate
	for page, der := range map[string]*[]byte{"/identity/cert.pem": &found.der, "/identity/intermediate.pem": &found.chain} {
		content, err := i.read(ctx, page)
		if err != nil {
			return leaf{}, err
		}
		block, _ := pem.Decode(content)
		if block == nil || block.Type != "CERTIFICATE" {
			return leaf{}, fmt.Errorf("asking %s%s: %w: no certificate in PEM", i.metadata, page, oci.ErrMalformed)
		}
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return leaf{}, fmt.Errorf("asking %s%s: %w: %w", i.metadata, page, oci.ErrMalformed, err)
		}
		if *der = block.Bytes; der == &found.der {
			cert = parsed
		}
	}
	found.public = cert.PublicKey
	for _, name := range cert.Subject.Names {
		text, _ := name.Value.(string)
		if tenancy, ok := strings.CutPrefix(text, "opc-tenant:"); ok {
			found.tenancy = tenancy
		}
	}
	if !oci.IsOCID(found.tenancy, "tenancy") {
		return leaf{}, fmt.Errorf("the instance's certificate names no tenancy: %.80q", found.tenancy)
	}
	return found, nil
}

// identity reads the certificate and its key. OCI may replace both between the two reads,
// so a pair that does not match is read again.
func (i *instance) identity(ctx context.Context) (leaf, *rsa.PrivateKey, error) {
	const tries = 3
	for range tries {
		own, err := i.leaf(ctx)
		if err != nil {
			return leaf{}, nil, err
		}
		content, err := i.read(ctx, "/identity/key.pem")
		if err != nil {
			return leaf{}, nil, err
		}
		key, err := parseKey(content, "", i.metadata+"/identity/key.pem")
		if err != nil {
			return leaf{}, nil, err
		}
		if key.PublicKey.Equal(own.public) {
			return own, key, nil
		}
	}
	return leaf{}, nil, fmt.Errorf("the key at %s is not that of the instance's certificate", i.metadata)
}

// fetch exchanges the instance's certificate for a token.
func (i *instance) fetch(ctx context.Context) (token, error) {
	own, key, err := i.identity(ctx)
	if err != nil {
		return token{}, err
	}
	if own.tenancy != i.tenancy {
		return token{}, fmt.Errorf("the tenancy of the instance's certificate is now %s, and was %s", own.tenancy, i.tenancy)
	}
	t, err := newToken()
	if err != nil {
		return token{}, err
	}
	text, err := i.federate(ctx, own, key, &t.key.PublicKey)
	if err != nil {
		return token{}, err
	}
	return t, t.hold(text, i.tenancy)
}

// federate exchanges a certificate for a token at OCI's auth service.
func (i *instance) federate(ctx context.Context, own leaf, key *rsa.PrivateKey, public *rsa.PublicKey) (string, error) {
	call := oci.Call{Service: "auth", Operation: "FederateX509", Host: "auth." + i.region.ID() + "." + i.region.Domain()}
	session, err := encodeKey(public)
	if err != nil {
		return "", err
	}
	encode := base64.StdEncoding.EncodeToString
	body, err := json.Marshal(map[string]any{
		"certificate": encode(own.der), "intermediateCertificates": []string{encode(own.chain)},
		"publicKey": session, "fingerprintAlgorithm": "SHA256",
	})
	if err != nil {
		return "", fmt.Errorf("encoding a request for a token: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+call.Host+"/v1/x509", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", oci.UserAgent)
	sum := sha256.Sum256(own.der)
	id := credential{
		keyID: i.tenancy + "/fed-x509-sha256/" + strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":"),
		key:   key,
	}
	// The SDK does not sign the host for this endpoint, and the endpoint is made for
	// the SDK.
	signer := common.RequestSigner(id, []string{"date", "(request-target)"}, []string{"content-length", "content-type", "x-content-sha256"})
	req.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if err := signer.Sign(req); err != nil {
		return "", err
	}
	given, _, err := sendSigned(i.transport, call, req)
	if err != nil {
		return "", fmt.Errorf("asking for an instance's token: %w", err)
	}
	return given.text("token"), nil
}
