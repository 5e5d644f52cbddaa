package ocitest_test

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

func b64(s string) *string { return common.String(base64.StdEncoding.EncodeToString([]byte(s))) }

func TestSigningAlgorithms(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := newClients(t, tenancy.Admin())
	vault := tenancy.NewVault("v", "")
	keys := map[string]*ocitest.Key{
		"RSA": vault.NewKey("rsa", ocitest.RSA2048), "AES": vault.NewKey("aes", ocitest.AES256), "P-256": vault.NewKey("p256", ocitest.P256),
	}
	fits := map[string][]string{
		"RSA": {
			"SHA_224_RSA_PKCS_PSS", "SHA_256_RSA_PKCS_PSS", "SHA_384_RSA_PKCS_PSS", "SHA_512_RSA_PKCS_PSS",
			"SHA_224_RSA_PKCS1_V1_5", "SHA_256_RSA_PKCS1_V1_5", "SHA_384_RSA_PKCS1_V1_5", "SHA_512_RSA_PKCS1_V1_5",
		},
		"P-256": {"ECDSA_SHA_256", "ECDSA_SHA_384", "ECDSA_SHA_512"},
	}
	endpoint := c.crypto(vault)
	for name, key := range keys {
		for _, algorithm := range slices.Concat(fits["RSA"], fits["P-256"]) {
			t.Run(name+" "+algorithm, func(t *testing.T) {
				t.Parallel()
				signed, err := endpoint.Sign(ctx, keymanagement.SignRequest{SignDataDetails: keymanagement.SignDataDetails{
					KeyId: &key.ID, Message: b64("message"), SigningAlgorithm: keymanagement.SignDataDetailsSigningAlgorithmEnum(algorithm),
				}})
				if !slices.Contains(fits[name], algorithm) {
					if got := code(t, err); got != "InvalidParameter" {
						t.Errorf("code %q, want InvalidParameter", got)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if *signed.KeyVersionId != key.Version() {
					t.Errorf("signed by %s, want the current version %s", *signed.KeyVersionId, key.Version())
				}
				for message, want := range map[string]bool{"message": true, "another message": false} {
					verified, err := endpoint.Verify(ctx, keymanagement.VerifyRequest{VerifyDataDetails: keymanagement.VerifyDataDetails{
						KeyId: &key.ID, KeyVersionId: signed.KeyVersionId, Message: b64(message), Signature: signed.Signature,
						SigningAlgorithm: keymanagement.VerifyDataDetailsSigningAlgorithmEnum(algorithm),
					}})
					if err != nil {
						t.Fatal(err)
					}
					if *verified.IsSignatureValid != want {
						t.Errorf("%s: valid %t, want %t", message, *verified.IsSignatureValid, want)
					}
				}
			})
		}
	}
}

// TestSalt compares the length of the PSS salt with the switch, by Go's own
// verification.
func TestSalt(t *testing.T) {
	t.Parallel()
	for setting, length := range map[string]int{"hash": 32, "max": 256 - 32 - 2} {
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.Salt = setting })})
		vault := tenancy.NewVault("v", "")
		key := vault.NewKey("k", ocitest.RSA2048)
		res, err := newClients(t, tenancy.Admin()).crypto(vault).Sign(context.Background(), keymanagement.SignRequest{SignDataDetails: keymanagement.SignDataDetails{
			KeyId: &key.ID, Message: b64("message"), SigningAlgorithm: pss256,
		}})
		if err != nil {
			t.Fatal(err)
		}
		sig, err := base64.StdEncoding.DecodeString(*res.Signature)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte("message"))
		if err := rsa.VerifyPSS(key.Public().(*rsa.PublicKey), crypto.SHA256, sum[:], sig, &rsa.PSSOptions{SaltLength: length}); err != nil {
			t.Errorf("salt %s: want %d bytes: %v", setting, length, err)
		}
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	vault := tenancy.NewVault("v", "")
	key := vault.NewKey("k", ocitest.RSA2048)
	endpoint := newClients(t, tenancy.Admin()).crypto(vault)
	for name, tt := range map[string]struct {
		message *string
		kind    keymanagement.SignDataDetailsMessageTypeEnum
		want    string
	}{
		"4096 bytes":                 {b64(strings.Repeat("x", 4096)), "RAW", ""},
		"4097 bytes":                 {b64(strings.Repeat("x", 4097)), "RAW", "InvalidParameter"},
		"not base64":                 {common.String("?"), "RAW", "InvalidParameter"},
		"nothing":                    {common.String(""), "RAW", "MissingParameter"},
		"a digest":                   {b64(strings.Repeat("x", 32)), "DIGEST", ""},
		"a digest of the wrong size": {b64(strings.Repeat("x", 31)), "DIGEST", "InvalidParameter"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := endpoint.Sign(context.Background(), keymanagement.SignRequest{SignDataDetails: keymanagement.SignDataDetails{
				KeyId: &key.ID, Message: tt.message, MessageType: tt.kind, SigningAlgorithm: pss256,
			}})
			if got := code(t, err); got != tt.want {
				t.Errorf("code %q, want %q", got, tt.want)
			}
		})
	}
}

