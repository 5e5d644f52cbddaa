package ocitest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The names of the profiles in the config files that the emulator writes, and the
// pass phrase of [ProfilePassphrase].
const (
	ProfileDefault    = "DEFAULT"
	ProfilePassphrase = "PASSPHRASE"
	ProfileSession    = "SESSION"
	Passphrase        = "emulator"
)

// sessionLife is longer than OCI's hour, so that a demo survives a lunch break.
const sessionLife = 24 * time.Hour

// CAFile returns the path of the certificate authority that clients must trust.
func (c *Cloud) CAFile() string { return filepath.Join(c.cfg.Home, "ca.pem") }

// ConfigFile returns the path of the OCI config file for the operator of a seeded
// cloud.
func (c *Cloud) ConfigFile() string { return filepath.Join(c.cfg.Home, "config") }

// Env returns the environment that leads unmodified clients to the cloud: Go
// programs on Linux, Oracle's SDK for Go, and Oracle's command line.
func (c *Cloud) Env() []string {
	env := []string{
		"HTTPS_PROXY=" + c.url,
		"https_proxy=" + c.url,
		"NO_PROXY=",
		"no_proxy=",
		"SSL_CERT_FILE=" + c.CAFile(),
		"OCI_DEFAULT_CERTS_PATH=" + c.CAFile(),
		"REQUESTS_CA_BUNDLE=" + c.CAFile(),
	}
	if c.hasOperator() {
		env = append(env, "OCI_CONFIG_FILE="+c.ConfigFile(), "OCI_CLI_CONFIG_FILE="+c.ConfigFile())
	}
	return env
}

func (c *Cloud) hasOperator() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.world.Operator != ""
}

// writeHome writes the files by which clients find the cloud and sign in.
func (c *Cloud) writeHome() error {
	if err := os.WriteFile(c.CAFile(), c.ca.pem(), 0o644); err != nil {
		return fmt.Errorf("writing the home: %w", err)
	}
	var lines strings.Builder
	for _, e := range c.Env() {
		name, value, _ := strings.Cut(e, "=")
		fmt.Fprintf(&lines, "export %s='%s'\n", name, strings.ReplaceAll(value, "'", `'\''`))
	}
	if err := os.WriteFile(filepath.Join(c.cfg.Home, "env"), []byte(lines.String()), 0o644); err != nil {
		return fmt.Errorf("writing the home: %w", err)
	}
	operator, ok := c.world.Users[c.world.Operator]
	if !ok {
		return nil
	}
	for _, u := range oldestFirst(c.world.Users) {
		dir := c.cfg.Home
		switch {
		case u.Tenancy != operator.Tenancy:
			continue
		case u != operator:
			dir = filepath.Join(dir, "users", u.Name)
		}
		if err := c.writeProfiles(dir, u); err != nil {
			return err
		}
	}
	return c.writeSurroundings()
}

// writeProfiles gives a user new credentials and writes them to an OCI config file:
// an API key, the same key under a pass phrase, and a session. It writes the
// registry login to docker/config.json.
func (c *Cloud) writeProfiles(dir string, u *user) error {
	api, session, err := c.credentialKeys()
	if err != nil {
		return err
	}
	name, der, err := fingerprint(&api.PublicKey)
	if err != nil {
		return err
	}
	sessionName, _, err := fingerprint(&session.PublicKey)
	if err != nil {
		return err
	}
	c.mu.Lock()
	u.Keys = map[string][]byte{name: der}
	t := c.world.Tenancies[u.Tenancy]
	c.mu.Unlock()
	token, err := c.issueSession(u, &session.PublicKey, sessionLife)
	if err != nil {
		return err
	}
	plain, err := pemKey(api, "")
	if err != nil {
		return err
	}
	protected, err := pemKey(api, Passphrase)
	if err != nil {
		return err
	}
	sessionKey, err := pemKey(session, "")
	if err != nil {
		return err
	}
	login, err := c.dockerConfig(t, u)
	if err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	config := fmt.Sprintf("[%s]\nuser=%s\nfingerprint=%s\ntenancy=%s\nregion=%s\nkey_file=%s\n",
		ProfileDefault, u.ID, name, t.ID, t.HomeRegion, at("api_key.pem")) +
		fmt.Sprintf("\n[%s]\nuser=%s\nfingerprint=%s\ntenancy=%s\nregion=%s\nkey_file=%s\npass_phrase=%s\n",
			ProfilePassphrase, u.ID, name, t.ID, t.HomeRegion, at("api_key_protected.pem"), Passphrase) +
		fmt.Sprintf("\n[%s]\nfingerprint=%s\ntenancy=%s\nregion=%s\nkey_file=%s\nsecurity_token_file=%s\n",
			ProfileSession, sessionName, t.ID, t.HomeRegion, at("session_key.pem"), at("session_token"))
	if err := os.MkdirAll(at("docker"), 0o700); err != nil {
		return fmt.Errorf("writing profiles: %w", err)
	}
	for file, content := range map[string][]byte{
		"config": []byte(config), "api_key.pem": plain, "api_key_protected.pem": protected,
		"session_key.pem": sessionKey, "session_token": []byte(token), "docker/config.json": login,
	} {
		if err := os.WriteFile(at(file), content, 0o600); err != nil {
			return fmt.Errorf("writing profiles: %w", err)
		}
	}
	return nil
}

