package ocitest

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/image"
)

// Start starts a cloud for one test, and closes it at the end of the test.
//
// Go reads HTTPS_PROXY and SSL_CERT_FILE once per process, so a test with clients in
// its own process needs [Main]. Start is for tests that start programs with
// [Cloud.Env], and for clients with their own transport.
func Start(tb testing.TB, cfg Config) *Cloud {
	tb.Helper()
	c, err := New(cfg)
	if err != nil {
		tb.Fatalf("starting the emulator: %v", err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Errorf("closing the emulator: %v", err)
		}
	})
	return c
}

// Main runs the tests of a package against one cloud, and stores the cloud in
// *cloud. It sets the environment before any client reads it. Each test makes a
// tenancy, to be separate from the others:
//
//	var cloud *ocitest.Cloud
//
//	func TestMain(m *testing.M) { ocitest.Main(m, &cloud) }
//
// Main returns the exit code, which package testing knows too. Main panics if the
// cloud cannot start: a TestMain that returns before the tests run would pass.
func Main(m *testing.M, cloud **Cloud) int {
	c, err := New(Config{})
	if err != nil {
		panic("starting the emulator: " + err.Error())
	}
	for _, e := range c.Env() {
		name, value, _ := strings.Cut(e, "=")
		if err := os.Setenv(name, value); err != nil {
			panic("pointing at the emulator: " + err.Error())
		}
	}
	*cloud = c
	code := m.Run()
	if err := c.Close(); err != nil {
		panic("closing the emulator: " + err.Error())
	}
	return code
}

// TenancyConfig has the settings of a test's tenancy.
type TenancyConfig struct {
	Region    string    // home region; us-ashburn-1 if empty
	Regions   []string  // other subscribed regions
	Namespace string    // random if empty
	Switches  *Switches // the cloud's if nil
}

// Tenancy is a customer of the cloud, for one test. Its methods make resources in
// the root compartment unless an argument names another. Every error fails the test.
type Tenancy struct {
	ID        string
	Namespace string
	Region    image.Region

	tb    testing.TB
	cloud *Cloud
	t     *tenancy
}

