package ociauth

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/oke-sign/oke-sign/provider/oci"
)

// keys returns the values by their names in a configuration file.
func (o Override) keys() map[string]string {
	return map[string]string{
		"user": o.User, "tenancy": o.Tenancy, "fingerprint": o.Fingerprint, "key_file": o.KeyFile, "key_content": o.KeyContent,
		"pass_phrase": o.Passphrase, "security_token_file": o.SecurityTokenFile, "delegation_token_file": o.DelegationTokenFile,
	}
}

// complete reports whether the values suffice for a kind without a configuration file.
func (o Override) complete(kind, region string) bool {
	key := o.KeyFile != "" || o.KeyContent != ""
	switch kind {
	case "", KindAPIKey:
		return o.User != "" && o.Tenancy != "" && o.Fingerprint != "" && key && region != ""
	case KindSecurityToken:
		return o.SecurityTokenFile != "" && o.Tenancy != "" && key && region != ""
	case KindInstanceOBOUser:
		return o.DelegationTokenFile != "" && o.Tenancy != ""
	}
	return false
}

// profile is one section of an OCI configuration file, with the values that override
// it. Without a file, all values come from the environment.
type profile struct {
	file, name string
	values     map[string]string
}

func (p profile) String() string {
	if p.file == "" {
		return "environment (OCI_CLI_*)"
	}
	return fmt.Sprintf("profile %s of %s", p.name, p.file)
}

// profile reads the profile, unless the overrides suffice.
func (c Config) profile() (profile, error) {
	p := profile{values: make(map[string]string)}
	if !c.Override.complete(c.Kind, c.Region) {
		var err error
		if p, err = readProfile(c.ConfigFile, cmp.Or(c.Profile, "DEFAULT")); err != nil {
			return profile{}, err
		}
	}
	// A key in the overrides replaces the profile's key in either form.
	if c.Override.KeyFile != "" || c.Override.KeyContent != "" {
		delete(p.values, "key_file")
	}
	delete(p.values, "key_content") // Oracle's tools reject it in a file
	for key, value := range c.Override.keys() {
		if value != "" {
			p.values[key] = value
		}
	}
	return p, nil
}

// usual returns the auth kind that the profile names, or implies.
func (c Config) usual() (string, error) {
	p, err := c.profile()
	if err != nil {
		return "", err
	}
	switch how := p.values["authentication_type"]; how {
	case "":
		if p.values["user"] == "" && p.values["delegation_token_file"] != "" {
			return KindInstanceOBOUser, nil
		}
		return KindAPIKey, nil
	case "api_key", "user_principal":
		return KindAPIKey, nil
	case "security_token", "session_token":
		return KindSecurityToken, nil
	case "instance_principal":
		if p.values["delegation_token_file"] != "" {
			return KindInstanceOBOUser, nil
		}
		return KindInstancePrincipal, nil
	case "instance_obo_user", "resource_principal", "oke_workload_identity":
		return how, nil
	default:
		return "", fmt.Errorf("%s: authentication_type is %.40q (want one of %s)", p, how, strings.Join(Kinds()[:6], ", "))
	}
}

// fromProfile signs in with the API key or the session token of a profile.
func fromProfile(cfg Config) (oci.Identity, error) {
	p, err := cfg.profile()
	if err != nil {
		return oci.Identity{}, err
	}
	id, err := p.signIn(cfg)
	if err != nil {
		return oci.Identity{}, fmt.Errorf("%s: %w", p, err)
	}
	return id, nil
}

func (p profile) signIn(cfg Config) (oci.Identity, error) {
	tenancy, err := p.need("tenancy")
	if err != nil {
		return oci.Identity{}, err
	}
	region := cfg.Region
	if region == "" {
		if region, err = p.need("region"); err != nil {
			return oci.Identity{}, err
		}
	}
	id, err := locate(oci.Identity{Name: p.String(), AuthKind: p.kind(cfg.Kind)}, tenancy, region)
	if err != nil {
		return oci.Identity{}, err
	}
	identify, err := p.identify(cfg.Kind)
	if err != nil {
		return oci.Identity{}, err
	}
	if _, err := identify(); err != nil { // the file or the token is bad, and waiting does not help
		return oci.Identity{}, err
	}
	id.Sign = signer(func(context.Context) (credential, error) { return identify() })
	return id, nil
}

// readProfile reads a profile of a configuration file, ~/.oci/config by default. The
// SDK's parser is not used: it cuts values at a second "=", and fills the gaps of a
// profile from DEFAULT and from Terraform's environment. Nobody intends an identity
// that is mixed from two.
func readProfile(file, name string) (profile, error) {
	if file == "" {
		file = "~/.oci/config"
	}
	path, err := expand(file)
	if err != nil {
		return profile{}, err
	}
	data, err := oci.ReadFile(path, maxConfigFile)
	if errors.Is(err, fs.ErrNotExist) {
		err = &noConfigError{err}
	}
	if err != nil {
		return profile{}, fmt.Errorf("reading the OCI configuration file: %w", err)
	}
	p, err := parseProfile(data, name)
	if err != nil {
		return profile{}, fmt.Errorf("%s: %w", path, err)
	}
	p.file = path
	return p, nil
}