// TestUnusableKeys checks what a key that is not ENABLED can still do, under each
// setting of the two switches.
func TestUnusableKeys(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	codes := map[string]string{"404": "NotAuthorizedOrNotFound", "409": "IncorrectState", "shown": ""}
	for _, crypto := range []string{"404", "409"} {
		for _, version := range []string{"404", "409", "shown"} {
			t.Run(crypto+" "+version, func(t *testing.T) {
				t.Parallel()
				tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) {
					s.DisabledCrypto, s.DisabledVersion, s.EmptyPages = crypto, version, false
				})})
				vault := tenancy.NewVault("v", "")
				key := vault.NewKey("k", ocitest.RSA2048)
				c := newClients(t, tenancy.Admin())
				management, endpoint := c.management(vault), c.crypto(vault)
				if _, err := management.DisableKey(ctx, keymanagement.DisableKeyRequest{KeyId: &key.ID}); err != nil {
					t.Fatal(err)
				}
				_, err := endpoint.Sign(ctx, keymanagement.SignRequest{SignDataDetails: keymanagement.SignDataDetails{KeyId: &key.ID, Message: b64("x"), SigningAlgorithm: pss256}})
				if got := code(t, err); got != codes[crypto] {
					t.Errorf("Sign: code %q, want %q", got, codes[crypto])
				}
				_, err = management.GetKeyVersion(ctx, keymanagement.GetKeyVersionRequest{KeyId: &key.ID, KeyVersionId: common.String(key.Version())})
				if got := code(t, err); got != codes[version] {
					t.Errorf("GetKeyVersion: code %q, want %q", got, codes[version])
				}
				got, err := management.GetKey(ctx, keymanagement.GetKeyRequest{KeyId: &key.ID})
				if err != nil {
					t.Fatal(err)
				}
				if got.LifecycleState != keymanagement.KeyLifecycleStateDisabled {
					t.Errorf("state %s, want DISABLED", got.LifecycleState)
				}
				_, err = management.DisableKey(ctx, keymanagement.DisableKeyRequest{KeyId: &key.ID})
				if got := code(t, err); got != "IncorrectState" {
					t.Errorf("disabled twice: code %q, want IncorrectState", got)
				}
				if _, err := management.EnableKey(ctx, keymanagement.EnableKeyRequest{KeyId: &key.ID}); err != nil {
					t.Fatal(err)
				}
				if _, err := management.GetKeyVersion(ctx, keymanagement.GetKeyVersionRequest{KeyId: &key.ID, KeyVersionId: common.String(key.Version())}); err != nil {
					t.Errorf("enabled again: %v", err)
				}
			})
		}
	}
}