// credentialKeys returns an API key and a session key. Making keys takes time, so a
// few keys serve all users in turn. Two consecutive users never have the same key: a
// test notices a request that is signed with the neighbour's key.
func (c *Cloud) credentialKeys() (api, session *rsa.PrivateKey, err error) {
	const few = 3
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.keys) < few {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, nil, fmt.Errorf("making a credential: %w", err)
		}
		c.keys = append(c.keys, k)
	}
	c.dealt++
	return c.keys[c.dealt%few], c.keys[(c.dealt+1)%few], nil
}

// dockerConfig returns a login to each registry host of the tenancy's regions.
func (c *Cloud) dockerConfig(t *tenancy, u *user) ([]byte, error) {
	login := base64.StdEncoding.EncodeToString([]byte(t.Namespace + "/" + u.Name + ":" + u.AuthToken))
	auths := map[string]map[string]string{}
	for host, e := range c.hosts {
		for _, id := range t.Regions {
			if e.service == "ocir" && e.region.ID() == id {
				auths[host] = map[string]string{"auth": login}
			}
		}
	}
	b, err := json.MarshalIndent(map[string]any{"auths": auths}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding a docker config: %w", err)
	}
	return b, nil
}

// pemKey encodes a private key as PKCS #8, under a pass phrase if phrase is not
// empty.
func pemKey(k *rsa.PrivateKey, phrase string) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	kind := "PRIVATE KEY"
	if phrase != "" {
		kind = "ENCRYPTED PRIVATE KEY"
		if der, err = encrypt(der, phrase); err != nil {
			return nil, err
		}
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), nil
}

// encrypt encrypts a key with PBES2 of RFC 8018: PBKDF2, HMAC-SHA-256 and
// AES-256-CBC. OCI's own set-up command does the same.
func encrypt(der []byte, phrase string) ([]byte, error) {
	const rounds = 10_000
	salt, iv := make([]byte, 16), make([]byte, aes.BlockSize)
	rand.Read(salt) // never fails
	rand.Read(iv)   // never fails
	secret, err := pbkdf2.Key(sha256.New, phrase, salt, rounds, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving a key: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("encrypting a key: %w", err)
	}
	pad := aes.BlockSize - len(der)%aes.BlockSize
	padded := append(bytes.Clone(der), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(padded, padded)

	type pbkdf2Params struct {
		Salt   []byte
		Rounds int
		PRF    pkix.AlgorithmIdentifier
	}
	raw := func(v any) asn1.RawValue {
		if err != nil {
			return asn1.RawValue{}
		}
		var b []byte
		b, err = asn1.Marshal(v)
		return asn1.RawValue{FullBytes: b}
	}
	kdf := pkix.AlgorithmIdentifier{
		Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12},
		Parameters: raw(pbkdf2Params{salt, rounds, pkix.AlgorithmIdentifier{
			Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, Parameters: asn1.NullRawValue,
		}}),
	}
	enc := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, Parameters: raw(iv)}
	out := raw(struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}{
		pkix.AlgorithmIdentifier{
			Algorithm:  asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13},
			Parameters: raw(struct{ KDF, Enc pkix.AlgorithmIdentifier }{kdf, enc}),
		},
		padded,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding an encrypted key: %w", err)
	}
	return out.FullBytes, nil
}
