package ocitest

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// oboHeader carries a delegation token. The caller sends the request, with the
// rights of the token's user.
const oboHeader = "Opc-Obo-Token"

// issueDelegation issues a token by which an instance or a resource acts for a user.
func (c *Cloud) issueDelegation(u *user, actor string, life time.Duration) (string, error) {
	now := c.cfg.Now()
	return c.issue(claims{
		Issuer: "oci-emulator", Kind: "delegation", Subject: u.ID, Tenant: u.Tenancy, Actor: actor,
		IssuedAt: now.Unix(), Expires: now.Add(life).Unix(),
	})
}

// onBehalf returns the user of a caller's delegation token. The token must be among
// the headers that the caller signed.
func (c *Cloud) onBehalf(r *http.Request, who *user, signed []string) (*user, error) {
	tokens := r.Header.Values(oboHeader)
	if len(tokens) == 0 {
		return who, nil
	}
	if len(tokens) > 1 || !slices.Contains(signed, "opc-obo-token") {
		return nil, fmt.Errorf("opc-obo-token is not among the signed headers, or stands twice")
	}
	cl, err := c.readToken(tokens[0], "delegation")
	if err != nil {
		return nil, fmt.Errorf("the delegation token: %w", err)
	}
	if who.Principal == nil {
		return nil, fmt.Errorf("a user cannot act for another: %s is no instance and no resource", who.Name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.world.Users[cl.Subject]
	if u == nil || u.Tenancy != cl.Tenant {
		return nil, fmt.Errorf("the delegation token is of a user that is gone")
	}
	if c.switches(c.world, u.Tenancy).Delegation == "bound" && cl.Actor != who.ID {
		return nil, fmt.Errorf("the delegation token is for %s, not for %s", cl.Actor, who.ID)
	}
	behalf := *u
	behalf.via = who.ID
	return &behalf, nil
}

// Delegate returns a delegation token. With it an actor of [Tenancy.NewActor] may
// act for the user.
func (u *User) Delegate(actor *User, life time.Duration) string {
	u.tenancy.tb.Helper()
	token, err := u.tenancy.cloud.issueDelegation(u.u, actor.ID, life)
	if err != nil {
		u.tenancy.tb.Fatal(err)
	}
	return token
}

// resourcePath is the page on which a service hands out a resource's token.
const resourcePath = "/20180711/resourcePrincipalToken/{id}"

// resourceRoutes are the two steps by which a keeper becomes its resource. The
// resource's service gives the keeper two tokens. OCI's token service exchanges them
// for a session token.
func resourceRoutes() []route {
	return []route{
		to("devops", "GET", resourcePath, "devops.GetResourcePrincipalToken", (*call).resourceToken),
		to("auth", "POST", "/v1/resourcePrincipalSessionToken", "auth.GetResourcePrincipalSessionToken", (*call).resourceSession),
	}
}

func (c *call) resourceToken() (any, error) {
	r := c.Resources[c.path["id"]]
	if r == nil || r.Keeper == "" || r.Keeper != c.who.ID {
		return nil, notFound(c.who.Name + " keeps no resource " + c.path["id"])
	}
	now := c.cloud.cfg.Now()
	var tokens [2]string
	for i, kind := range []string{"resource", "service"} {
		var err error
		tokens[i], err = c.cloud.issue(claims{
			Issuer: "oci-emulator", Kind: kind, Subject: r.ID, Tenant: r.Tenancy, Actor: c.who.ID,
			IssuedAt: now.Unix(), Expires: now.Add(federatedLife).Unix(),
		})
		if err != nil {
			return nil, err
		}
	}
	if parent := c.keptBy(r.ID); parent != nil {
		c.out.Set("Opc-Parent-Rpt-Url", devopsEndpoint(c.region)+"/20180711/resourcePrincipalToken/"+parent.ID)
	}
	return map[string]string{"resourcePrincipalToken": tokens[0], "servicePrincipalSessionToken": tokens[1]}, nil
}

// keptBy returns the resource whose tokens a keeper gets, or nil.
func (w *world) keptBy(keeper string) *resource {
	for _, r := range oldestFirst(w.Resources) {
		if r.Keeper == keeper {
			return r
		}
	}
	return nil
}

func (c *call) resourceSession() (any, error) {
	var in struct {
		ResourcePrincipalToken       string `json:"resourcePrincipalToken"`
		ServicePrincipalSessionToken string `json:"servicePrincipalSessionToken"`
		SessionPublicKey             string `json:"sessionPublicKey"`
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	rpt, err1 := c.cloud.readToken(in.ResourcePrincipalToken, "resource")
	spst, err2 := c.cloud.readToken(in.ServicePrincipalSessionToken, "service")
	if err := cmp.Or(err1, err2); err != nil {
		return nil, unauthenticated("%v", err)
	}
	r := c.actor(rpt.Subject)
	if r == nil || spst.Subject != rpt.Subject || rpt.Actor != c.who.ID || spst.Actor != c.who.ID {
		return nil, unauthenticated("the tokens are of a resource that is gone, of two resources, or of another keeper")
	}
	der, err := base64.StdEncoding.DecodeString(in.SessionPublicKey)
	if err != nil {
		return nil, invalid("sessionPublicKey is no base64")
	}
	public, err := parsePublic(der)
	if err != nil {
		return nil, invalid("sessionPublicKey is no RSA key")
	}
	token, err := c.cloud.issueResource(r, public, federatedLife)
	return map[string]string{"token": token}, err
}

// KeepBy lets an actor fetch the tokens of the resource u. The actor is the instance
// that runs the resource, or the resource that contains it. KeepBy returns the
// service's endpoint, for OCI_RESOURCE_PRINCIPAL_RPT_ENDPOINT.
func (u *User) KeepBy(keeper *User) (rptEndpoint string) {
	c := u.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	c.world.Resources[u.ID].Keeper = keeper.ID
	return devopsEndpoint(u.tenancy.Region)
}

func devopsEndpoint(r image.Region) string {
	return "https://devops." + r.ID() + ".oci." + r.Domain()
}