func TestKeysAndVersions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.EmptyPages, s.DisabledVersion = false, "shown" })})
	c := newClients(t, tenancy.Admin())
	made, err := c.vaults.CreateVault(ctx, keymanagement.CreateVaultRequest{CreateVaultDetails: keymanagement.CreateVaultDetails{
		CompartmentId: &tenancy.ID, DisplayName: common.String("made"), VaultType: keymanagement.CreateVaultDetailsVaultTypeDefault,
	}})
	if err != nil {
		t.Fatal(err)
	}
	management, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(c.config, *made.ManagementEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	create := func(name, algorithm string, length int) (keymanagement.Key, error) {
		res, err := management.CreateKey(ctx, keymanagement.CreateKeyRequest{CreateKeyDetails: keymanagement.CreateKeyDetails{
			CompartmentId: &tenancy.ID, DisplayName: &name,
			KeyShape: &keymanagement.KeyShape{Algorithm: keymanagement.KeyShapeAlgorithmEnum(algorithm), Length: &length},
		}})
		return res.Key, err
	}
	key, err := create("rsa", "RSA", 256)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create("aes", "AES", 32); err != nil {
		t.Fatal(err)
	}
	ec, err := create("ec", "ECDSA", 48)
	if err != nil {
		t.Fatal(err)
	}
	if ec.KeyShape.CurveId != keymanagement.KeyShapeCurveIdP384 {
		t.Errorf("curve %s, want NIST_P384", ec.KeyShape.CurveId)
	}
	_, err = create("odd", "RSA", 100)
	if got := code(t, err); got != "InvalidParameter" {
		t.Errorf("an RSA key of 800 bits: code %q, want InvalidParameter", got)
	}
	listed, err := management.ListKeys(ctx, keymanagement.ListKeysRequest{CompartmentId: &tenancy.ID, SortBy: keymanagement.ListKeysSortByDisplayname})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, k := range listed.Items {
		names = append(names, *k.DisplayName+" "+string(k.Algorithm))
	}
	if diff := cmp.Diff([]string{"aes AES", "ec ECDSA", "rsa RSA"}, names); diff != "" {
		t.Error(diff)
	}
	first := *key.CurrentKeyVersion
	rotated, err := management.CreateKeyVersion(ctx, keymanagement.CreateKeyVersionRequest{KeyId: key.Id})
	if err != nil {
		t.Fatal(err)
	}
	now, err := management.GetKey(ctx, keymanagement.GetKeyRequest{KeyId: key.Id})
	if err != nil {
		t.Fatal(err)
	}
	if *now.CurrentKeyVersion != *rotated.Id || *rotated.Id == first {
		t.Errorf("current version %s after rotation to %s", *now.CurrentKeyVersion, *rotated.Id)
	}
	_, err = management.ScheduleKeyVersionDeletion(ctx, keymanagement.ScheduleKeyVersionDeletionRequest{KeyId: key.Id, KeyVersionId: rotated.Id})
	if got := code(t, err); got != "IncorrectState" {
		t.Errorf("deleting the current version: code %q, want IncorrectState", got)
	}
	if _, err := management.ScheduleKeyVersionDeletion(ctx, keymanagement.ScheduleKeyVersionDeletionRequest{KeyId: key.Id, KeyVersionId: &first}); err != nil {
		t.Fatal(err)
	}
	versions, err := management.ListKeyVersions(ctx, keymanagement.ListKeyVersionsRequest{KeyId: key.Id, SortBy: "TIMECREATED", SortOrder: "ASC"})
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, v := range versions.Items {
		states = append(states, string(v.LifecycleState))
	}
	if diff := cmp.Diff([]string{"PENDING_DELETION", "ENABLED"}, states); diff != "" {
		t.Error(diff)
	}
	soon := common.SDKTime{Time: time.Now().Add(time.Hour)}
	_, err = management.ScheduleKeyDeletion(ctx, keymanagement.ScheduleKeyDeletionRequest{
		KeyId: key.Id, ScheduleKeyDeletionDetails: keymanagement.ScheduleKeyDeletionDetails{TimeOfDeletion: &soon},
	})
	if got := code(t, err); got != "InvalidParameter" {
		t.Errorf("deletion within the hour: code %q, want InvalidParameter", got)
	}
	if _, err := management.ScheduleKeyDeletion(ctx, keymanagement.ScheduleKeyDeletionRequest{KeyId: key.Id}); err != nil {
		t.Fatal(err)
	}
	got, err := management.CancelKeyDeletion(ctx, keymanagement.CancelKeyDeletionRequest{KeyId: key.Id})
	if err != nil {
		t.Fatal(err)
	}
	if got.LifecycleState != keymanagement.KeyLifecycleStateDisabled {
		t.Errorf("state %s after a cancelled deletion, want DISABLED", got.LifecycleState)
	}
}

