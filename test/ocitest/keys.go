package ocitest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

type key struct {
	born
	Vault       string        `json:"vault"`
	Compartment string        `json:"compartment"`
	Name        string        `json:"name"`
	Shape       keyShape      `json:"shape"`
	Protection  string        `json:"protectionMode"`
	Versions    []*keyVersion `json:"versions"` // oldest first
	Tags        tags          `json:"tags"`
	lifecycle
}

type keyShape struct {
	Algorithm string `json:"algorithm"`
	Length    int    `json:"length"` // in bytes
	Curve     string `json:"curveId,omitempty"`
}

type keyVersion struct {
	born
	Origin string `json:"origin"`
	// Private is the key in PKCS #8, or the bytes of an AES key.
	Private []byte `json:"private"`
	lifecycle

	signer crypto.Signer // Private, parsed at the first use
}

func keyRoutes() []route {
	const s = "management"
	return []route{
		to(s, "GET", "/20180608/keys", "keymanagement.ListKeys", (*call).listKeys),
		to(s, "POST", "/20180608/keys", "keymanagement.CreateKey", (*call).createKey).creating(),
		to(s, "GET", "/20180608/keys/{id}", "keymanagement.GetKey", (*call).getKey),
		to(s, "GET", "/20180608/keys/{id}/keyVersions", "keymanagement.ListKeyVersions", (*call).listKeyVersions),
		to(s, "POST", "/20180608/keys/{id}/keyVersions", "keymanagement.CreateKeyVersion", (*call).createKeyVersion).creating(),
		to(s, "GET", "/20180608/keys/{id}/keyVersions/{version}", "keymanagement.GetKeyVersion", (*call).getKeyVersion),
		to(s, "POST", "/20180608/keys/{id}/actions/enable", "keymanagement.EnableKey", (*call).enableKey).creating(),
		to(s, "POST", "/20180608/keys/{id}/actions/disable", "keymanagement.DisableKey", (*call).disableKey).creating(),
		to(s, "POST", "/20180608/keys/{id}/actions/scheduleDeletion", "keymanagement.ScheduleKeyDeletion", (*call).deleteKey).creating(),
		to(s, "POST", "/20180608/keys/{id}/actions/cancelDeletion", "keymanagement.CancelKeyDeletion", (*call).keepKey).creating(),
		to(s, "POST", "/20180608/keys/{id}/keyVersions/{version}/actions/scheduleDeletion", "keymanagement.ScheduleKeyVersionDeletion", (*call).deleteKeyVersion).creating(),
		to(s, "POST", "/20180608/keys/{id}/keyVersions/{version}/actions/cancelDeletion", "keymanagement.CancelKeyVersionDeletion", (*call).keepKeyVersion).creating(),
	}
}

// curveOf returns the curve of an ECDSA key of a length in bytes.
func curveOf(length int) (elliptic.Curve, string) {
	switch length {
	case 32:
		return elliptic.P256(), "NIST_P256"
	case 48:
		return elliptic.P384(), "NIST_P384"
	case 66:
		return elliptic.P521(), "NIST_P521"
	}
	return nil, ""
}

func (s keyShape) validate() error {
	ok := false
	switch s.Algorithm {
	case "AES":
		ok = s.Length == 16 || s.Length == 24 || s.Length == 32
	case "RSA":
		ok = s.Length == 256 || s.Length == 384 || s.Length == 512
	case "ECDSA":
		_, curve := curveOf(s.Length)
		ok = curve != "" && (s.Curve == "" || s.Curve == curve)
	}
	if !ok {
		return invalid("keyShape: there is no %.20s key of %d bytes and curve %.20q", s.Algorithm, s.Length, s.Curve)
	}
	return nil
}

// generate makes key material.
func (s keyShape) generate() ([]byte, error) {
	var k any
	var err error
	switch s.Algorithm {
	case "RSA":
		k, err = rsa.GenerateKey(rand.Reader, s.Length*8)
	case "ECDSA":
		curve, _ := curveOf(s.Length)
		k, err = ecdsa.GenerateKey(curve, rand.Reader)
	default:
		b := make([]byte, s.Length)
		_, err = rand.Read(b)
		return b, err
	}
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return x509.MarshalPKCS8PrivateKey(k)
}

