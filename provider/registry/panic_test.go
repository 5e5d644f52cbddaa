package registry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// explosive is a client whose OCI client panics at the first trouble, in the
// goroutine of the call.
func explosive(t *testing.T, user *ocitest.User, cfg registry.Config) *registry.Client {
	t.Helper()
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{
		ConfigFile: user.ConfigFile(),
		Client:     oci.Config{OnDelay: func(context.Context, error) { panic("a secret") }},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := registry.New(who, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAPanicWhileReadingAhead has a panic in a background reading. No caller waits
// for it, so the panic is reported, once. Look-ups continue.
func TestAPanicWhileReadingAhead(t *testing.T) {
	for name, operation := range map[string]string{"the images": images, "their signatures": lists} {
		t.Run(name, func(t *testing.T) {
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			signers := signersOf(t, tenancy)
			told := make(chan *contain.PanicError, 10)
			c := explosive(t, tenancy.Admin(), registry.Config{Panicked: func(p *contain.PanicError) { told <- p }})
			var refs []string
			for range 3 {
				img := tenancy.NewImage("app")
				tenancy.Add(img.Sign(signers.keys[0], "SHA_256_RSA_PKCS_PSS"))
				refs = append(refs, img.Ref())
			}
			if _, err := c.Tenancy(t.Context(), parse(t, refs[0])); err != nil {
				t.Fatal(err)
			}
			tenancy.Fault(ocitest.Fault{Operation: operation, Kind: ocitest.Status, Status: 500, Code: "InternalServerError", Count: 1})
			for _, ref := range refs {
				if got, _ := c.Bulk(t.Context(), parse(t, ref), signers.ids); len(got) > 0 {
					t.Errorf("records from a reading that panicked: %v", got)
				}
			}
			select {
			case p := <-told:
				if strings.Contains(p.Error(), "secret") || !strings.Contains(string(p.Stack), "readPages") {
					t.Errorf("told %v", p)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("nobody was told")
			}
			for _, ref := range refs {
				if got, _, err := c.Records(t.Context(), parse(t, ref)); err != nil || len(got) != 1 {
					t.Errorf("%s: %v, %v", ref, got, err)
				}
			}
			if len(told) > 0 {
				t.Errorf("told again: %v", <-told)
			}
		})
	}
}

// TestAPanicWhileLookingForARepository returns an error to the callers that wait for
// the look-up.
func TestAPanicWhileLookingForARepository(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	img := tenancy.NewImage("app")
	c := explosive(t, tenancy.Admin(), registry.Config{})
	ref := parse(t, img.Ref())
	if _, err := c.Tenancy(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	tenancy.Fault(ocitest.Fault{Operation: lists, Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound", Count: 1})
	tenancy.Fault(ocitest.Fault{Operation: lookups, Kind: ocitest.Status, Status: 500, Code: "InternalServerError", Count: 1})
	_, _, err := c.Records(t.Context(), ref)
	if _, ok := errors.AsType[*contain.PanicError](err); !ok {
		t.Errorf("got %v", err)
	}
	if got, _, err := c.Records(t.Context(), ref); err != nil || len(got) != 0 {
		t.Errorf("afterwards: %v, %v", got, err)
	}
}
