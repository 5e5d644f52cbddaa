package registry_test

import (
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"
	"weak"

	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

func TestTags(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	old, now := tenancy.NewImage("team/app", "v1"), tenancy.NewImage("team/app", "v2", "latest")
	admin := registry.NewTags(client(t, tenancy.Admin(), registry.Config{}))
	stranger := registry.NewTags(client(t, tenancy.NewUser("stranger"), registry.Config{}))
	app := "iad.ocir.io/" + tenancy.Namespace + "/team/app"
	for name, tt := range map[string]struct {
		tags      *registry.Tags
		ref, want string
	}{
		"a tag":                     {admin, app + ":v1", old.Digest},
		"another":                   {admin, app + ":v2", now.Digest},
		"no tag":                    {admin, app, now.Digest},
		"a digest, whatever tag":    {admin, app + ":v1@" + now.Digest, now.Digest},
		"a digest without an image": {admin, app + "@sha256:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("0", 64)},
		"no such tag":               {admin, app + ":v3", ""},
		"without a right":           {stranger, app + ":v1", ""},
		"of another tenancy":        {admin, "iad.ocir.io/elsewhere/team/app:v1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := tt.tags.Digest(t.Context(), parse(t, tt.ref)); got != tt.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// A rollout asks for one tag many times at once. After an error, the next caller
// sends a request again.
func TestTagsAreFetchedOnce(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	img := tenancy.NewImage("team/app", "v1")
	ref := parse(t, "iad.ocir.io/"+tenancy.Namespace+"/team/app:v1")
	tags := registry.NewTags(client(t, tenancy.Admin(), registry.Config{}))

	fault := tenancy.Fault(ocitest.Fault{Operation: lookups, Kind: ocitest.Status, Status: 500})
	if got, err := tags.Digest(t.Context(), ref); got != "" || err == nil {
		t.Errorf("while OCI fails: %q, %v", got, err)
	}
	cloud.ClearFault(fault)
	before := tenancy.Calls()[lookups]
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if got, err := tags.Digest(t.Context(), ref); got != img.Digest || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	wait.Wait()
	if n := tenancy.Calls()[lookups] - before; n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
}

// A request may be a thousand times larger than the reference in it.
func TestTagsHoldNoRequest(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	img := tenancy.NewImage("team/app", "v1")
	tags := registry.NewTags(client(t, tenancy.Admin(), registry.Config{}))
	name := "iad.ocir.io/" + tenancy.Namespace + "/team/app:v1"
	request := func() weak.Pointer[byte] {
		body := strings.Clone(name + strings.Repeat(" ", 1<<20))
		if got, err := tags.Digest(t.Context(), parse(t, body[:len(name)])); got != img.Digest || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		return weak.Make(unsafe.StringData(body))
	}()
	runtime.GC()
	if request.Value() != nil {
		t.Error("the request is still in memory")
	}
	runtime.KeepAlive(tags)
}
