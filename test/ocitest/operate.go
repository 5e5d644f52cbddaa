package ocitest

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
)

// maxStatements bounds the statements of one request.
const maxStatements = 50

// Grant adds IAM statements to the root compartment of the seeded tenancy, as its
// administrator would.
func (c *Cloud) Grant(statements ...string) error {
	if len(statements) == 0 || len(statements) > maxStatements {
		return fmt.Errorf("%d statements, and a request has 1 to %d", len(statements), maxStatements)
	}
	for _, s := range statements {
		if err := ValidateStatement(s); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	operator := c.world.Users[c.world.Operator]
	if operator == nil {
		return fmt.Errorf("the cloud has no seeded tenancy")
	}
	t := c.world.Tenancies[operator.Tenancy]
	for _, s := range statements {
		if !slices.Contains(t.Policies, s) {
			t.Policies = append(t.Policies, s)
		}
	}
	return nil
}

// Login is what a container tool signs in with.
type Login struct {
	Registry string `json:"registry"`
	User     string `json:"user"`
	Token    string `json:"token"`
}

// NewAuthToken makes an auth token for a user of the seeded tenancy. An empty name means
// the operator.
func (c *Cloud) NewAuthToken(name string) (Login, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.world.Users[c.world.Operator]
	if u == nil {
		return Login{}, fmt.Errorf("the cloud has no seeded tenancy")
	}
	t := c.world.Tenancies[u.Tenancy]
	if name != "" {
		if u = c.world.userByName(t.ID, name); u == nil {
			return Login{}, fmt.Errorf("no user is named %.100q", name)
		}
	}
	if len(u.Tokens) >= maxAuthTokens {
		return Login{}, fmt.Errorf("%s has %d auth tokens, and OCI allows no more", u.Name, maxAuthTokens)
	}
	region := parseRegion(t.HomeRegion)
	token := &authToken{born: c.world.birth(c.world.globalOCID("credential", region.Realm())), Token: c.world.unique(20), Description: "oci-emulator auth-token"}
	u.Tokens = append(u.Tokens, token)
	return Login{Registry: region.Key() + ".ocir.io", User: t.Namespace + "/" + u.Name, Token: token.Token}, nil
}

func (c *Cloud) postStatements(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Statements []string `json:"statements"`
	}
	if err := strictly(r.Body, &in); err != nil {
		done(w, err)
		return
	}
	done(w, c.Grant(in.Statements...))
}

func (c *Cloud) postAuthToken(w http.ResponseWriter, r *http.Request) {
	var in struct {
		User string `json:"user"`
	}
	if err := strictly(r.Body, &in); err != nil {
		done(w, err)
		return
	}
	login, err := c.NewAuthToken(in.User)
	if err != nil {
		done(w, err)
		return
	}
	reply(w, http.StatusOK, login)
}

// Welcome returns what the cloud holds, for people, and the next commands to type.
func (c *Cloud) Welcome() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	var images, keys []string
	example := ""
	for _, r := range oldestFirst(c.world.Repositories) {
		t := c.world.Tenancies[c.world.Users[c.world.Operator].Tenancy]
		name := parseRegion(r.Region).Key() + ".ocir.io/" + t.Namespace + "/" + r.Name
		var tags []string
		for _, i := range oldestFirst(c.world.Images) {
			for _, v := range i.Versions {
				if i.Repository == r.ID {
					tags = append(tags, v.Version)
				}
			}
		}
		images = append(images, name+" ("+strings.Join(tags, ", ")+")")
		if example == "" && len(tags) > 0 {
			example = name + ":" + tags[len(tags)-1]
		}
	}
	for _, k := range oldestFirst(c.world.Keys) {
		keys = append(keys, k.Name+" ("+k.Shape.Algorithm+")")
	}
	for _, part := range []struct{ title, text string }{
		{"images", strings.Join(images, "\n           ")}, {"keys", strings.Join(keys, ", ")},
		{"files", "ca.pem, config, env, env.d/AUTH_KIND, users/NAME/config in " + c.cfg.Home},
	} {
		if part.text != "" {
			fmt.Fprintf(&b, "  %-7s  %s\n", part.title, part.text)
		}
	}
	fmt.Fprintf(&b, "Type next:\n  . %s\n  kubectl oke-sign keys list\n", quoted(filepath.Join(c.cfg.Home, "env")))
	if example == "" {
		b.WriteString("  oci-emulator auth-token\n")
		return b.String()
	}
	fmt.Fprintf(&b, "  kubectl oke-sign sign %s --resolve --key %s\n", example, oldestFirst(c.world.Keys)[0].Name)
	return b.String()
}

// quoted returns a path as a shell reads it.
func quoted(path string) string {
	if strings.Trim(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") == "" {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
