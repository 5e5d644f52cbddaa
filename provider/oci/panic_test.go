package oci_test

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// explosive is an answer that panics when it is decoded.
type explosive struct{}

func (*explosive) UnmarshalJSON([]byte) error { panic("a secret of the answer") }

// TestAPanicIsOneCallsError makes the goroutine of a call panic. That call returns
// an error, and the others return answers.
func TestAPanicIsOneCallsError(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	var observed atomic.Bool
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{
		ConfigFile: tenancy.Admin().ConfigFile(),
		Client: oci.Config{Observe: func(oci.Attempt) {
			if observed.Load() {
				panic("a secret of an observer")
			}
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(answer any) error {
		_, err := who.Do(t.Context(), oci.Call{
			Service: "artifacts", Operation: "GetContainerConfiguration", Method: http.MethodGet,
			Host: host, Path: "/20160918/container/configuration",
		}, artifacts.GetContainerConfigurationRequest{CompartmentId: common.String(tenancy.ID)}, answer)
		return err
	}
	isPanic := func(err error) {
		t.Helper()
		p, ok := errors.AsType[*contain.PanicError](err)
		if !ok || strings.Contains(err.Error(), "secret") || !strings.Contains(string(p.Stack), "panic_test.go") {
			t.Errorf("got %v", err)
		}
	}
	var fine artifacts.ContainerConfiguration
	isPanic(ask(new(explosive)))
	if err := ask(&fine); err != nil {
		t.Error(err)
	}
	observed.Store(true)
	isPanic(ask(&fine))
	observed.Store(false)
	if err := ask(&fine); err != nil {
		t.Error(err)
	}
	if calls := tenancy.Calls()["artifacts.GetContainerConfiguration"]; calls != 4 {
		t.Errorf("%d requests, want one of each call", calls)
	}
}
