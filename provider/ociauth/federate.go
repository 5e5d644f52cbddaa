package ociauth

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// maxParents is how many resources may contain a nested one, as in Oracle's SDKs.
const maxParents = 10

// federation gets a resource's token in two steps. A service of OCI confirms that the
// resource is its own. OCI's auth service exchanges the confirmation for a session token.
// A nested resource repeats both steps for each resource that contains it.
type federation struct {
	cfg       Config
	signer    func(context.Context) (credential, error) // of the first request
	bound     *rsa.PrivateKey                           // the session's key; nil means a new one
	target    *url.URL                                  // of the first step
	auth      string                                    // host of the second step
	context   string                                    // header of the first step
	hops      int
	region    image.Region
	transport *http.Transport
	tokens
}

// aim sets the endpoints of the two steps. Both hosts must be in this process's realm,
// so that the environment cannot send a signed request elsewhere.
func (f *federation) aim(r Resource) error {
	target, err := f.parse("OCI_RESOURCE_PRINCIPAL_RPT_ENDPOINT", r.TokenEndpoint)
	if err != nil {
		return err
	}
	if path := r.path(); path != "" {
		if !oci.Segment(r.ID) {
			return fmt.Errorf("the id of the resource cannot be part of a path: %.80q", r.ID)
		}
		target.Path = strings.TrimSuffix(target.Path, "/") + path
	}
	f.target, f.auth = target, "auth."+f.region.ID()+"."+f.region.Domain()
	if r.SessionEndpoint == "" {
		return nil
	}
	session, err := f.parse("OCI_RESOURCE_PRINCIPAL_RPST_ENDPOINT", r.SessionEndpoint)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(session.Host, "auth.") {
		return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST_ENDPOINT is %.100q, and not OCI's auth service", session.Host)
	}
	f.auth = session.Host
	return nil
}

// path returns the path of a version's first step below its endpoint.
func (r Resource) path() string {
	given := r.TokenPath
	switch r.Version {
	case resourceKey, resourceKeyOf:
		return "/20180711/resourcePrincipalTokenV2/" + r.ID
	case resourceContext:
		if given == "" {
			given = "/20180711/resourcePrincipalTokenV212/"
		}
		given = strings.TrimSuffix(given, "{}")
		return "/" + strings.Trim(given, "/") + "/" + r.ID
	case resourceInstance:
		return "/" + strings.TrimPrefix(strings.ReplaceAll(given, "{id}", r.ID), "/")
	}
	return ""
}

// parse reads the URL of an OCI service in this realm.
func (f *federation) parse(name, text string) (*url.URL, error) {
	if text == "" {
		return nil, fmt.Errorf("%s is not set", name)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.EscapedPath() != u.Path || strings.Contains(u.Path+"/", "/../") {
		return nil, fmt.Errorf("%s is not the https URL of a service of OCI", name)
	}
	host := strings.ToLower(strings.TrimSuffix(u.Host, ":443"))
	if !isHost(host) || !strings.HasSuffix(host, "."+f.region.Domain()) {
		return nil, fmt.Errorf("%s is at %.100q, which is not under %s, where the services of this realm are", name, u.Host, f.region.Domain())
	}
	return &url.URL{Scheme: "https", Host: host, Path: u.Path}, nil
}

func (f *federation) fetch(ctx context.Context) (token, error) {
	t, err := f.session(ctx)
	if err != nil {
		return token{}, &unvouchedError{fmt.Errorf("asking for a resource's token: %w", err)}
	}
	return t, nil
}

func (f *federation) session(ctx context.Context) (token, error) {
	by, err := f.signer(ctx)
	if err != nil {
		return token{}, err
	}
	t, err := newToken()
	if err != nil {
		return token{}, err
	}
	if f.bound != nil {
		t.key = f.bound
	}
	target := f.target
	for range f.hops {
		text, parent, err := f.exchange(ctx, by, target, &t.key.PublicKey)
		if err != nil {
			return token{}, err
		}
		if err := t.hold(text, ""); err != nil {
			return token{}, err
		}
		if parent == "" || f.hops == 1 {
			return t, nil
		}
		next, err := f.parse("the URL of the parent resource", parent)
		if err != nil {
			return token{}, err
		}
		if *next == *target {
			return t, nil
		}
		by, target = t.credential, next
	}
	return token{}, errors.New("more than 10 resources contain this one")
}

// exchange takes both steps for one resource. It returns the session token and the URL
// of the containing resource, if there is one.
func (f *federation) exchange(ctx context.Context, by credential, target *url.URL, public *rsa.PublicKey) (text, parent string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return "", "", err
	}
	if f.context != "" {
		req.Header.Set("security-context", f.context)
	}
	first, header, err := f.send(by, oci.Call{Service: "auth", Operation: "GetResourcePrincipalToken", Host: target.Host}, req)
	if err != nil {
		return "", "", err
	}
	key, err := encodeKey(public)
	if err != nil {
		return "", "", err
	}
	body, err := json.Marshal(map[string]string{
		"resourcePrincipalToken":       first.text("resourcePrincipalToken"),
		"servicePrincipalSessionToken": first.text("servicePrincipalSessionToken"),
		"sessionPublicKey":             key,
	})
	if err != nil {
		return "", "", fmt.Errorf("encoding a request for a token: %w", err)
	}
	req, err = http.NewRequestWithContext(ctx, http.MethodPost, "https://"+f.auth+"/v1/resourcePrincipalSessionToken", bytes.NewReader(body))
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Content-Type", "application/json")
	second, _, err := f.send(by, oci.Call{Service: "auth", Operation: "CreateResourcePrincipalSessionToken", Host: f.auth}, req)
	if err != nil {
		return "", "", err
	}
	return second.text("token"), header.Get("opc-parent-rpt-url"), nil
}

// send signs a request, sends it, and reads the JSON object of the answer.
func (f *federation) send(by credential, call oci.Call, req *http.Request) (answer, http.Header, error) {
	req.Header.Set("User-Agent", oci.UserAgent)
	req.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if err := by.sign(req); err != nil {
		return nil, nil, err
	}
	return sendSigned(f.transport, call, req)
}
