// Package kubetest gives the tests of the cluster's parts an isolated machine, as the
// cluster has it, and an API server in it. It is for tests only.
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
	// services is the network of the Services' addresses.
	services = "127.96.0.0/16"

	inner = "OKE_SIGN_KUBETEST"
)

// Main runs the tests in new network, process and mount namespaces, and returns the
// exit code.
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

// Eventually waits until met returns no error. It waits for minutes, because a compiler
// may run at the same time.
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

// API starts etcd and kube-apiserver for the test and returns the administrator's
// client configuration. Both programs are in the folder KUBEBUILDER_ASSETS. Without
// this variable the test is skipped.
func API(t *testing.T) *rest.Config {
	t.Helper()
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Skip("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
	}
	env := &envtest.Environment{}
	env.ControlPlane.GetAPIServer().Configure().
		Set("service-cluster-ip-range", services).
		Set("advertise-address", "127.0.0.1").
		Set("endpoint-reconciler-type", "none").    // it rejects a loopback address
		Set("enable-bootstrap-token-auth", "true"). // gives tokens that belong to no service account
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