// NewTenancy makes a tenancy that shares nothing with others.
func (c *Cloud) NewTenancy(tb testing.TB, cfg TenancyConfig) *Tenancy {
	tb.Helper()
	// Main reads the preset before go test starts to note what a test depends on.
	// Without this call, go test would reuse a cached result of the other preset.
	os.Getenv(PresetEnv)
	if cfg.Region == "" {
		cfg.Region = "us-ashburn-1"
	}
	home, err := image.ParseRegion(cfg.Region)
	if err != nil {
		tb.Fatalf("making a tenancy: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.world.newTenancy("tenancy of "+tb.Name(), cfg.Namespace, home, cfg.Switches)
	if err != nil {
		tb.Fatalf("making a tenancy: %v", err)
	}
	t.Regions = append(t.Regions, cfg.Regions...)
	return &Tenancy{ID: t.ID, Namespace: t.Namespace, Region: home, tb: tb, cloud: c, t: t}
}

// Switches returns the switches of the tenancy.
func (t *Tenancy) Switches() Switches {
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	return t.cloud.switches(t.cloud.world, t.ID)
}

// Allow adds policy statements in OCI's language, such as "Allow user ci to
// read repos in tenancy".
func (t *Tenancy) Allow(statements ...string) {
	t.tb.Helper()
	for _, s := range statements {
		if err := ValidateStatement(s); err != nil {
			t.tb.Fatal(err)
		}
	}
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	t.t.Policies = append(t.t.Policies, statements...)
}

// AllowOnly replaces all policy statements with these, until the returned function
// is called.
func (t *Tenancy) AllowOnly(statements ...string) (withdraw func()) {
	t.tb.Helper()
	set := func(now []string) (before []string) {
		t.cloud.mu.Lock()
		defer t.cloud.mu.Unlock()
		before, t.t.Policies = t.t.Policies, now
		return before
	}
	before := set(nil)
	t.Allow(statements...)
	return func() { set(before) }
}

// NewCompartment makes a compartment below parent, or below the root.
func (t *Tenancy) NewCompartment(name, parent string) string {
	t.tb.Helper()
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	if parent == "" {
		parent = t.ID
	}
	c, err := t.cloud.world.newCompartment(parent, name)
	if err != nil {
		t.tb.Fatalf("making compartment %s: %v", name, err)
	}
	return c.ID
}

// User is a user who may call OCI.
type User struct {
	ID        string
	Name      string
	AuthToken string // the password for docker login; the user is Namespace/Name

	tenancy *Tenancy
	u       *user
	dir     string
}

// NewUser makes a user with the rights that groups and statements give. Group
// Administrators has all rights.
func (t *Tenancy) NewUser(name string, groups ...string) *User {
	t.tb.Helper()
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	u, err := t.cloud.world.newUser(t.ID, name, groups...)
	if err != nil {
		t.tb.Fatalf("making user %s: %v", name, err)
	}
	return &User{ID: u.ID, Name: name, AuthToken: u.AuthToken, tenancy: t, u: u}
}

// Admin makes an administrator.
func (t *Tenancy) Admin() *User { return t.NewUser("admin", "Administrators") }

// ConfigFile returns the path of an OCI config file with the user's profiles.
// [ProfileDefault] has an API key, another profile has the key under a pass phrase,
// and a third has a session.
func (u *User) ConfigFile() string {
	u.tenancy.tb.Helper()
	if u.dir == "" {
		u.dir = u.tenancy.tb.TempDir()
		if err := u.tenancy.cloud.writeProfiles(u.dir, u.u); err != nil {
			u.tenancy.tb.Fatalf("writing the profiles of %s: %v", u.Name, err)
		}
	}
	return filepath.Join(u.dir, "config")
}

// DockerConfig returns a directory for DOCKER_CONFIG that logs the user in.
func (u *User) DockerConfig() string {
	u.tenancy.tb.Helper()
	return filepath.Join(filepath.Dir(u.ConfigFile()), "docker")
}

// NewActor makes a resource that acts for itself, in a compartment, or in the root
// if compartmentID is empty. Its kind is the kind in OCIDs: "instance" for a compute
// instance, which [User.NewInstance] starts, or another kind, such as
// "devopsbuildpipeline", for a resource that gets a token from [User.NewResource].
// It has the rights that statements give to its dynamic groups.
func (t *Tenancy) NewActor(kind, compartmentID string) *User {
	t.tb.Helper()
	if compartmentID == "" {
		compartmentID = t.ID
	}
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	w := t.cloud.world
	r, err := w.newResource(t.Region, compartmentID, kind, t.cloud.switches(w, t.ID))
	if err != nil {
		t.tb.Fatalf("making a %s: %v", kind, err)
	}
	u := w.actor(r.ID)
	return &User{ID: u.ID, Name: u.Name, tenancy: t, u: u}
}

// NewDynamicGroup makes a dynamic group with a matching rule such as "All
// {instance.compartment.id = 'ocid1.compartment…'}".
func (t *Tenancy) NewDynamicGroup(name, rule string) {
	t.tb.Helper()
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	if _, err := t.cloud.world.newDynamicGroup(t.ID, name, rule); err != nil {
		t.tb.Fatal(err)
	}
}

// RemoveDynamicGroups deletes the tenancy's dynamic groups.
func (t *Tenancy) RemoveDynamicGroups() {
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	maps.DeleteFunc(t.cloud.world.Groups, func(_ string, g *dynamicGroup) bool { return g.Tenancy == t.ID })
}

// Shape is the kind of a key.
type Shape uint8

// Shapes of keys.
const (
	RSA2048 Shape = iota
	RSA3072
	RSA4096
	AES256
	P256
	P384
	P521
)

func (s Shape) shape() keyShape {
	return [...]keyShape{
		RSA2048: {"RSA", 256, ""}, RSA3072: {"RSA", 384, ""}, RSA4096: {"RSA", 512, ""}, AES256: {"AES", 32, ""},
		P256: {"ECDSA", 32, "NIST_P256"}, P384: {"ECDSA", 48, "NIST_P384"}, P521: {"ECDSA", 66, "NIST_P521"},
	}[s]
}

// Vault holds keys.
type Vault struct {
	ID        string
	Extension string

	tenancy *Tenancy
	v       *vault
}

// NewVault makes a vault in a compartment, or in the root if compartmentID is empty.
func (t *Tenancy) NewVault(name, compartmentID string) *Vault {
	t.tb.Helper()
	if compartmentID == "" {
		compartmentID = t.ID
	}
	c := t.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.world.newVault(t.Region, compartmentID, name, c.switches(c.world, t.ID))
	return &Vault{ID: v.ID, Extension: v.Extension, tenancy: t, v: v}
}

// Key is a master key of a vault, with one or more versions.
type Key struct {
	ID string

	vault *Vault
	k     *key
}

// NewKey makes a key with new key material in the vault's compartment.
func (v *Vault) NewKey(name string, shape Shape) *Key {
	v.tenancy.tb.Helper()
	return v.newKey(name, shape.shape(), nil)
}

// ImportKey makes a key with the test's own key material.
func (v *Vault) ImportKey(name string, shape Shape, private crypto.Signer) *Key {
	v.tenancy.tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		v.tenancy.tb.Fatalf("importing %s: %v", name, err)
	}
	return v.newKey(name, shape.shape(), der)
}

func (v *Vault) newKey(name string, shape keyShape, material []byte) *Key {
	v.tenancy.tb.Helper()
	if material == nil { // made outside the lock, because it takes long
		var err error
		if material, err = shape.generate(); err != nil {
			v.tenancy.tb.Fatalf("making key %s: %v", name, err)
		}
	}
	c := v.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	k, err := c.world.newKey(v.v, v.v.Compartment, name, shape, material, c.switches(c.world, v.v.Compartment))
	if err != nil {
		v.tenancy.tb.Fatalf("making key %s: %v", name, err)
	}
	return &Key{ID: k.ID, vault: v, k: k}
}

// Version returns the OCID of the current key version.
func (k *Key) Version() string {
	c := k.vault.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	return k.k.current().ID
}

// Rotate makes a key version and returns its OCID.
func (k *Key) Rotate() string {
	t := k.vault.tenancy
	t.tb.Helper()
	c := t.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.world.newKeyVersion(k.k, nil, c.switches(c.world, k.k.Compartment))
	if err != nil {
		t.tb.Fatalf("rotating a key: %v", err)
	}
	return v.ID
}

// SetState puts the key into a lifecycle state, such as DISABLED.
func (k *Key) SetState(state string) {
	c := k.vault.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	k.k.lifecycle = lifecycle{State: state}
}

// SetVersionState puts one version of the key into a lifecycle state.
func (k *Key) SetVersionState(version, state string) {
	t := k.vault.tenancy
	t.tb.Helper()
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	v := k.k.version(version)
	if v == nil {
		t.tb.Fatalf("key %s has no version %s", k.ID, version)
	}
	v.lifecycle = lifecycle{State: state}
}

// Delete removes the key without a trace.
func (k *Key) Delete() {
	c := k.vault.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.world.Keys, k.ID)
}

