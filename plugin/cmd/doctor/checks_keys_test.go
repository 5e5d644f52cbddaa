package doctor_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/plugin/cmd/doctor"
	"github.com/oke-sign/oke-sign/provider/vault"
)

func TestKeys(t *testing.T) {
	told(t, "keys", map[string]row{
		"no key is listed": {sound, nil},
		"a key that signs": {vaultKey(healthy), []string{
			"holds: image-key",
		}},
		"a key without a name": {vaultKey(func(k *doctor.Key) { k.Key.Name = "" }), []string{
			"holds: …v3t6jcf64a",
		}},
		"a name with an escape sequence": {vaultKey(func(k *doctor.Key) { k.Key.Name = "\x1b[2Jkey" }), []string{
			"holds: ?[2Jkey",
		}},
		"a disabled key": {vaultKey(func(k *doctor.Key) { k.Key.State = "DISABLED" }), []string{
			"warns: image-key is DISABLED: images that it signed are denied",
			"-> enable it in OCI Vault; or kubectl oke-sign policy remove-key " + soundKey,
		}},
		"a state of hostile shape": {vaultKey(func(k *doctor.Key) { k.Key.State = "\x1b[2J" + strings.Repeat("x", 500) }), []string{
			"warns: image-key is ?[2Jxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…: images that it signed are denied",
			"-> enable it in OCI Vault; or kubectl oke-sign policy remove-key " + soundKey,
		}},
		"a key of another algorithm": {vaultKey(func(k *doctor.Key) { k.Key.Algorithm = "AES" }), []string{
			"warns: image-key is an AES key, which cannot sign images",
			"-> kubectl oke-sign policy remove-key " + soundKey,
		}},
		"no enabled version": {vaultKey(func(k *doctor.Key) { k.Key.Versions[0].State = "DISABLED" }), []string{
			"warns: image-key has no enabled version: images that it signed are denied",
			"-> enable a version in OCI Vault",
		}},
		"no version": {vaultKey(func(k *doctor.Key) { k.Key.Versions = nil }), []string{
			"warns: image-key has no enabled version: images that it signed are denied",
			"-> enable a version in OCI Vault",
		}},
		"a key that is not found": {vaultKey(func(k *doctor.Key) { k.Key = vault.MasterKey{Missing: true} }), []string{
			"warns: …v3t6jcf64a does not exist, or you may not read it: images that it signed are denied unless the provider may read it",
			"-> kubectl oke-sign keys list -o wide shows all keys",
		}},
		"a key of another realm": {vaultKey(func(k *doctor.Key) { k.Key, k.Realm = vault.MasterKey{}, "oc2" }), []string{
			"warns: …v3t6jcf64a is in another realm than oc2, and no identity reaches both: images that it signed are denied",
			"-> kubectl oke-sign keys list -o wide shows all keys",
		}},
		"a key that could not be read": {vaultKey(func(k *doctor.Key) { k.Key, k.Err = vault.MasterKey{}, broken }), []string{
			"unknown: …v3t6jcf64a: Internal error occurred: etcd is gone",
			"-> kubectl oke-sign keys list -o wide shows all keys",
		}},
		"two keys": {all(vaultKey(healthy), vaultKey(func(k *doctor.Key) { k.Key.Name, k.Key.State = "second", "PENDING_DELETION" })), []string{
			"holds: image-key",
			"warns: second is PENDING_DELETION: images that it signed are denied",
			"-> enable it in OCI Vault; or kubectl oke-sign policy remove-key " + soundKey,
		}},
		"OCI cannot be asked": {unread("keys", errors.New("no configuration")), []string{
			"unknown: no configuration",
			"-> kubectl oke-sign keys list shows whether you reach OCI Vault",
		}},
	})
}

func TestClocks(t *testing.T) {
	told(t, "clocks", map[string]row{
		"the same time": {sound, []string{
			"holds: this machine and the API server agree",
		}},
		"two minutes behind": {behind(2 * time.Minute), []string{
			"holds: this machine and the API server agree",
		}},
		"more than two minutes behind": {behind(2*time.Minute + 2*time.Second), []string{
			"warns: this machine and the API server differ by 2m2s: OCI refuses requests that are 5 minutes off, and break-glass ends by the cluster's clock",
			"-> set the clocks: timedatectl",
		}},
		"three minutes ahead": {behind(-3 * time.Minute), []string{
			"warns: this machine and the API server differ by 3m0s: OCI refuses requests that are 5 minutes off, and break-glass ends by the cluster's clock",
			"-> set the clocks: timedatectl",
		}},
		"the time could not be read": {unread("clock", broken), []string{
			"unknown: Internal error occurred: etcd is gone",
			"-> try again; if it stays, fix the cause that the error names",
		}},
	})
}
