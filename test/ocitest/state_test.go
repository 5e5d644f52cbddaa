package ocitest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// operator returns the SDK's clients of a seeded cloud's operator.
func operator(t *testing.T, own *ocitest.Cloud) *clients {
	t.Helper()
	c := clientsOf(t, common.CustomProfileConfigProvider(own.ConfigFile(), ocitest.ProfileDefault))
	h := clientFor(t, own)
	c.artifacts.HTTPClient, c.vaults.HTTPClient, c.identity.HTTPClient, c.storage.HTTPClient = h, h, h, h
	return c
}

// TestDemoSeed checks what the demo's documents promise about the seed.
func TestDemoSeed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	sw := ocitest.Strict()
	own := ocitest.Start(t, ocitest.Config{Seed: "demo", Switches: sw})
	tenancy := own.Seeded(t)
	if tenancy.Namespace != "idwpqivumvev" || tenancy.Region.ID() != "us-ashburn-1" {
		t.Errorf("namespace %s in %s, want idwpqivumvev in us-ashburn-1", tenancy.Namespace, tenancy.Region.ID())
	}
	c := operator(t, own)
	images, err := c.artifacts.ListContainerImages(ctx, artifacts.ListContainerImagesRequest{
		CompartmentId: &tenancy.ID, CompartmentIdInSubtree: common.Bool(true), SortBy: "DISPLAYNAME",
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	digests := map[string]bool{}
	for _, i := range images.Items {
		names = append(names, *i.DisplayName)
		digests[*i.Digest] = true
		if *i.CompartmentId == tenancy.ID {
			t.Errorf("%s is in the root compartment", *i.DisplayName)
		}
		img, err := remote.Image(refOf(t, "iad.ocir.io/"+tenancy.Namespace+"/"+*i.RepositoryName+"@"+*i.Digest),
			remote.WithTransport(clientFor(t, own).Transport), remote.WithAuthFromKeychain(dockerConfig(t, own.Home())))
		if err != nil {
			t.Fatal(err)
		}
		if err := validateImage(img); err != nil {
			t.Errorf("%s: %v", *i.DisplayName, err)
		}
	}
	want := []string{"project01/ngnix-lb:latest", "project01/ngnix-lb:v1", "scan-test:latest", "scan-test:v1"}
	if diff := cmp.Diff(want, names); diff != "" || len(digests) != 4 {
		t.Errorf("images (-want +got):\n%s and %d digests", diff, len(digests))
	}
	if got := listSignatures(t, c, artifacts.ListContainerImageSignaturesRequest{CompartmentId: &tenancy.ID, CompartmentIdInSubtree: common.Bool(true)}); len(got) != 0 {
		t.Errorf("%d signatures, want none", len(got))
	}
	compartment := *images.Items[0].CompartmentId
	vaults, err := c.vaults.ListVaults(ctx, keymanagement.ListVaultsRequest{CompartmentId: &compartment})
	if err != nil {
		t.Fatal(err)
	}
	if len(vaults.Items) != 1 || *vaults.Items[0].DisplayName != "image-vault" {
		t.Fatalf("vaults %v, want image-vault", vaults.Items)
	}
	management, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(c.config, *vaults.Items[0].ManagementEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	management.HTTPClient = clientFor(t, own)
	keys, err := management.ListKeys(ctx, keymanagement.ListKeysRequest{CompartmentId: &compartment, SortBy: "DISPLAYNAME"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, k := range keys.Items {
		full, err := management.GetKey(ctx, keymanagement.GetKeyRequest{KeyId: k.Id})
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal([]any{full.KeyShape.Algorithm, full.KeyShape.Length})
		if err != nil {
			t.Fatal(err)
		}
		got[*k.DisplayName] = string(b)
	}
	if diff := cmp.Diff(map[string]string{"image-key": `["RSA",256]`, "release-key": `["RSA",512]`, "etcd-key": `["AES",32]`, "ec-key": `["ECDSA",32]`}, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	again := ocitest.Start(t, ocitest.Config{Seed: "demo", Switches: sw}).Seeded(t)
	if again.ID != tenancy.ID {
		t.Errorf("another demo has tenancy %s, want %s again", again.ID, tenancy.ID)
	}
}

// dockerConfig returns the login in a cloud's Home.
func dockerConfig(tb testing.TB, home string) authn.Keychain {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(home, "docker", "config.json"))
	if err != nil {
		tb.Fatal(err)
	}
	return keychain{tb, b}
}

type keychain struct {
	tb     testing.TB
	config []byte
}

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	var c struct{ Auths map[string]authn.AuthConfig }
	if err := json.Unmarshal(k.config, &c); err != nil {
		return nil, err
	}
	a, ok := c.Auths[r.RegistryStr()]
	if !ok {
		k.tb.Errorf("no login for %s", r.RegistryStr())
	}
	return authn.FromConfig(a), nil
}

// TestStateSurvives saves a cloud and starts another from the file. Everything is
// still there and works.
func TestStateSurvives(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "state.json")
	first, err := ocitest.New(ocitest.Config{Seed: "bare", State: file})
	if err != nil {
		t.Fatal(err)
	}
	tenancy := first.Seeded(t)
	vault := tenancy.NewVault("v", "")
	key := vault.NewKey("k", ocitest.RSA2048)
	image := tenancy.NewImage("web", "v1")
	record := image.Sign(key, pss256)
	id := tenancy.Add(record)[0]
	endpoint := *operator(t, first).vault(vault).CryptoEndpoint
	before := first.State()
	if err := first.Save(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("state file %v %v, want only its owner to read it", info, err)
	}
	second := ocitest.Start(t, ocitest.Config{Seed: "bare", State: file})
	if diff := cmp.Diff(before, second.State(), cmp.Transformer("json", func(b json.RawMessage) any {
		var v map[string]any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		delete(v, "users") // whose credentials are new
		return v
	})); diff != "" {
		t.Errorf("state (-before +after):\n%s", diff)
	}
	c := operator(t, second)
	got, err := c.artifacts.GetContainerImageSignature(ctx, artifacts.GetContainerImageSignatureRequest{ImageSignatureId: &id})
	if err != nil {
		t.Fatal(err)
	}
	crypto, err := keymanagement.NewKmsCryptoClientWithConfigurationProvider(c.config, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	crypto.HTTPClient = clientFor(t, second)
	verified, err := crypto.Verify(ctx, keymanagement.VerifyRequest{VerifyDataDetails: keymanagement.VerifyDataDetails{
		KeyId: got.KmsKeyId, KeyVersionId: got.KmsKeyVersionId, Message: got.Message, Signature: got.Signature, SigningAlgorithm: pss256,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !*verified.IsSignatureValid {
		t.Error("the key did not survive")
	}
	img, err := remote.Image(refOf(t, image.Ref()), remote.WithTransport(clientFor(t, second).Transport), remote.WithAuthFromKeychain(dockerConfig(t, second.Home())))
	if err != nil {
		t.Fatal(err)
	}
	if err := validateImage(img); err != nil {
		t.Errorf("the image did not survive: %v", err)
	}
}

func TestBadStateFilesAreRejected(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"no JSON":         "state",
		"another version": `{"version":99}`,
		"no authority":    `{"version":1}`,
	} {
		file := filepath.Join(t.TempDir(), "state.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := ocitest.New(ocitest.Config{State: file})
		if err == nil {
			c.Close()
			t.Errorf("%s: loaded", name)
		}
	}
}

func TestStatePageHasNoSecrets(t *testing.T) {
	t.Parallel()
	own := ocitest.Start(t, ocitest.Config{Seed: "bare"})
	made := own.Seeded(t)
	made.NewVault("v", "").NewKey("image-key", ocitest.RSA2048)
	made.NewImage("scan-test")
	res, err := http.DefaultClient.Do(newRequest(t, "GET", own.URL()+"/_emulator/state", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"image-key", "scan-test", made.Namespace} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the state page has no %s", want)
		}
	}
	var state struct {
		Keys  map[string]struct{ Versions []struct{ Private any } }
		Users map[string]struct{ AuthToken string }
	}
	if err := json.Unmarshal(b, &state); err != nil {
		t.Fatal(err)
	}
	for id, k := range state.Keys {
		for _, v := range k.Versions {
			if v.Private != nil {
				t.Errorf("the state page shows the private key of %s", id)
			}
		}
	}
	for id, u := range state.Users {
		if u.AuthToken != "" {
			t.Errorf("the state page shows the auth token of %s", id)
		}
	}
}

// TestRecords attaches a genuine signature to another image, as an attacker with the
// right to push could.
func TestRecords(t *testing.T) {
	t.Parallel()
	own := ocitest.Start(t, ocitest.Config{Seed: "bare"})
	tenancy := own.Seeded(t)
	c := operator(t, own)
	key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
	one, two := tenancy.NewImage("one"), tenancy.NewImage("two")
	genuine := tenancy.Add(one.Sign(key, pss256))[0]
	post := func(body string) (int, string) {
		t.Helper()
		res, err := http.DefaultClient.Do(newRequest(t, "POST", own.URL()+"/_emulator/signatures", body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var out struct{ ID, Error string }
		if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, out.ID + out.Error
	}
	status, id := post(`{"copyOf":"` + genuine + `","image":"` + two.Ref() + `"}`)
	if status != 200 {
		t.Fatalf("%d %s", status, id)
	}
	got, err := c.artifacts.GetContainerImageSignature(context.Background(), artifacts.GetContainerImageSignatureRequest{ImageSignatureId: &id})
	if err != nil {
		t.Fatal(err)
	}
	from, err := c.artifacts.GetContainerImageSignature(context.Background(), artifacts.GetContainerImageSignatureRequest{ImageSignatureId: &genuine})
	if err != nil {
		t.Fatal(err)
	}
	if *got.ImageId != two.ID || *got.Message != *from.Message || *got.Signature != *from.Signature {
		t.Errorf("copied %v, want message and signature of %s at %s", got, genuine, two.ID)
	}
	for _, body := range []string{`{}`, `{"imageId":"nothing"}`, `{"image":"docker.io/x"}`, `{"imageId":"` + two.ID + `","copyOf":"nothing"}`, `{"imageID":"x","nonsense":1}`, `[`} {
		if status, text := post(body); status != 400 {
			t.Errorf("%s: %d %s, want 400", body, status, text)
		}
	}
}

func TestPolicyFiles(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policy.json")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"users":[{"name":"ci","groups":["signers"]}],"statements":["Allow group signers to read repos in tenancy"]}`)
	own := ocitest.Start(t, ocitest.Config{Seed: "bare", Policy: file})
	c := clientsOf(t, common.CustomProfileConfigProvider(filepath.Join(own.Home(), "users", "ci", "config"), ocitest.ProfileDefault))
	c.artifacts.HTTPClient = clientFor(t, own)
	tenancy := own.Seeded(t)
	if _, err := c.artifacts.GetContainerConfiguration(context.Background(), artifacts.GetContainerConfigurationRequest{CompartmentId: &tenancy.ID}); err != nil {
		t.Error(err)
	}
	_, err := c.artifacts.CreateContainerRepository(context.Background(), artifacts.CreateContainerRepositoryRequest{
		CreateContainerRepositoryDetails: artifacts.CreateContainerRepositoryDetails{CompartmentId: &tenancy.ID, DisplayName: common.String("x")},
	})
	if got := code(t, err); got != "NotAuthorizedOrNotFound" {
		t.Errorf("code %q, want NotAuthorizedOrNotFound", got)
	}
	for name, content := range map[string]string{
		"an invalid statement": `{"statements":["Let them in"]}`,
		"a user with a path":   `{"users":[{"name":"../x"}]}`,
		"an unknown field":     `{"user":[]}`,
	} {
		write(content)
		c, err := ocitest.New(ocitest.Config{Seed: "bare", Policy: file})
		if err == nil {
			c.Close()
			t.Errorf("%s: taken", name)
		}
	}
}
