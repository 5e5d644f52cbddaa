package keyring_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

const pss = "SHA_256_RSA_PKCS_PSS"

// recordOf returns a signature record in the form in which OCI Registry lists it.
func recordOf(r ocitest.Record) signature.Record {
	return signature.Record{
		ID: "ocid1.containerimagesignature.oc1.iad.x", State: "AVAILABLE", TimeCreated: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		KeyID: r.KeyID, KeyVersionID: r.KeyVersionID, Message: r.Message, Signature: r.Signature, Algorithm: r.Algorithm,
	}
}

// A signature record is valid only if its key proves it. A failed call is an error.
func TestVerify(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*signature.Record)
		key    func(*ocitest.Key)
		fault  *ocitest.Fault
		want   verdict.Reason
		detail string
		err    string
	}{
		"a genuine record": {want: verdict.Signed},
		"a record that is being deleted": {
			change: func(r *signature.Record) { r.State = "DELETING" }, want: verdict.Unsigned, detail: "the record is DELETING",
		},
		"a state that a terminal would obey": {
			change: func(r *signature.Record) { r.State = "\x1b[2J" + strings.Repeat("x", 99) }, want: verdict.Unsigned, detail: "the record is ?[2Jx",
		},
		"no key": {
			change: func(r *signature.Record) { r.KeyID = "" }, want: verdict.KeyUnusable, detail: "names no key",
		},
		"a key whose OCID leads to another host": {
			change: func(r *signature.Record) { r.KeyID = "ocid1.key.oc1.iad.evil.example.com/x.y" }, want: verdict.KeyUnusable, detail: "names no key",
		},
		"no version of the key": {
			change: func(r *signature.Record) { r.KeyVersionID = "1" }, want: verdict.KeyUnusable, detail: "names no version",
		},
		"a version that the key does not have": {
			change: func(r *signature.Record) { r.KeyVersionID = r.KeyVersionID[:len(r.KeyVersionID)-4] + "aaaa" },
			want:   verdict.KeyUnusable, detail: "is not one of key",
		},
		"a signature of other bytes": {
			change: func(r *signature.Record) { r.Signature = base64.StdEncoding.EncodeToString(make([]byte, 256)) }, want: verdict.BadSignature,
		},
		"another algorithm than it was made with": {
			change: func(r *signature.Record) { r.Algorithm = "SHA_512_RSA_PKCS_PSS" }, want: verdict.BadSignature,
		},
		"a disabled key": {key: func(k *ocitest.Key) { k.SetState("DISABLED") }, want: verdict.KeyUnusable, detail: "is DISABLED"},
		"a key to be deleted": {
			key: func(k *ocitest.Key) { k.SetState("PENDING_DELETION") }, want: verdict.KeyUnusable, detail: "is PENDING_DELETION",
		},
		"a deleted key": {key: func(k *ocitest.Key) { k.Delete() }, want: verdict.KeyUnusable, detail: "does not find key"},
		"a disabled version": {
			key: func(k *ocitest.Key) { k.SetVersionState(k.Version(), "DISABLED") }, want: verdict.KeyUnusable, detail: "version",
		},
		"a version that was current before the key was rotated": {key: func(k *ocitest.Key) { k.Rotate() }, want: verdict.Signed},
		"OCI Vault answers 500": {
			fault: &ocitest.Fault{Operation: "keymanagement.GetKey", Kind: ocitest.Status, Status: 500}, err: "500",
		},
		"OCI Vault throttles": {
			fault: &ocitest.Fault{Operation: "keymanagement.ListKeyVersions", Kind: ocitest.Status, Status: 429}, err: "429",
		},
		"the session has expired": {
			fault: &ocitest.Fault{Operation: "keymanagement.GetKey", Kind: ocitest.Status, Status: 401, Code: "NotAuthenticated"}, err: "NotAuthenticated",
		},
		"the public key cannot be read": {
			fault: &ocitest.Fault{Operation: "keymanagement.GetKeyVersion", Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound"}, err: "NotAuthorizedOrNotFound",
		},
		"half an answer": {
			fault: &ocitest.Fault{Operation: "keymanagement.GetKeyVersion", Kind: ocitest.Truncate}, err: "GetKeyVersion",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			key := newRSA(t, tenancy.NewVault("vault", ""), "image-key")
			img := tenancy.NewImage("web", "v1")
			rec := recordOf(img.Sign(key, pss))
			if tc.change != nil {
				tc.change(&rec)
			}
			if tc.key != nil {
				tc.key(key)
			}
			u := signIn(t, tenancy.Admin())
			if tc.fault != nil {
				tenancy.Fault(*tc.fault)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			got, _, err := keyring.NewRecordVerifier(u.cloud, nil, keyID(t, key.ID)).Verify(ctx, reference(t, img.Ref()), rec)
			switch {
			case tc.err != "":
				if err == nil || !strings.Contains(err.Error(), tc.err) || got.Signed() {
					t.Errorf("got %+v, %v, want an error with %q", got, err, tc.err)
				}
			case err != nil || got.Reason != tc.want || !strings.Contains(got.Detail, tc.detail):
				t.Errorf("got %s (%s), %v, want %s (%s)", got.Reason, got.Detail, err, tc.want, tc.detail)
			}
		})
	}
}