func (w *world) newKey(v *vault, compartmentID, name string, shape keyShape, material []byte, sw Switches) (*key, error) {
	if err := shape.validate(); err != nil {
		return nil, err
	}
	if shape.Algorithm == "ECDSA" {
		_, shape.Curve = curveOf(shape.Length)
	}
	r := parseRegion(v.Region)
	k := &key{
		born:  w.birth(strings.Join([]string{"ocid1.key", r.Realm(), regionPart(r, sw), v.Extension, "ab" + w.unique(60)[2:]}, ".")),
		Vault: v.ID, Compartment: compartmentID, Name: name, Shape: shape, Protection: "HSM",
		lifecycle: lifecycle{State: "ENABLED"},
	}
	if _, err := w.newKeyVersion(k, material, sw); err != nil {
		return nil, err
	}
	w.Keys[k.ID] = k
	return k, nil
}

// newKeyVersion makes a key version. If material is nil, it makes new key material.
func (w *world) newKeyVersion(k *key, material []byte, sw Switches) (*keyVersion, error) {
	origin := "EXTERNAL"
	if material == nil {
		origin = "INTERNAL"
		var err error
		if material, err = k.Shape.generate(); err != nil {
			return nil, err
		}
	}
	v := w.Vaults[k.Vault]
	r := parseRegion(v.Region)
	middle := v.Extension + "." + w.unique(12) + "a"
	if sw.KeyVersionOCID == "zero" {
		middle = "0." + v.Extension
	}
	kv := &keyVersion{
		born:   w.birth(strings.Join([]string{"ocid1.keyversion", r.Realm(), regionPart(r, sw), middle, "ab" + w.unique(60)[2:]}, ".")),
		Origin: origin, Private: material, lifecycle: lifecycle{State: "ENABLED"},
	}
	if k.Shape.Algorithm != "AES" {
		var err error
		if kv.signer, err = parseSigner(material); err != nil {
			return nil, err
		}
	}
	k.Versions = append(k.Versions, kv)
	return kv, nil
}

func (k *key) current() *keyVersion { return k.Versions[len(k.Versions)-1] }

func (k *key) version(id string) *keyVersion {
	for _, v := range k.Versions {
		if v.ID == id {
			return v
		}
	}
	return nil
}

// public returns a version's public key in PEM, or "" for an AES key.
func (k *key) public(v *keyVersion, label string) (string, error) {
	if k.Shape.Algorithm == "AES" {
		return "", nil
	}
	signer, err := v.parsed()
	if err != nil {
		return "", err
	}
	pub, isRSA := signer.Public().(*rsa.PublicKey)
	if isRSA && label == "RSA PUBLIC KEY" {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: x509.MarshalPKCS1PublicKey(pub)})), nil
	}
	der, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return "", fmt.Errorf("encoding a public key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

func (v *keyVersion) parsed() (crypto.Signer, error) {
	if v.signer == nil {
		var err error
		if v.signer, err = parseSigner(v.Private); err != nil {
			return nil, err
		}
	}
	return v.signer, nil
}

type keySummary struct {
	CompartmentID string `json:"compartmentId"`
	DisplayName   string `json:"displayName"`
	ID            string `json:"id"`
	State         string `json:"lifecycleState"`
	TimeCreated   string `json:"timeCreated"`
	VaultID       string `json:"vaultId"`
	Protection    string `json:"protectionMode"`
	Algorithm     string `json:"algorithm,omitempty"` // in a list only
	AutoRotation  bool   `json:"isAutoRotationEnabled"`
	tags
}

type keyView struct {
	keySummary
	Current  string   `json:"currentKeyVersion"`
	Shape    keyShape `json:"keyShape"`
	Deletion string   `json:"timeOfDeletion,omitempty"`
	Primary  bool     `json:"isPrimary"`
}

func (c *call) summariseKey(k *key) keySummary {
	return keySummary{
		CompartmentID: k.Compartment, DisplayName: k.Name, ID: k.ID, State: k.at(c.now()), TimeCreated: stamp(k.Created),
		VaultID: k.Vault, Protection: k.Protection, Algorithm: k.Shape.Algorithm, tags: k.Tags.full(),
	}
}

func (c *call) viewKey(k *key) keyView {
	v := keyView{keySummary: c.summariseKey(k), Current: k.current().ID, Shape: k.Shape, Primary: true}
	v.Algorithm = ""
	if !k.Deletion.IsZero() {
		v.Deletion = stamp(k.Deletion)
	}
	return v
}

type keyVersionView struct {
	CompartmentID string `json:"compartmentId"`
	ID            string `json:"id"`
	KeyID         string `json:"keyId"`
	Origin        string `json:"origin"`
	PublicKey     string `json:"publicKey,omitempty"` // never in a list
	State         string `json:"lifecycleState"`
	TimeCreated   string `json:"timeCreated"`
	VaultID       string `json:"vaultId"`
	Deletion      string `json:"timeOfDeletion,omitempty"`
	AutoRotated   bool   `json:"isAutoRotated"`
}

func (c *call) viewKeyVersion(k *key, v *keyVersion) keyVersionView {
	out := keyVersionView{
		CompartmentID: k.Compartment, ID: v.ID, KeyID: k.ID, Origin: v.Origin, State: v.at(c.now()),
		TimeCreated: stamp(v.Created), VaultID: k.Vault,
	}
	if !v.Deletion.IsZero() {
		out.Deletion = stamp(v.Deletion)
	}
	return out
}

func (c *call) listKeys() (any, error) {
	in, err := c.scope("KEY_INSPECT")
	if err != nil {
		return nil, err
	}
	q := c.query
	var found []*key
	for _, k := range c.Keys {
		if k.Vault == c.vault.ID && in(k.Compartment) && exactly(q.Get("protectionMode"), k.Protection) &&
			exactly(q.Get("algorithm"), k.Shape.Algorithm) && exactly(q.Get("curveId"), k.Shape.Curve) &&
			exactly(q.Get("length"), strconv.Itoa(k.Shape.Length)) {
			found = append(found, k)
		}
	}
	if err := sorted(c, found, func(k *key) string { return k.Name }); err != nil {
		return nil, err
	}
	found, _, err = page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]keySummary, len(found))
	for i, k := range found {
		items[i] = c.summariseKey(k)
	}
	return items, nil
}

