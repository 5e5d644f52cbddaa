package ociauth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5" //nolint:gosec // the fingerprint of an API key is defined so
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
)

// Limits for files, so that a wrong path such as /dev/zero is an error.
const (
	maxConfigFile = 1 << 20
	maxKeyFile    = 64 << 10
	maxTokenFile  = 64 << 10
)

// Override holds values that replace those of the profile. Oracle's CLI takes them
// from the environment. With all that a kind needs, no file is read.
type Override struct {
	User, Tenancy, Fingerprint string
	KeyFile                    string
	KeyContent                 string // the private key itself, in PEM
	Passphrase                 string
	SecurityTokenFile          string
	DelegationTokenFile        string
}

// keys names the values as a configuration file does.
func (o Override) keys() map[string]string {
	return map[string]string{
		"user": o.User, "tenancy": o.Tenancy, "fingerprint": o.Fingerprint, "key_file": o.KeyFile, "key_content": o.KeyContent,
		"pass_phrase": o.Passphrase, "security_token_file": o.SecurityTokenFile, "delegation_token_file": o.DelegationTokenFile,
	}
}

// complete reports whether a kind needs no configuration file.
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

// profile is one section of an OCI configuration file, and what replaces parts of
// it. Without a file, it is what the environment says.
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

// profile reads the profile, unless all of it is given otherwise.
func (c Config) profile() (profile, error) {
	p := profile{values: make(map[string]string)}
	if !c.Override.complete(c.Kind, c.Region) {
		var err error
		if p, err = readProfile(c.ConfigFile, cmp.Or(c.Profile, "DEFAULT")); err != nil {
			return profile{}, err
		}
	}
	// A key that is given in any way replaces the profile's, however that has it.
	if c.Override.KeyFile != "" || c.Override.KeyContent != "" {
		delete(p.values, "key_file")
	}
	delete(p.values, "key_content") // Oracle's tools refuse it in a file
	for key, value := range c.Override.keys() {
		if value != "" {
			p.values[key] = value
		}
	}
	return p, nil
}

// usual is the kind that nobody has chosen: what the profile says.
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

func (p *Principal) fromProfile() error {
	prof, err := p.cfg.profile()
	if err != nil {
		return err
	}
	p.name = prof.String()
	tenancy, err := prof.need("tenancy")
	if err != nil {
		return fmt.Errorf("%s: %w", prof, err)
	}
	region := p.cfg.Region
	if region == "" {
		if region, err = prof.need("region"); err != nil {
			return fmt.Errorf("%s: %w", prof, err)
		}
	}
	if err := p.locate(tenancy, region); err != nil {
		return fmt.Errorf("%s: %w", prof, err)
	}
	identify, err := prof.identify(p.cfg.Kind)
	if err == nil {
		_, err = identify() // a token that is no good now will not get better
	}
	if err != nil {
		return fmt.Errorf("%s: %w", prof, err)
	}
	p.identify = func(context.Context) (credential, error) { return identify() }
	return nil
}

