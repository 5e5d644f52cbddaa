package principal

import (
	"bytes"
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

// profile is one section of an OCI configuration file.
type profile struct {
	file, name string
	values     map[string]string
}

func (p profile) String() string { return fmt.Sprintf("profile %s of %s", p.name, p.file) }

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
func (p profile) identify(cfg Config) (func() (credential, error), error) {
	token := cfg.Kind == KindSecurityToken
	switch how := p.values["authentication_type"]; how {
	case "", "api_key", "user_principal":
	case "security_token", "session_token":
		token = true
	default:
		return nil, fmt.Errorf("authentication_type %.40q is not one that a configuration file can serve here", how)
	}
	if p.values["delegation_token_file"] != "" {
		return nil, errors.New("delegation_token_file: acting for another user is not supported")
	}
	if p.values["user"] == "" && p.values["security_token_file"] != "" {
		token = true
	}
	keyFile, err := p.need("key_file")
	if err != nil {
		return nil, err
	}
	if keyFile, err = expand(keyFile); err != nil {
		return nil, err
	}
	passphrase := cfg.Passphrase
	for _, key := range []string{"pass_phrase", "passphrase"} {
		if passphrase == "" {
			passphrase = p.values[key]
		}
	}
	if token {
		return p.sessionToken(keyFile, passphrase)
	}
	return p.apiKey(keyFile, passphrase)
}

func (p profile) apiKey(keyFile, passphrase string) (func() (credential, error), error) {
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
	key, err := readKey(keyFile, passphrase)
	if err != nil {
		return nil, err
	}
	// OCI would answer 401 and not say which of five things is wrong.
	if is := fingerprintOf(&key.PublicKey); !strings.EqualFold(fingerprint, is) {
		return nil, fmt.Errorf("fingerprint is %.60q, but that of key_file %s is %s", fingerprint, keyFile, is)
	}
	id := credential{keyID: p.values["tenancy"] + "/" + user + "/" + strings.ToLower(fingerprint), key: key}
	return func() (credential, error) { return id, nil }, nil
}

// sessionToken serves the token as it is on disk at each request: it lives an
// hour, and `oci session refresh` writes a new one, `oci session authenticate`
// one for a new key.
func (p profile) sessionToken(keyFile, passphrase string) (func() (credential, error), error) {
	tokenFile, err := p.need("security_token_file")
	if err != nil {
		return nil, err
	}
	if tokenFile, err = expand(tokenFile); err != nil {
		return nil, err
	}
	var held pair
	return func() (credential, error) {
		data, err := readFile(tokenFile, maxTokenFile)
		if err != nil {
			return credential{}, fmt.Errorf("reading the session token: %w", err)
		}
		token := strings.TrimSpace(string(data))
		if err := checkToken(token, time.Now()); err != nil {
			return credential{}, fmt.Errorf("security_token_file %s: %w%s", tokenFile, err, renewal(err))
		}
		key, err := readFile(keyFile, maxKeyFile)
		if err != nil {
			return credential{}, fmt.Errorf("reading key_file: %w", err)
		}
		return held.credential(token, key, passphrase, "key_file "+keyFile)
	}, nil
}

// renewal says how a session goes on.
func renewal(err error) string {
	if errors.Is(err, errExpired) {
		return "; `oci session refresh` or `oci session authenticate` makes a new one"
	}
	return ""
}

var errExpired = errors.New("the session token expired")

// checkToken refuses what cannot stand in a header, and a token whose time is
// over by its own claim, which OCI would answer with a bare 401.
func checkToken(token string, now time.Time) error {
	if token == "" || !consists(token, letters+"._-+/=~") {
		return errors.New("it holds no session token")
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
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

func readKey(file, passphrase string) (*rsa.PrivateKey, error) {
	data, err := readFile(file, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading key_file: %w", err)
	}
	return parseKey(data, passphrase, "key_file "+file)
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
