package ocitest_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/containerregistry"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// login returns a user's credentials as docker login uses them.
func login(t *ocitest.Tenancy, u *ocitest.User) remote.Option {
	return remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: t.Namespace + "/" + u.Name, Password: u.AuthToken}))
}

// apart gives a test separate connections. A denied push cancels its other requests, and
// net/http may report the cancellation to the next user of their connections.
func apart(tb testing.TB) remote.Option {
	tb.Helper()
	own := remote.DefaultTransport.(*http.Transport).Clone()
	tb.Cleanup(own.CloseIdleConnections)
	return remote.WithTransport(own)
}

func refOf(tb testing.TB, s string) name.Reference {
	tb.Helper()
	r, err := name.ParseReference(s)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func randomImage(tb testing.TB) (v1.Image, string) {
	tb.Helper()
	img, err := random.Image(2000, 2)
	if err != nil {
		tb.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		tb.Fatal(err)
	}
	return img, d.String()
}

// status returns the status of the registry's answer. It is 200 without an error.
func status(tb testing.TB, err error) int {
	tb.Helper()
	if err == nil {
		return http.StatusOK
	}
	var failure *transport.Error
	if !errors.As(err, &failure) {
		tb.Fatalf("not an answer of the registry: %v", err)
	}
	return failure.StatusCode
}

func TestPushAndPull(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	admin := tenancy.Admin()
	c := newClients(t, admin)
	img, digest := randomImage(t)
	if err := remote.Write(refOf(t, "iad.ocir.io/"+tenancy.Namespace+"/project01/web:v1"), img, login(tenancy, admin)); err != nil {
		t.Fatal(err)
	}
	if err := remote.Tag(refOf(t, "iad.ocir.io/"+tenancy.Namespace+"/project01/web:latest").(name.Tag), img, login(tenancy, admin)); err != nil {
		t.Fatal(err)
	}
	// The registry is the same under each of its names.
	for _, host := range []string{"iad.ocir.io", "us-ashburn-1.ocir.io", "ocir.us-ashburn-1.oci.oraclecloud.com"} {
		pulled, err := remote.Image(refOf(t, host+"/"+tenancy.Namespace+"/project01/web@"+digest), login(tenancy, admin))
		if err != nil {
			t.Fatal(err)
		}
		layers, err := pulled.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			r, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Digest(); err != nil {
				t.Error(err)
			}
			r.Close()
		}
	}
	tags, err := remote.List(refOf(t, "iad.ocir.io/"+tenancy.Namespace+"/project01/web").Context(), login(tenancy, admin))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"latest", "v1"}, tags); diff != "" {
		t.Error(diff)
	}
	// The pushed manifest is an image of the Artifacts API.
	got, err := c.artifacts.LookupContainerImageByUri(context.Background(), artifacts.LookupContainerImageByUriRequest{
		LookupContainerImageByUriDetails: artifacts.LookupContainerImageByUriDetails{ImageUri: common.String(tenancy.Namespace + "/project01/web:v1")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if *got.Digest != digest || len(got.Layers) != 2 || len(got.Versions) != 2 || *got.CreatedBy != admin.ID || *got.PullCount == 0 {
		t.Errorf("image %v, want digest %s, two layers, two versions, pulled", got, digest)
	}
	// The registry has no image that the API deleted.
	if _, err := c.artifacts.DeleteContainerImage(context.Background(), artifacts.DeleteContainerImageRequest{ImageId: got.Id}); err != nil {
		t.Fatal(err)
	}
	_, err = remote.Head(refOf(t, "iad.ocir.io/"+tenancy.Namespace+"/project01/web:v1"), login(tenancy, admin))
	if got := status(t, err); got != http.StatusNotFound {
		t.Errorf("status %d for a deleted image, want 404", got)
	}
}

func TestFixturesCanBePulled(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	admin := tenancy.Admin()
	image := tenancy.NewImage("web", "v1")
	for _, i := range []*ocitest.Image{image, image.CopyTo("other")} {
		img, err := remote.Image(refOf(t, i.Ref()), login(tenancy, admin))
		if err != nil {
			t.Fatal(err)
		}
		if err := validateImage(img); err != nil {
			t.Errorf("%s: %v", i.Repository, err)
		}
	}
}

func validateImage(img v1.Image) error {
	if _, err := img.ConfigFile(); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		r, err := l.Uncompressed()
		if err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}

func TestRegistryPermissions(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Regions: []string{"us-phoenix-1"}})
	admin, reader, nobody := tenancy.Admin(), tenancy.NewUser("reader"), tenancy.NewUser("nobody")
	tenancy.Allow("Allow user reader to read repos in tenancy where target.repo.name = 'web'")
	stranger := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	strangers := login(stranger, stranger.Admin())
	tenancy.NewImage("web", "v1")
	tenancy.NewImage("other", "v1")
	public := tenancy.NewImage("public", "v1")
	c := newClients(t, admin)
	if _, err := c.artifacts.UpdateContainerRepository(context.Background(), artifacts.UpdateContainerRepositoryRequest{
		RepositoryId: &public.RepositoryID, UpdateContainerRepositoryDetails: artifacts.UpdateContainerRepositoryDetails{IsPublic: common.Bool(true)},
	}); err != nil {
		t.Fatal(err)
	}
	wrong := remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: tenancy.Namespace + "/admin", Password: "wrong"}))
	anonymous := remote.WithAuth(authn.Anonymous)
	for name, tt := range map[string]struct {
		who        remote.Option
		repository string
		pull, push int
	}{
		"an administrator":                   {login(tenancy, admin), "web", 200, 200},
		"a reader, allowed repository":       {login(tenancy, reader), "web", 200, 403},
		"a reader, other repository":         {login(tenancy, reader), "other", 403, 403},
		"a user without rights":              {login(tenancy, nobody), "web", 403, 403},
		"another tenancy":                    {strangers, "web", 403, 403},
		"another tenancy, public repository": {strangers, "public", 200, 403},
		"a wrong auth token":                 {wrong, "web", 401, 401},
		"nobody":                             {anonymous, "web", 401, 401},
		"anonymous, public repository":       {anonymous, "public", 200, 401},
		"a missing repository":               {login(tenancy, reader), "nothing", 403, 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			apart := apart(t)
			ref := "iad.ocir.io/" + tenancy.Namespace + "/" + tt.repository
			_, err := remote.Get(refOf(t, ref+":v1"), tt.who, apart)
			if got := status(t, err); got != tt.pull {
				t.Errorf("pull: %d, want %d: %v", got, tt.pull, err)
			}
			img, _ := randomImage(t) // an image that no other test pushed
			err = remote.Write(refOf(t, ref+":pushed"), img, tt.who, apart)
			if got := status(t, err); got != tt.push {
				t.Errorf("push: %d, want %d: %v", got, tt.push, err)
			}
		})
	}
	t.Run("regions are separate", func(t *testing.T) {
		t.Parallel()
		_, err := remote.Get(refOf(t, "phx.ocir.io/"+tenancy.Namespace+"/web:v1"), login(tenancy, admin))
		if got := status(t, err); got == 200 {
			t.Error("an image of Ashburn was found in Phoenix")
		}
	})
	t.Run("a signed request gets a token too", func(t *testing.T) {
		t.Parallel()
		tokens, err := containerregistry.NewContainerRegistryClientWithConfigurationProvider(c.config)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tokens.GetAccessToken(context.Background(), containerregistry.GetAccessTokenRequest{Scope: common.String("repository:" + tenancy.Namespace + "/web:pull")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := remote.Get(refOf(t, "iad.ocir.io/"+tenancy.Namespace+"/web:v1"), remote.WithAuth(&authn.Bearer{Token: *got.Token})); err != nil {
			t.Error(err)
		}
	})
}

func TestPushesMakeRepositories(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	admin := tenancy.Admin()
	c := newClients(t, admin)
	img, _ := randomImage(t)
	push := func(repository string) int {
		return status(t, remote.Write(refOf(t, "iad.ocir.io/"+tenancy.Namespace+"/"+repository+":v1"), img, login(tenancy, admin), apart(t)))
	}
	if got := push("first"); got != 200 {
		t.Errorf("status %d, want a new repository", got)
	}
	if _, err := c.artifacts.UpdateContainerConfiguration(context.Background(), artifacts.UpdateContainerConfigurationRequest{
		CompartmentId: &tenancy.ID, UpdateContainerConfigurationDetails: artifacts.UpdateContainerConfigurationDetails{IsRepositoryCreatedOnFirstPush: common.Bool(false)},
	}); err != nil {
		t.Fatal(err)
	}
	if got := push("second"); got != 403 {
		t.Errorf("status %d, want 403, because pushes make no repositories", got)
	}
}

// TestIndexes compares the treatment of manifests in an image index with the switch.
func TestIndexes(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]int{"listed": 3, "hidden": 1} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.IndexChildren, s.EmptyPages = setting, false })})
			admin := tenancy.Admin()
			index, err := random.Index(500, 1, 2)
			if err != nil {
				t.Fatal(err)
			}
			index = mutate.Annotations(index, map[string]string{"a": "b"}).(v1.ImageIndex)
			ref := refOf(t, "iad.ocir.io/"+tenancy.Namespace+"/web:v1")
			if err := remote.WriteIndex(ref, index, login(tenancy, admin)); err != nil {
				t.Fatal(err)
			}
			got, err := newClients(t, admin).artifacts.ListContainerImages(context.Background(), artifacts.ListContainerImagesRequest{CompartmentId: &tenancy.ID})
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Items) != want {
				t.Errorf("%d images, want %d", len(got.Items), want)
			}
			if _, err := remote.Index(ref, login(tenancy, admin)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPushesAreChecked(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	admin := tenancy.Admin()
	repo := refOf(t, "iad.ocir.io/"+tenancy.Namespace+"/web").Context()
	rt, err := transport.NewWithContext(context.Background(), repo.Registry,
		authn.FromConfig(authn.AuthConfig{Username: tenancy.Namespace + "/admin", Password: admin.AuthToken}), http.DefaultTransport, []string{repo.Scope(transport.PushScope)})
	if err != nil {
		t.Fatal(err)
	}
	put := func(reference, body string) int {
		req := newRequest(t, http.MethodPut, "https://iad.ocir.io/v2/"+tenancy.Namespace+"/web/manifests/"+reference, body)
		res, err := (&http.Client{Transport: rt}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	const absent = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for name, tt := range map[string]struct {
		reference, body string
		want            int
	}{
		"a manifest without its blobs": {"v1", `{"config":{"digest":"` + absent + `"}}`, 400},
		"an index without manifests":   {"v1", `{"manifests":[{"digest":"` + absent + `"}]}`, 400},
		"no JSON":                      {"v1", `<xml>`, 400},
		"another digest":               {absent, `{"layers":[]}`, 400},
		"nothing wrong":                {"v1", `{"layers":[]}`, 201},
	} {
		if got := put(tt.reference, tt.body); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