// readProfile finds a profile in a configuration file, ~/.oci/config if none is
// named. The SDK has a parser of its own, which cuts values at a second "=", and
// takes what a profile lacks from DEFAULT and from Terraform's environment: an
// identity patched together from two is nobody's intention.
func readProfile(file, name string) (profile, error) {
	if file == "" {
		file = "~/.oci/config"
	}
	path, err := expand(file)
	if err != nil {
		return profile{}, err
	}
	data, err := readFile(path, maxConfigFile)
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

// parseProfile reads the INI text that Oracle's tools share. Like Oracle's CLI
// it takes "key = value" and "key: value" and refuses a name given twice.
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
				return profile{}, fmt.Errorf("line %d begins a profile and has no ]", i+1)
			}
			section = line[1 : len(line)-1]
			if section == name {
				if p.values != nil {
					return profile{}, fmt.Errorf("line %d: profile %.80q is there twice", i+1, name)
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
			return profile{}, fmt.Errorf("line %d is no \"key = value\"", i+1) // without the line: it may be a secret
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

// identify returns the function that yields the identity for each request.
func (p profile) identify(kind string) (func() (credential, error), error) {
	if p.values["key_file"] == "" && p.values["key_content"] == "" {
		return nil, errors.New("key_file is missing")
	}
	if kind == KindSecurityToken || p.values["user"] == "" && p.values["security_token_file"] != "" {
		return p.sessionToken()
	}
	return p.apiKey()
}

// privateKey reads the key and says where it is from.
func (p profile) privateKey() (pem []byte, name string, err error) {
	if content := p.values["key_content"]; content != "" {
		return []byte(content), "OCI_CLI_KEY_CONTENT", nil
	}
	file, err := expand(p.values["key_file"])
	if err != nil {
		return nil, "", err
	}
	if pem, err = readFile(file, maxKeyFile); err != nil {
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
	if !isOCID(user, "user") {
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
	// OCI would answer 401 and not say which of five things is wrong.
	if is := fingerprintOf(&key.PublicKey); !strings.EqualFold(fingerprint, is) {
		return nil, fmt.Errorf("fingerprint is %.60q, but that of %s is %s", fingerprint, name, is)
	}
	id := credential{keyID: p.values["tenancy"] + "/" + user + "/" + strings.ToLower(fingerprint), key: key}
	return func() (credential, error) { return id, nil }, nil
}

// sessionToken serves the token as it is on disk at each request: it lives an
// hour, and `oci session refresh` writes a new one, `oci session authenticate`
// one for a new key.
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
			return credential{}, fmt.Errorf("security_token_file %s: %w%s", tokenFile, err, renewal(err))
		}
		pem, name, err := p.privateKey()
		if err != nil {
			return credential{}, err
		}
		return held.credential(token, pem, p.passphrase(), name)
	}, nil
}

// readToken reads a file with nothing but a token in it that may still hold.
func readToken(file string) (string, error) {
	data, err := readFile(file, maxTokenFile)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	return token, checkToken(token, time.Now())
}

// renewal says how a session goes on.
func renewal(err error) string {
	if errors.Is(err, errExpired) {
		return "; `oci session refresh` or `oci session authenticate` makes a new one"
	}
	return ""
}

var errExpired = errors.New("the token expired")

// checkToken refuses what cannot stand in a header, and a token whose time is
// over by its own claim, which OCI would answer with a bare 401.
func checkToken(token string, now time.Time) error {
	if token == "" || !consists(token, letters+"._-+/=~") {
		return errors.New("it holds no token")
	}
	if strings.Count(token, ".") != 2 {
		return nil // not a JWT: nothing to read
	}
	claims, err := readClaims(token)
	if err != nil || claims.Expires <= 0 || claims.Expires > 1e11 {
		return nil // OCI will say what it thinks of it
	}
	if end := time.Unix(int64(claims.Expires), 0); !now.Before(end) {
		return fmt.Errorf("%w at %s", errExpired, end.UTC().Format(time.RFC3339))
	}
	return nil
}

// parseKey reads a private key in PEM; name is where it came from.
func parseKey(data []byte, passphrase, name string) (*rsa.PrivateKey, error) {
	var secret *string
	if passphrase != "" {
		secret = &passphrase
	}
	key, err := common.PrivateKeyFromBytes(data, secret)
	switch {
	case err != nil && (bytes.Contains(data, []byte("ENCRYPTED")) && passphrase == ""):
		return nil, fmt.Errorf("%s is encrypted and there is no pass_phrase", name)
	case err != nil && bytes.Contains(data, []byte("ENCRYPTED")):
		return nil, fmt.Errorf("%s cannot be opened with the pass phrase", name)
	case err != nil || key == nil:
		return nil, fmt.Errorf("%s holds no RSA private key in PEM", name)
	case key.N.BitLen() < 2048:
		return nil, fmt.Errorf("%s holds an RSA key of %d bits; OCI takes 2048 and more", name, key.N.BitLen())
	}
	return key, nil
}

// fingerprintOf is a public key's fingerprint as OCI writes it.
func fingerprintOf(pub *rsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return ""
	}
	sum := md5.Sum(der) //nolint:gosec // no security rests on it: OCI names keys so
	return strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":")
}

func expand(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, "~")
	if !ok || (rest != "" && rest[0] != '/' && rest[0] != filepath.Separator) {
		return path, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", path, err)
	}
	return filepath.Join(home, rest), nil
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}
