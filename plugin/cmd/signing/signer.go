package signing

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// signer signs with one version of one key.
type signer struct {
	*connect.Cloud
	verifier  *keyring.RecordVerifier
	key       vault.MasterKey
	version   signature.KeyVersionID
	public    *rsa.PublicKey
	algorithm signature.Algorithm
}

// signer finds the key and the version to sign with. It rejects a key that cannot
// sign images.
func (o *signOptions) signer(ctx context.Context) (*signer, error) {
	c, err := o.ConnectImages(ctx)
	if err != nil {
		return nil, err
	}
	id, err := keyring.Find(ctx, o.Session, c, o.key)
	if err != nil {
		return nil, err
	}
	for _, ref := range o.refs {
		// Oracle's own tools look for the key in one region only, that of the image.
		if ref.Region() != id.Region() {
			return nil, cli.Usage(fmt.Sprintf("key %s is in region %s, and %s in %s", id.Short(), id.Region(), ref.Name(), ref.Region()),
				"sign with a key of the image's region: Oracle's own tools would not find this one when they verify")
		}
	}
	key, err := c.Vault.MasterKey(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := keyring.SigningKeyError(key); err != nil {
		return nil, err
	}
	version, err := o.pick(key)
	if err != nil {
		return nil, err
	}
	public, err := c.Vault.PublicKey(ctx, id, version)
	if err != nil {
		return nil, err
	}
	return &signer{Cloud: c, verifier: keyring.NewRecordVerifier(c, nil, id), key: key, version: version, public: public, algorithm: signature.Algorithm(o.algorithm)}, nil
}

// chooseKey sets the key to the user's default if --key is missing.
func (o *signOptions) chooseKey() error {
	if o.key != "" {
		return nil
	}
	id, in, err := o.DefaultKey()
	switch {
	case err != nil:
		return err
	case !id.IsZero():
		o.key = id.String()
		o.Remark("signing with key %s, the default %s", id.Short(), connect.InContext(in))
	case !o.Interactive():
		return cli.Usage("--key is missing, and no default is chosen", "kubectl oke-sign keys list shows which keys can sign images, and keys use KEY chooses one")
	}
	return nil
}

// pick returns the version to sign with. It rejects a version that is not listed or
// not enabled, because nobody would accept its signatures.
func (o *signOptions) pick(key vault.MasterKey) (signature.KeyVersionID, error) {
	id, hint := key.Current, "name an enabled version with --key-version, or rotate the key in OCI Vault"
	if !o.versionID.IsZero() {
		id, hint = o.versionID, "omit --key-version to sign with the key's current version"
	}
	for _, v := range key.Versions {
		switch {
		case v.ID != id:
		case v.State != verdict.Enabled:
			return signature.KeyVersionID{}, &cli.HintedError{What: fmt.Errorf("version %s of key %s is %s", id.Short(), key.Name, v.State), Hint: hint}
		default:
			return id, nil
		}
	}
	return signature.KeyVersionID{}, &cli.HintedError{What: fmt.Errorf("version %s is not one of key %s (%s)", id, key.Name, key.ID.Short()), Hint: hint}
}

// uploadTimeout is the time limit of an upload. An interrupt does not stop a started
// upload, because its outcome would be unknown.
const uploadTimeout = 15 * time.Second

// sign makes one signature, verifies it, and then uploads it.
func (s *signer) sign(ctx context.Context, j job) (signature.Record, error) {
	message := j.message.Encode()
	sig, err := s.Vault.Sign(ctx, s.key.ID, s.version, s.algorithm, message)
	if err != nil {
		return signature.Record{}, err
	}
	made := signature.Record{
		KeyID:        s.key.ID.String(),
		KeyVersionID: s.version.String(),
		Algorithm:    string(s.algorithm),
		Message:      base64.StdEncoding.EncodeToString(message),
		Signature:    base64.StdEncoding.EncodeToString(sig),
	}
	img, _ := j.ref.Pinned()
	if _, err := signature.Verify(made, s.public, img); err != nil {
		return signature.Record{}, fmt.Errorf("OCI Vault made a signature that does not hold, and nothing was uploaded: %w", err)
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), uploadTimeout)
	defer cancel()
	rec, err := s.Registry.Upload(ctx, registry.Upload{
		Reference: j.ref, Image: j.image, KeyID: s.key.ID, KeyVersion: s.version, Algorithm: s.algorithm,
		Message: message, Signature: sig,
	})
	if refused, ok := errors.AsType[*oci.Error](err); ok && refused.Status == http.StatusConflict {
		// Everybody with the right to push can upload a broken record that blocks a
		// genuine one.
		return signature.Record{}, &cli.HintedError{What: err, Hint: "kubectl oke-sign signatures IMAGE shows the record that blocks this one; delete it, or sign with another --algorithm"}
	}
	return rec, err
}