// TestKeysStayInTheirVault requests another vault's key from a vault's endpoint.
func TestKeysStayInTheirVault(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("one", "").NewKey("k", ocitest.RSA2048)
	management := newClients(t, tenancy.Admin()).management(tenancy.NewVault("two", ""))
	_, err := management.GetKey(context.Background(), keymanagement.GetKeyRequest{KeyId: &key.ID})
	if got := code(t, err); got != "NotAuthorizedOrNotFound" {
		t.Errorf("code %q, want NotAuthorizedOrNotFound", got)
	}
}

// TestDotDot shows the effect of a key version with ".." on a client that puts it
// into a URL. The SDK does not escape path parameters.
func TestDotDot(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]int{"normalised": 200, "refused": 404} {
		for _, climb := range []string{"/../../", "%2F..%2F..%2F"} {
			t.Run(setting+" "+climb, func(t *testing.T) {
				t.Parallel()
				tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.DotDot = setting })})
				vault := tenancy.NewVault("v", "")
				key, other := vault.NewKey("k", ocitest.RSA2048), vault.NewKey("o", ocitest.RSA2048)
				c := newClients(t, tenancy.Admin())
				url := *c.vault(vault).ManagementEndpoint + "/20180608/keys/" + key.ID + "/keyVersions" + strings.TrimSuffix(climb, "%2F") + other.ID
				if strings.HasSuffix(climb, "%2F") {
					url = *c.vault(vault).ManagementEndpoint + "/20180608/keys/" + key.ID + "/keyVersions/x" + strings.Repeat("%2F..", 3) + "%2F" + other.ID
				}
				status, code, why := send(t, signed(t, c.config, newRequest(t, http.MethodGet, url, "")))
				if status != want {
					t.Errorf("status %d %s (%s), want %d", status, code, why, want)
				}
			})
		}
	}
}

func TestSettling(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	var now = time.Now()
	own := ocitest.Start(t, ocitest.Config{Settle: time.Minute, Now: func() time.Time { return now }, VaultReads: 3})
	tenancy := own.NewTenancy(t, ocitest.TenancyConfig{})
	config := common.CustomProfileConfigProvider(tenancy.Admin().ConfigFile(), ocitest.ProfileDefault)
	vaults, err := keymanagement.NewKmsVaultClientWithConfigurationProvider(config)
	if err != nil {
		t.Fatal(err)
	}
	vaults.HTTPClient = clientFor(t, own)
	vault, err := vaults.CreateVault(ctx, keymanagement.CreateVaultRequest{CreateVaultDetails: keymanagement.CreateVaultDetails{
		CompartmentId: &tenancy.ID, DisplayName: common.String("v"), VaultType: "DEFAULT",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if vault.LifecycleState != "CREATING" {
		t.Errorf("state %s, want CREATING", vault.LifecycleState)
	}
	management, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(config, *vault.ManagementEndpoint)
	if err != nil {
		t.Fatal(err)
	}
	management.HTTPClient = clientFor(t, own)
	shape := keymanagement.CreateKeyRequest{CreateKeyDetails: keymanagement.CreateKeyDetails{
		CompartmentId: &tenancy.ID, DisplayName: common.String("k"), KeyShape: &keymanagement.KeyShape{Algorithm: "RSA", Length: common.Int(256)},
	}}
	_, err = management.CreateKey(ctx, shape)
	if got := code(t, err); got != "IncorrectState" {
		t.Errorf("a key in a vault in state CREATING: code %q, want IncorrectState", got)
	}
	now = now.Add(time.Minute)
	shape.OpcRetryToken = nil
	key, err := management.CreateKey(ctx, shape)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CREATING", "ENABLED"} {
		got, err := management.GetKey(ctx, keymanagement.GetKeyRequest{KeyId: key.Id})
		if err != nil {
			t.Fatal(err)
		}
		if string(got.LifecycleState) != want {
			t.Errorf("state %s, want %s", got.LifecycleState, want)
		}
		now = now.Add(time.Minute)
	}
	// The cloud allows three reads a second, so it rejects the fourth.
	var codes []string
	for range 4 {
		_, err := management.GetKey(ctx, keymanagement.GetKeyRequest{KeyId: key.Id})
		codes = append(codes, code(t, err))
	}
	if diff := cmp.Diff([]string{"", "", "", "TooManyRequests"}, codes); diff != "" {
		t.Error(diff)
	}
}
