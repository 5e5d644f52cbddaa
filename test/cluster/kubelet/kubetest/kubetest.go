// Package kubetest gives a test of the cluster's parts a machine of its own, as
// the cluster itself has one, and an API server in it. It is for tests only.
package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/oke-sign/oke-sign/test/cluster/namespace"
)

const (
	// services is the network that the API server takes addresses from.
	services = "127.96.0.0/16"

	inner = "OKE_SIGN_KUBETEST"
)

// Main runs the tests in network, process and mount namespaces of their own and
// returns the exit code.
func Main(m *testing.M) int {
	if os.Getenv(inner) != "" {
		if err := namespace.Settle(); err != nil {
			fmt.Fprintf(os.Stderr, "namespaces: %v\n", err)
			return 1
		}
		return m.Run()
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inner+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = namespace.New()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(1, exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "namespaces: %v\n", err)
		return 1
	}
	return 0
}

// Eventually waits, for minutes because a compiler may be running beside it, until
// met returns no error.
func Eventually(t *testing.T, met func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		err := met()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("still not: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// API starts etcd and kube-apiserver for the test and returns how an administrator
// talks to it. The folder of the two is in KUBEBUILDER_ASSETS; without it the test
// is skipped.
func API(t *testing.T) *rest.Config {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
	}
	env := &envtest.Environment{}
	env.ControlPlane.GetAPIServer().Configure().
		Set("service-cluster-ip-range", services).
		Set("advertise-address", "127.0.0.1").
		Set("endpoint-reconciler-type", "none").    // which would not have such an address
		Set("enable-bootstrap-token-auth", "true"). // for somebody with a token who is no service account
		Disable("disable-admission-plugins")        // Pods get their ServiceAccount
	config, err := env.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := env.Stop(); err != nil {
			t.Error(err)
		}
	})
	return config
}