// parseProfile reads the INI text that Oracle's tools share. Like Oracle's CLI, it
// accepts "key = value" and "key: value" and rejects a name that occurs twice.
func parseProfile(data []byte, name string) (profile, error) {
	p := profile{name: name}
	section, names := "", []string{}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // Windows editors
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			if !strings.HasSuffix(line, "]") {
				return profile{}, fmt.Errorf("line %d starts a profile without a ]", i+1)
			}
			section = line[1 : len(line)-1]
			if section == name {
				if p.values != nil {
					return profile{}, fmt.Errorf("line %d: profile %.80q occurs twice", i+1, name)
				}
				p.values = make(map[string]string)
			}
			names = append(names, section)
			continue
		}
		if section != name || p.values == nil {
			continue
		}
		at := strings.IndexAny(line, "=:")
		if at < 1 {
			return profile{}, fmt.Errorf("line %d is not \"key = value\"", i+1) // without the line, which may be a secret
		}
		key := strings.ToLower(strings.TrimSpace(line[:at]))
		if _, again := p.values[key]; again {
			return profile{}, fmt.Errorf("line %d: profile %s has %.40q twice", i+1, name, key)
		}
		p.values[key] = strings.TrimSpace(line[at+1:])
	}
	if p.values == nil {
		return profile{}, fmt.Errorf("no profile %.80q; it has: %.200s", name, strings.Join(names, ", "))
	}
	return p, nil
}

func (p profile) need(key string) (string, error) {
	if v := p.values[key]; v != "" {
		return v, nil
	}
	return "", fmt.Errorf("%s is missing", key)
}

// identify returns the function that returns the credential for each request.
func (p profile) identify(kind string) (func() (credential, error), error) {
	if p.values["key_file"] == "" && p.values["key_content"] == "" {
		return nil, errors.New("key_file is missing")
	}
	if p.kind(kind) == KindSecurityToken {
		return p.sessionToken()
	}
	return p.apiKey()
}

// kind returns the auth kind that the profile is used with. A profile without a user may
// have a session token.
func (p profile) kind(asked string) string {
	if asked == KindSecurityToken || p.values["user"] == "" && p.values["security_token_file"] != "" {
		return KindSecurityToken
	}
	return KindAPIKey
}

// privateKey reads the key and returns a name for its source.
func (p profile) privateKey() (pem []byte, name string, err error) {
	if content := p.values["key_content"]; content != "" {
		return []byte(content), "OCI_CLI_KEY_CONTENT", nil
	}
	file, err := expand(p.values["key_file"])
	if err != nil {
		return nil, "", err
	}
	if pem, err = oci.ReadFile(file, maxKeyFile); err != nil {
		return nil, "", fmt.Errorf("reading key_file: %w", err)
	}
	return pem, "key_file " + file, nil
}

func (p profile) passphrase() string {
	return cmp.Or(p.values["pass_phrase"], p.values["passphrase"])
}

func (p profile) apiKey() (func() (credential, error), error) {
	user, err := p.need("user")
	if err != nil {
		return nil, err
	}
	if !oci.IsOCID(user, "user") {
		return nil, fmt.Errorf("user is not the OCID of a user: %.80q", user)
	}
	fingerprint, err := p.need("fingerprint")
	if err != nil {
		return nil, err
	}
	pem, name, err := p.privateKey()
	if err != nil {
		return nil, err
	}
	key, err := parseKey(pem, p.passphrase(), name)
	if err != nil {
		return nil, err
	}
	// OCI would answer 401 without the reason.
	if is := fingerprintOf(&key.PublicKey); !strings.EqualFold(fingerprint, is) {
		return nil, fmt.Errorf("fingerprint is %.60q, but that of %s is %s", fingerprint, name, is)
	}
	id := credential{keyID: p.values["tenancy"] + "/" + user + "/" + strings.ToLower(fingerprint), key: key}
	return func() (credential, error) { return id, nil }, nil
}

// sessionToken reads the token from disk for each request. A token lives an hour. The
// command `oci session refresh` renews a token that has not expired, and
// `oci session authenticate` makes one with a new key.
func (p profile) sessionToken() (func() (credential, error), error) {
	tokenFile, err := p.need("security_token_file")
	if err != nil {
		return nil, err
	}
	if tokenFile, err = expand(tokenFile); err != nil {
		return nil, err
	}
	var held pair
	return func() (credential, error) {
		token, err := readToken(tokenFile)
		if err != nil {
			return credential{}, fmt.Errorf("security_token_file %s: %w", tokenFile, err)
		}
		pem, name, err := p.privateKey()
		if err != nil {
			return credential{}, err
		}
		return held.credential(token, pem, p.passphrase(), name)
	}, nil
}