// Public returns the public key of the current version.
func (k *Key) Public() crypto.PublicKey {
	t := k.vault.tenancy
	t.tb.Helper()
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	s, err := k.k.current().parsed()
	if err != nil {
		t.tb.Fatalf("reading a key: %v", err)
	}
	return s.Public()
}

// Image is an image in OCI Registry.
type Image struct {
	ID           string
	RepositoryID string
	Repository   string
	Digest       string

	tenancy *Tenancy
}

// NewRepository makes a repository in a compartment, or in the root if compartmentID
// is empty. It returns the repository's OCID.
func (t *Tenancy) NewRepository(name, compartmentID string) string {
	t.tb.Helper()
	if compartmentID == "" {
		compartmentID = t.ID
	}
	c := t.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.world.newRepository(t.Region.ID(), compartmentID, name, c.switches(c.world, compartmentID))
	if err != nil {
		t.tb.Fatalf("making repository %s: %v", name, err)
	}
	return r.ID
}

// MoveRepository moves a repository with its content to another compartment.
func (t *Tenancy) MoveRepository(id, compartmentID string) {
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	t.cloud.world.Repositories[id].Compartment = compartmentID
}

// NewImage pushes a unique image into a repository. A missing repository is made in
// the root compartment.
func (t *Tenancy) NewImage(repository string, tags ...string) *Image {
	t.tb.Helper()
	c := t.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	sw := c.switches(c.world, t.ID)
	repo := t.repository(repository)
	content := repository + " " + c.world.unique(20)
	img, err := c.makeImage(repo, content, "", sw)
	for _, tag := range tags {
		if err == nil {
			img, err = c.makeImage(repo, content, tag, sw)
		}
	}
	if err != nil {
		t.tb.Fatalf("making an image in %s: %v", repository, err)
	}
	return &Image{ID: img.ID, RepositoryID: repo.ID, Repository: repository, Digest: img.Digest, tenancy: t}
}

// repository finds or makes a repository. Cloud.mu is held.
func (t *Tenancy) repository(name string) *repository {
	t.tb.Helper()
	w := t.cloud.world
	if r := w.repositoryByName(t.Region.ID(), t.ID, name); r != nil {
		return r
	}
	r, err := w.newRepository(t.Region.ID(), t.ID, name, t.cloud.switches(w, t.ID))
	if err != nil {
		t.tb.Fatalf("making repository %s: %v", name, err)
	}
	return r
}