// A signature record of one image proves nothing about another.
func TestVerifyOtherImages(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	v := tenancy.NewVault("vault", "")
	key, curve := newRSA(t, v, "image-key"), newECDSA(t, v, "curve")
	img := tenancy.NewImage("web", "v1")
	other, copied := tenancy.NewImage("web", "v2"), img.CopyTo("other")
	u := signIn(t, tenancy.Admin())
	e := keyring.NewRecordVerifier(u.cloud, nil, keyID(t, key.ID), keyID(t, curve.ID))
	ofCurve := recordOf(img.Sign(key, pss))
	ofCurve.KeyID, ofCurve.KeyVersionID = curve.ID, curve.Version()
	for name, tc := range map[string]struct {
		about string
		rec   signature.Record
		want  verdict.Reason
	}{
		"its own image":                            {img.Ref(), recordOf(img.Sign(key, pss)), verdict.Signed},
		"another image of the repository":          {other.Ref(), recordOf(img.Sign(key, pss)), verdict.WrongImage},
		"the same digest in another repository":    {copied.Ref(), recordOf(img.Sign(key, pss)), verdict.WrongImage},
		"a record that names an ECDSA key instead": {img.Ref(), ofCurve, verdict.KeyUnusable},
	} {
		got, _, err := e.Verify(t.Context(), reference(t, tc.about), tc.rec)
		if err != nil || got.Reason != tc.want {
			t.Errorf("%s: got %s (%s), %v, want %s", name, got.Reason, got.Detail, err, tc.want)
		}
	}
}

// The uploader of a signature record chooses the key that it names. The command asks OCI
// only for keys that the user named, and for keys of the user's own vaults.
func TestVerifyAsksForKnownKeysOnly(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: strict()})
	own := newRSA(t, tenancy.NewVault("vault", ""), "image-key")
	attacker := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	trap := newRSA(t, attacker.NewVault("trap", ""), "image-key")
	attacker.Allow("Allow any-user to read keys in tenancy")
	u := signIn(t, tenancy.Admin())
	inventory := func() *keyring.Inventory { return keyring.NewInventory(t.Context(), u.session, u.cloud) }
	empty := signIn(t, tenancy.NewUser("stranger"))
	for name, tc := range map[string]struct {
		key   *ocitest.Key
		own   func() *keyring.Inventory
		named []signature.KeyID
		want  error
		as    string // the name in place of the key
	}{
		"a key of the user's vault": {key: own, own: inventory},
		"a vault of the same name in a region of others": {
			key: own, own: inventory, want: keyring.ErrOtherVault, as: strings.Replace(own.ID, ".iad.", ".phx.", 1),
		},
		"a named key": {key: own, named: []signature.KeyID{keyID(t, own.ID)}},
		"a key that is neither named nor in the inventory": {key: own, named: []signature.KeyID{keyID(t, trap.ID)}, want: keyring.ErrOtherVault},
		"a key of the attacker's vault":                    {key: trap, own: inventory, want: keyring.ErrOtherVault},
		"a vault that the user may not list": {key: own, want: keyring.ErrOtherVault, own: func() *keyring.Inventory {
			return keyring.NewInventory(t.Context(), empty.session, empty.cloud)
		}},
	} {
		img := tenancy.NewImage("web", "v1")
		before := cloud.Calls()["keymanagement.GetKey"]
		rec := recordOf(img.Sign(tc.key, pss))
		if tc.as != "" {
			rec.KeyID = tc.as
		}
		_, got, err := keyring.NewRecordVerifier(u.cloud, tc.own, tc.named...).Verify(t.Context(), reference(t, img.Ref()), rec)
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
		asked := cloud.Calls()["keymanagement.GetKey"] - before
		if (tc.want == nil) != (asked == 1) || (tc.want == nil) != (got.Name == "image-key") {
			t.Errorf("%s: OCI Vault was asked %d times, and the key is %q", name, asked, got.Name)
		}
	}
}

