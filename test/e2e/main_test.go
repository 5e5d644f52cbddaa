package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/oke-sign/oke-sign/test/ociclient"
)

// The environment that all tests share, set by TestMain.
var (
	environ []string // for users' programs
	cloud   *ociclient.Cloud
	vault   ociclient.Vault
	// The seed's keys. Tests sign with them and do not change them.
	imageKey, releaseKey ociclient.Key
)

func TestMain(m *testing.M) {
	if err := enter(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "e2e: %v\n", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// enter connects to the cluster around the tests, and to OCI.
func enter(ctx context.Context) error {
	dir := os.Getenv("OKE_SIGN_CLUSTER")
	if dir == "" {
		return errors.New("these tests need a cluster around them: make e2e")
	}
	oci := filepath.Join(dir, "oci")
	var err error
	if environ, err = ociclient.Environ(os.Environ(), oci); err != nil {
		return err
	}
	if cloud, err = ociclient.Connect("http://127.0.0.1:8040", oci); err != nil {
		return err
	}
	list := run(ctx, "", "kubectl", "oke-sign", "keys", "list", "-o", "json")
	if list.err != nil {
		return list.err
	}
	var keys []struct{ ID, Name, VaultID string }
	if err := json.Unmarshal([]byte(list.stdout), &keys); err != nil {
		return fmt.Errorf("%w: %s", err, list.stdout)
	}
	for _, k := range keys {
		if vault, err = cloud.Vault(ctx, k.VaultID); err != nil {
			return err
		}
		switch k.Name {
		case "image-key":
			imageKey, err = cloud.Key(ctx, vault, k.ID)
		case "release-key":
			releaseKey, err = cloud.Key(ctx, vault, k.ID)
		}
		if err != nil {
			return err
		}
	}
	if imageKey.ID == "" || releaseKey.ID == "" {
		return fmt.Errorf("the emulator lacks keys of its demo seed: %s", list.stdout)
	}
	return nil
}
