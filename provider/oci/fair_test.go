package oci_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// admission has everything between Gatekeeper and OCI: the server, the caches and
// the limits of each host. OCI takes 50 ms for each call.
type admission struct {
	handler http.Handler
	checker *checker.Checker
	hosts   *oci.Limiters
	calls   atomic.Int64
	made    atomic.Int64 // number of invented images
}

func newAdmission() *admission {
	a := &admission{hosts: oci.NewLimiters(32)}
	call := func(ctx context.Context) error {
		release, err := a.hosts.Acquire(ctx, silent)
		if err != nil {
			return err
		}
		defer release()
		a.calls.Add(1)
		time.Sleep(50 * time.Millisecond)
		return nil
	}
	a.checker = checker.New(checker.Config{Images: unsigned(call), Keys: nobodys{}})
	a.handler = server.New(server.Config{Signatures: server.Signatures{Check: a.checker.Gather, Cached: a.checker.Cached}})
	return a
}

// unsigned is a registry with unsigned images. It makes a call for each question.
type unsigned func(context.Context) error

func (unsigned) Covers(image.Region, string) bool { return true }

func (u unsigned) Records(ctx context.Context, _ image.Reference) ([]signature.Record, bool, error) {
	return nil, false, u(ctx)
}

func (unsigned) Bulk(context.Context, image.Reference, []signature.KeyID) ([]signature.Record, time.Time) {
	return nil, time.Time{}
}

func (u unsigned) Exists(ctx context.Context, _ image.Reference) (bool, error) { return true, u(ctx) }

// nobodys is a vault that the tests never call.
type nobodys struct{}

func (nobodys) KeyState(context.Context, signature.KeyID) (verdict.Key, error) {
	return verdict.Key{}, errors.New("no image has a record")
}

func (nobodys) PublicKey(context.Context, signature.KeyID, signature.KeyVersionID) (*rsa.PublicKey, error) {
	return nil, errors.New("no image has a record")
}

// new returns n invented images in n repositories.
func (a *admission) new(n int) []string {
	images := make([]string, n)
	for i := range images {
		made := a.made.Add(1)
		images[i] = fmt.Sprintf("iad.ocir.io/tenancy/repo%d@sha256:%064x", made, made)
	}
	return images
}

var anyKey = "ocid1.key.oc1.iad.b5r7bu4kaaeug." + strings.Repeat("a", 60)

// ask sends one request. It returns the number of its answered images, and the
// duration.
func (a *admission) ask(t *testing.T, images []string) (int, time.Duration) {
	began := time.Now()
	var request, response struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Request    struct {
			Keys []string `json:"keys"`
		} `json:"request"`
		Response struct {
			Items []struct {
				Error string `json:"error"`
			} `json:"items"`
			SystemError string `json:"systemError"`
		} `json:"response"`
	}
	request.APIVersion, request.Kind = "externaldata.gatekeeper.sh/v1beta1", "ProviderRequest"
	for _, image := range images {
		request.Request.Keys = append(request.Request.Keys, fmt.Sprintf(`{"image":%q,"keys":[%q]}`, image, anyKey))
	}
	body, err := json.Marshal(request)
	if err != nil {
		t.Error(err)
	}
	w := httptest.NewRecorder()
	a.handler.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, server.SignaturesPath, bytes.NewReader(body)))
	if err := json.Unmarshal(w.Body.Bytes(), &response); err != nil || w.Code != http.StatusOK {
		t.Errorf("%v: %d %s", err, w.Code, w.Body)
	}
	for _, item := range response.Response.Items {
		if item.Error != "" {
			t.Errorf("an item with an error: %s", item.Error)
		}
	}
	return len(response.Response.Items), time.Since(began)
}

// TestFloodsDelayNoOtherUser has users who invent images all the time. Other users
// sometimes start one Pod with a new image.
func TestFloodsDelayNoOtherUser(t *testing.T) {
	for name, test := range map[string]struct {
		requests, images int // concurrent requests of those users
		honest           int // new images in one honest request
		within           time.Duration
	}{
		"no flood":                     {0, 0, 1, 110 * time.Millisecond},
		"5 requests of 100 images":     {5, 100, 1, 300 * time.Millisecond},
		"20 requests of 100 images":    {20, 100, 1, 500 * time.Millisecond},
		"40 requests of 100 images":    {40, 100, 1, 700 * time.Millisecond},
		"40 requests, a Pod of 5":      {40, 100, 5, 1300 * time.Millisecond},
		"100 requests of a few images": {100, 3, 1, 1300 * time.Millisecond},
		"100 requests of one image":    {100, 1, 1, 1300 * time.Millisecond},
		"no flood, 100 images":         {0, 0, 100, 1300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAdmission()
				var stop atomic.Bool
				var others sync.WaitGroup
				for range test.requests {
					others.Go(func() {
						for !stop.Load() && !t.Failed() {
							a.ask(t, a.new(test.images))
						}
					})
					time.Sleep(7 * time.Millisecond)
				}
				time.Sleep(3 * time.Second)
				var took []time.Duration
				for range 10 {
					answered, d := a.ask(t, a.new(test.honest))
					if answered != test.honest {
						t.Errorf("%d of %d answered after %s", answered, test.honest, d)
					}
					took = append(took, d)
					time.Sleep(313 * time.Millisecond)
				}
				slices.Sort(took)
				if last := took[len(took)-1]; last > test.within {
					t.Errorf("the slowest answer took %s, want %s", last, test.within)
				}
				t.Logf("median %s, slowest %s", took[len(took)/2], took[len(took)-1])
				stop.Store(true)
				others.Wait()
				a.checker.Wait()
			})
		})
	}
}

// TestALargeRequestAmongSmallOnes sends a request of 250 images, more than its time
// allows. The request delays no other. Its results stay in the cache, so
// Gatekeeper's next request gets all of them.
func TestALargeRequestAmongSmallOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission()
		images := a.new(250)
		var others sync.WaitGroup
		for range 8 {
			time.Sleep(100 * time.Millisecond)
			others.Go(func() {
				if n, took := a.ask(t, a.new(1)); n != 1 || took > 200*time.Millisecond {
					t.Errorf("a small request: %d answered after %s", n, took)
				}
			})
			others.Go(func() { a.ask(t, images) }) // the same images: one look-up for all
		}
		others.Wait()
		a.checker.Wait()
		if calls := a.calls.Load(); calls > 2*(250+8) {
			t.Errorf("%d calls for 258 images", calls)
		}
		if n, took := a.ask(t, images); n != len(images) || took > 500*time.Millisecond {
			t.Errorf("asked again: %d of %d answered after %s", n, len(images), took)
		}
		a.checker.Wait()
	})
}