// A vault that OCI could not list may have the key, so the error is reported.
func TestVerifyTellsWhyVaultsAreUnknown(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := newRSA(t, tenancy.NewVault("vault", ""), "image-key")
	img := tenancy.NewImage("web", "v1")
	u := signIn(t, tenancy.Admin(), "--compartment", tenancy.ID)
	tenancy.Fault(ocitest.Fault{Operation: "keymanagement.ListVaults", Kind: ocitest.Status, Status: 400, Code: "InvalidParameter"})
	e := keyring.NewRecordVerifier(u.cloud, func() *keyring.Inventory { return keyring.NewInventory(t.Context(), u.session, u.cloud) })
	if _, _, err := e.Verify(t.Context(), reference(t, img.Ref()), recordOf(img.Sign(key, pss))); err == nil || !strings.Contains(err.Error(), "InvalidParameter") {
		t.Errorf("got %v, want the error of the list", err)
	}
}

// OCI Vault answers ten reads per second for a whole tenancy. The verifier reads few
// keys, each once, even if the records of an image name many. It also reads the keys
// that the user names.
func TestVerifyReadsFewKeys(t *testing.T) {
	const most = 20
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	v := tenancy.NewVault("vault", "")
	img := tenancy.NewImage("web", "v1")
	ref := reference(t, img.Ref())
	u := signIn(t, tenancy.Admin())
	named := newRSA(t, v, "named")
	e := keyring.NewRecordVerifier(u.cloud, func() *keyring.Inventory { return keyring.NewInventory(t.Context(), u.session, u.cloud) }, keyID(t, named.ID))
	tooMany := 0
	for i := range most + 5 {
		key := newRSA(t, v, fmt.Sprint("key-", i))
		for range 3 {
			_, _, err := e.Verify(t.Context(), ref, recordOf(img.Sign(key, pss)))
			switch {
			case errors.Is(err, keyring.ErrTooManyKeys):
				tooMany++
			case err != nil:
				t.Fatal(err)
			}
		}
	}
	if tooMany != 5*3 {
		t.Errorf("%d records of keys that were too many, want %d", tooMany, 5*3)
	}
	if got, _, err := e.Verify(t.Context(), ref, recordOf(img.Sign(named, pss))); err != nil || !got.Signed() {
		t.Errorf("the named key: %+v, %v", got, err)
	}
	if n := tenancy.Calls()["keymanagement.GetKey"]; n != most+1 {
		t.Errorf("%d keys were read, want %d", n, most+1)
	}
}