// findKey returns the key of a request, in the vault of the requested endpoint.
func (c *call) findKey(id, permission string) (*key, error) {
	k, ok := c.Keys[id]
	if !ok || k.Vault != c.vault.ID {
		return nil, notFound("no key " + id + " in this vault")
	}
	return k, c.need(permission, k.Compartment, "target.key.id", k.ID, "target.vault.id", k.Vault)
}

func (c *call) getKey() (any, error) {
	k, err := c.findKey(c.path["id"], "KEY_READ")
	if err != nil {
		return nil, err
	}
	return c.tagged(c.viewKey(k))
}

func (c *call) listKeyVersions() (any, error) {
	k, err := c.findKey(c.path["id"], "KEY_INSPECT")
	if err != nil {
		return nil, err
	}
	found := slices.Clone(k.Versions)
	if err := sorted(c, found, func(v *keyVersion) string { return v.ID }); err != nil {
		return nil, err
	}
	found, _, err = page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]keyVersionView, len(found))
	for i, v := range found {
		items[i] = c.viewKeyVersion(k, v)
	}
	return items, nil
}

func (c *call) findKeyVersion(permission string) (*key, *keyVersion, error) {
	k, err := c.findKey(c.path["id"], permission)
	if err != nil {
		return nil, nil, err
	}
	v := k.version(c.path["version"])
	if v == nil {
		return nil, nil, notFound("no version " + c.path["version"] + " of this key")
	}
	return k, v, nil
}

// unusable returns why a key version cannot be used now, or "".
func (c *call) unusable(k *key, v *keyVersion) string {
	if s := k.at(c.now()); s != "ENABLED" {
		return s
	}
	if s := v.at(c.now()); s != "ENABLED" {
		return s
	}
	return ""
}

func (c *call) getKeyVersion() (any, error) {
	k, v, err := c.findKeyVersion("KEY_READ")
	if err != nil {
		return nil, err
	}
	if state := c.unusable(k, v); state != "" {
		switch c.sw.DisabledVersion {
		case "404":
			return nil, notFound("the key version is " + state)
		case "409":
			return nil, conflict("IncorrectState", "The key version is %s.", state)
		}
	}
	return c.versionWithKey(k, v)
}

func (c *call) versionWithKey(k *key, v *keyVersion) (any, error) {
	out := c.viewKeyVersion(k, v)
	var err error
	if out.PublicKey, err = k.public(v, c.sw.PEMLabel); err != nil {
		return nil, err
	}
	return c.tagged(out)
}

