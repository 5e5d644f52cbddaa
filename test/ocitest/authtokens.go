package ocitest

import "crypto/subtle"

// maxAuthTokens is the largest number of auth tokens of a user.
const maxAuthTokens = 2

// authToken is a password for OCI Registry that a user made through the API.
type authToken struct {
	born
	Token       string `json:"token,omitempty"`
	Description string `json:"description"`
}

// logsIn reports whether a password is one of the user's auth tokens.
func (u *user) logsIn(password string) bool {
	good := subtle.ConstantTimeCompare([]byte(u.AuthToken), []byte(password)) == 1
	for _, t := range u.Tokens {
		good = good || t.Token != "" && subtle.ConstantTimeCompare([]byte(t.Token), []byte(password)) == 1
	}
	return good
}

func authTokenRoutes() []route {
	const s = "identity"
	return []route{
		to(s, "GET", "/20160918/users/{id}/authTokens", "identity.ListAuthTokens", (*call).listAuthTokens),
		to(s, "POST", "/20160918/users/{id}/authTokens", "identity.CreateAuthToken", (*call).createAuthToken).creating(),
		to(s, "DELETE", "/20160918/users/{id}/authTokens/{token}", "identity.DeleteAuthToken", (*call).deleteAuthToken),
	}
}

// ownUser returns the caller if the request is about the caller. Users manage only
// their own tokens here.
func (c *call) ownUser() (*user, error) {
	u := c.Users[c.path["id"]]
	if u == nil || u.ID != c.who.ID {
		return nil, notFound("another user")
	}
	return u, nil
}

func viewAuthToken(u *user, t *authToken) map[string]any {
	return map[string]any{
		"id": t.ID, "userId": u.ID, "description": t.Description, "timeCreated": stamp(t.Created), "lifecycleState": "ACTIVE",
	}
}

// createAuthToken makes a token and shows it. No later answer shows it.
func (c *call) createAuthToken() (any, error) {
	u, err := c.ownUser()
	if err != nil {
		return nil, err
	}
	var in struct{ Description string }
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Description == "" {
		return nil, missing("description")
	}
	if len(u.Tokens) >= maxAuthTokens {
		return nil, &failure{status: 400, code: "LimitExceeded", message: "The limit of auth tokens per user has been exceeded."}
	}
	t := &authToken{born: c.birth(c.globalOCID("credential", c.region.Realm())), Token: c.unique(20), Description: in.Description}
	u.Tokens = append(u.Tokens, t)
	v := viewAuthToken(u, t)
	v["token"] = t.Token
	return c.tagged(v)
}

func (c *call) listAuthTokens() (any, error) {
	u, err := c.ownUser()
	if err != nil {
		return nil, err
	}
	items := make([]any, len(u.Tokens))
	for i, t := range u.Tokens {
		items[i] = viewAuthToken(u, t)
	}
	return items, nil
}

func (c *call) deleteAuthToken() (any, error) {
	u, err := c.ownUser()
	if err != nil {
		return nil, err
	}
	for i, t := range u.Tokens {
		if t.ID == c.path["token"] {
			u.Tokens = append(u.Tokens[:i:i], u.Tokens[i+1:]...)
			return nil, nil
		}
	}
	return nil, notFound("no auth token " + c.path["token"])
}