// Description and metadata of a message are shown only after its signature has been
// verified.
func TestSignatureOf(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	v := tenancy.NewVault("vault", "")
	key, own := newRSA(t, v, "image-key"), newRSA(t, v, "not-named")
	img := tenancy.NewImage("web", "v1")
	ref := reference(t, img.Ref())
	message := fmt.Sprintf(`{"description":"nightly","imageDigest":%q,"kmsKeyId":%q,"kmsKeyVersionId":%q,"metadata":"{\"ticket\":7}","repositoryName":"web","signingAlgorithm":%q}`,
		img.Digest, key.ID, key.Version(), pss)
	good := recordOf(img.Sign(key, pss))
	good.Message, good.Signature = key.SignMessage(pss, []byte(message))
	shown := keyring.Signature{
		ID: good.ID, Key: key.ID, KeyName: "image-key", KeyVersion: key.Version(), Algorithm: pss, SignedAt: "2026-01-02T03:04:05Z",
	}
	with := func(change func(*keyring.Signature)) keyring.Signature {
		s := shown
		change(&s)
		return s
	}
	u := signIn(t, tenancy.Admin())
	e := keyring.NewRecordVerifier(u.cloud, nil, keyID(t, key.ID))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx    context.Context
		change func(*signature.Record)
		want   keyring.Signature
		err    bool
	}{
		"a genuine record": {t.Context(), func(*signature.Record) {}, with(func(s *keyring.Signature) {
			s.Holds, s.Description, s.Metadata = "yes", "nightly", `{"ticket":7}`
		}), false},
		"a changed message": {t.Context(), func(r *signature.Record) {
			r.Message = base64.StdEncoding.EncodeToString([]byte(strings.Replace(message, "nightly", "release", 1)))
		}, with(func(s *keyring.Signature) { s.Holds, s.Reason = "no", "bad-signature" }), false},
		"a key that may not be looked up": {t.Context(), func(r *signature.Record) { r.KeyID, r.KeyVersionID = own.ID, own.Version() }, with(func(s *keyring.Signature) {
			s.Holds, s.Key, s.KeyName, s.KeyVersion, s.Detail = "unknown", own.ID, "", own.Version(), keyring.ErrOtherVault.Error()
		}), true},
		"a time that OCI does not give": {t.Context(), func(r *signature.Record) { r.TimeCreated = time.Time{} }, with(func(s *keyring.Signature) {
			s.Holds, s.Description, s.Metadata, s.SignedAt = "yes", "nightly", `{"ticket":7}`, ""
		}), false},
		"an interrupt": {cancelled, func(r *signature.Record) { r.KeyID, r.KeyVersionID = own.ID, own.Version() }, with(func(s *keyring.Signature) {
			s.Holds, s.Key, s.KeyName, s.KeyVersion, s.Detail = "unknown", own.ID, "", own.Version(), "interrupted"
		}), true},
	} {
		rec := good
		tc.change(&rec)
		got, err := keyring.SignatureOf(tc.ctx, e, ref, rec)
		if got.Holds == "no" {
			got.Detail = "" // of package verdict, whose tests it has
		}
		if tc.ctx.Err() != nil {
			got.Detail, _, _ = strings.Cut(got.Detail, ":") // two errors are possible then
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || (err != nil) != tc.err {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

// Verify and the policies ask the same question: is an image signed by one of these
// keys?
func TestCheck(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	v := tenancy.NewVault("vault", "")
	key, other := newRSA(t, v, "image-key"), newRSA(t, v, "other")
	signed, unsigned := tenancy.NewImage("web", "v1"), tenancy.NewImage("web", "v2")
	tenancy.Add(signed.Sign(key, pss))
	u := signIn(t, tenancy.Admin())
	decides := u.cloud.Checker()
	for name, tc := range map[string]struct {
		ref  string
		keys []*ocitest.Key
		want verdict.Reason
	}{
		"signed":                    {signed.Ref(), []*ocitest.Key{key}, verdict.Signed},
		"signed by one of two":      {signed.Ref(), []*ocitest.Key{other, key}, verdict.Signed},
		"signed by another key":     {signed.Ref(), []*ocitest.Key{other}, verdict.KeyNotAllowed},
		"unsigned":                  {unsigned.Ref(), []*ocitest.Key{key}, verdict.Unsigned},
		"no keys":                   {signed.Ref(), nil, verdict.KeyNotAllowed},
		"a tag, which pins nothing": {"iad.ocir.io/" + tenancy.Namespace + "/web:v1", []*ocitest.Key{key}, verdict.NoDigest},
	} {
		var keys []signature.KeyID
		for _, k := range tc.keys {
			keys = append(keys, keyID(t, k.ID))
		}
		got, err := keyring.Check(t.Context(), decides, reference(t, tc.ref), keys)
		if err != nil || got.Reason != tc.want {
			t.Errorf("%s: got %s (%s), %v, want %s", name, got.Reason, got.Detail, err, tc.want)
		}
	}
}