func (c *call) createKey() (any, error) {
	var in struct {
		CompartmentID, DisplayName, ProtectionMode string
		KeyShape                                   struct {
			Algorithm, CurveID string
			Length             int
		}
		FreeformTags map[string]string
		DefinedTags  map[string]map[string]any
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := required("compartmentId", in.CompartmentID, "displayName", in.DisplayName, "keyShape", in.KeyShape.Algorithm); err != nil {
		return nil, err
	}
	if err := oneOf("protectionMode", in.ProtectionMode, "HSM", "SOFTWARE"); err != nil {
		return nil, err
	}
	if err := c.need("KEY_CREATE", in.CompartmentID, "target.vault.id", c.vault.ID); err != nil {
		return nil, err
	}
	if err := c.need("VAULT_CREATE_KEY", c.vault.Compartment, "target.vault.id", c.vault.ID); err != nil {
		return nil, err
	}
	if state := c.vault.at(c.now()); state != "ACTIVE" {
		return nil, conflict("IncorrectState", "The vault is %s.", state)
	}
	shape := keyShape{in.KeyShape.Algorithm, in.KeyShape.Length, in.KeyShape.CurveID}
	k, err := c.newKey(c.vault, in.CompartmentID, in.DisplayName, shape, nil, c.sw)
	if err != nil {
		return nil, err
	}
	if in.ProtectionMode != "" {
		k.Protection = in.ProtectionMode
	}
	k.Tags = c.created(tags{Freeform: in.FreeformTags, Defined: in.DefinedTags})
	k.pass(c.now(), c.cloud.cfg.Settle, "CREATING", "ENABLED")
	k.current().pass(c.now(), c.cloud.cfg.Settle, "CREATING", "ENABLED")
	return c.tagged(c.viewKey(k))
}

func (c *call) createKeyVersion() (any, error) {
	k, err := c.findKey(c.path["id"], "KEY_ROTATE")
	if err != nil {
		return nil, err
	}
	if state := k.at(c.now()); state != "ENABLED" {
		return nil, conflict("IncorrectState", "The key is %s.", state)
	}
	v, err := c.newKeyVersion(k, nil, c.sw)
	if err != nil {
		return nil, err
	}
	v.pass(c.now(), c.cloud.cfg.Settle, "CREATING", "ENABLED")
	return c.versionWithKey(k, v)
}

// changeKey applies an action to a whole key.
func (c *call) changeKey(permission string, change func(*key) error) (any, error) {
	k, err := c.findKey(c.path["id"], permission)
	if err != nil {
		return nil, err
	}
	if err := c.ifMatch(c.viewKey(k)); err != nil {
		return nil, err
	}
	if err := change(k); err != nil {
		return nil, err
	}
	return c.tagged(c.viewKey(k))
}

func (c *call) switchKey(from, passing, to string) (any, error) {
	return c.changeKey("KEY_UPDATE", func(k *key) error {
		if state := k.at(c.now()); state != from {
			return conflict("IncorrectState", "The key is %s.", state)
		}
		k.pass(c.now(), c.cloud.cfg.Settle, passing, to)
		return nil
	})
}

func (c *call) enableKey() (any, error)  { return c.switchKey("DISABLED", "ENABLING", "ENABLED") }
func (c *call) disableKey() (any, error) { return c.switchKey("ENABLED", "DISABLING", "DISABLED") }

func (c *call) deleteKey() (any, error) {
	return c.changeKey("KEY_DELETE", func(k *key) error {
		return c.scheduleDeletion(&k.lifecycle, "ENABLED", "DISABLED")
	})
}

func (c *call) keepKey() (any, error) {
	return c.changeKey("KEY_DELETE", func(k *key) error { return c.cancelDeletion(&k.lifecycle, "DISABLED") })
}

func (c *call) deleteKeyVersion() (any, error) {
	k, v, err := c.findKeyVersion("KEY_DELETE")
	if err != nil {
		return nil, err
	}
	if v == k.current() {
		return nil, conflict("IncorrectState", "The current version of a key cannot be deleted.")
	}
	if err := c.scheduleDeletion(&v.lifecycle, "ENABLED"); err != nil {
		return nil, err
	}
	return c.tagged(c.viewKeyVersion(k, v))
}

func (c *call) keepKeyVersion() (any, error) {
	k, v, err := c.findKeyVersion("KEY_DELETE")
	if err != nil {
		return nil, err
	}
	if err := c.cancelDeletion(&v.lifecycle, "ENABLED"); err != nil {
		return nil, err
	}
	return c.tagged(c.viewKeyVersion(k, v))
}