// CopyTo pushes the same manifest to another repository of the tenancy. The digest
// stays the same. In OCI the copy is another image, with separate signatures.
func (i *Image) CopyTo(repository string) *Image {
	t := i.tenancy
	t.tb.Helper()
	c := t.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	sw := c.switches(c.world, t.ID)
	repo := t.repository(repository)
	from := c.world.Images[i.ID]
	c.registry.copy(i.RepositoryID, repo.ID)
	img, err := c.world.putManifest(repo, from.MediaType, from.Manifest, from.Digest, "", from.CreatedBy, sw)
	if err != nil {
		t.tb.Fatalf("copying an image: %v", err)
	}
	return &Image{ID: img.ID, RepositoryID: repo.ID, Repository: repository, Digest: img.Digest, tenancy: t}
}

// Ref returns the image's pinned reference with the short host name of its region.
func (i *Image) Ref() string {
	host := i.tenancy.Region.Key() + ".ocir.io"
	if i.tenancy.Region.Realm() != "oc1" {
		host = "ocir." + i.tenancy.Region.ID() + ".oci." + i.tenancy.Region.Domain()
	}
	return host + "/" + i.tenancy.Namespace + "/" + i.Repository + "@" + i.Digest
}

// Sign returns a genuine signature record for the image, by the current version of a
// key. The record is not attached yet: change it as needed and pass it to
// [Tenancy.Add].
func (i *Image) Sign(k *Key, algorithm string) Record {
	t := i.tenancy
	t.tb.Helper()
	message, err := json.Marshal(map[string]string{
		"description": "", "imageDigest": i.Digest, "kmsKeyId": k.ID, "kmsKeyVersionId": k.Version(), "metadata": "",
		"region": t.Region.ID(), "repositoryName": i.Repository, "signingAlgorithm": algorithm,
	})
	if err != nil {
		t.tb.Fatalf("encoding a message: %v", err)
	}
	r := Record{ImageID: i.ID, KeyID: k.ID, KeyVersionID: k.Version(), Algorithm: algorithm}
	r.Message, r.Signature = k.SignMessage(algorithm, message)
	return r
}

// SignMessage signs any message with the key's current version. It returns message
// and signature as a signature record carries them.
func (k *Key) SignMessage(algorithm string, message []byte) (message64, signature64 string) {
	t := k.vault.tenancy
	t.tb.Helper()
	s, err := parseScheme(algorithm)
	if err != nil {
		t.tb.Fatal(err)
	}
	t.cloud.mu.Lock()
	signer, err := k.k.current().parsed()
	salt := t.cloud.switches(t.cloud.world, t.ID).Salt
	t.cloud.mu.Unlock()
	if err != nil {
		t.tb.Fatalf("reading a key: %v", err)
	}
	h := s.hash.New()
	h.Write(message) //nolint:errcheck // a hash never fails
	sig, err := s.sign(signer, h.Sum(nil), salt)
	if err != nil {
		t.tb.Fatalf("signing: %v", err)
	}
	return base64.StdEncoding.EncodeToString(message), base64.StdEncoding.EncodeToString(sig)
}

// Add attaches signature records without any of OCI's checks, and returns their
// OCIDs.
func (t *Tenancy) Add(records ...Record) []string {
	t.tb.Helper()
	var ids []string
	for _, r := range records {
		id, err := t.cloud.AddRecord(r)
		if err != nil {
			t.tb.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// Fault makes requests of the tenancy fail until the test ends.
func (t *Tenancy) Fault(f Fault) int64 {
	t.tb.Helper()
	if f.Kind != Unreachable {
		f.Tenancy = t.ID
	}
	id, err := t.cloud.SetFault(f)
	if err != nil {
		t.tb.Fatal(err)
	}
	t.tb.Cleanup(func() { t.cloud.ClearFault(id) })
	return id
}

// Calls counts the tenancy's requests by operation.
func (t *Tenancy) Calls() map[string]int { return t.cloud.callsOf(t.ID) }

// Requests returns the tenancy's last requests, oldest first.
func (t *Tenancy) Requests() []Request {
	return slices.DeleteFunc(t.cloud.Requests(), func(r Request) bool { return r.Tenancy != t.ID })
}

// Seeded returns the tenancy of a seeded cloud, as a fixture of the test.
func (c *Cloud) Seeded(tb testing.TB) *Tenancy {
	tb.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok := c.world.Users[c.world.Operator]
	if !ok {
		tb.Fatal("the cloud was not seeded")
	}
	t := c.world.Tenancies[u.Tenancy]
	return &Tenancy{ID: t.ID, Namespace: t.Namespace, Region: parseRegion(t.HomeRegion), tb: tb, cloud: c, t: t}
}
