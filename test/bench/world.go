package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

const keyVersion = "ocid1.keyversion.oc1.iad.b5r7bu4kaaeug.benchversion"

// world is a registry and a vault in memory. One real key has signed all images.
type world struct {
	key     signature.KeyID
	public  *rsa.PublicKey
	records map[string]signature.Record // by repository and digest, which a signature binds
	images  []string
	names   []string // without registry and namespace
}

func newWorld(images int) (*world, error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	w := &world{records: make(map[string]signature.Record, images)}
	if w.public, err = signature.ParsePublicKey(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))); err != nil {
		return nil, err
	}
	if w.key, err = signature.ParseKeyID("ocid1.key.oc1.iad.b5r7bu4kaaeug." + strings.Repeat("k", 60)); err != nil {
		return nil, err
	}
	for n := range images {
		ref, err := image.Parse(fmt.Sprintf("iad.ocir.io/idwpqivumvev/bench/app-%d@sha256:%064x", n, n))
		if err != nil {
			return nil, err
		}
		rec, err := w.sign(private, ref)
		if err != nil {
			return nil, fmt.Errorf("signing %s: %w", ref, err)
		}
		w.records[nameOf(ref)] = rec
		w.images, w.names = append(w.images, ref.String()), append(w.names, nameOf(ref))
	}
	return w, nil
}

func nameOf(ref image.Reference) string { return ref.Repository() + "@" + ref.Digest() }

func (w *world) sign(private *rsa.PrivateKey, ref image.Reference) (signature.Record, error) {
	message := signature.Message{
		ImageDigest: ref.Digest(), KeyID: w.key.String(), KeyVersionID: keyVersion,
		RepositoryName: ref.Repository(), Region: ref.Region().ID(), Algorithm: string(signature.SHA256),
	}.Encode()
	sum := sha256.Sum256(message)
	sig, err := rsa.SignPSS(rand.Reader, private, crypto.SHA256, sum[:], nil)
	if err != nil {
		return signature.Record{}, err
	}
	return signature.Record{
		ID: "ocid1.containerimagesignature.oc1.iad.0.idwpqivumvev." + strings.Repeat("s", 60), KeyID: w.key.String(), KeyVersionID: keyVersion,
		Algorithm: string(signature.SHA256), State: signature.StateAvailable, TimeCreated: time.Unix(1640070178, 0),
		Message: base64.StdEncoding.EncodeToString(message), Signature: base64.StdEncoding.EncodeToString(sig),
	}, nil
}

// checker returns the provider's Checker over this world.
func (w *world) checker() *checker.Checker {
	return checker.New(checker.Config{Images: w, Keys: w})
}

// Covers, Records, Bulk and Exists make a world the registry of a Checker.
func (w *world) Covers(image.Region, string) bool { return true }

func (w *world) Records(_ context.Context, ref image.Reference) ([]signature.Record, bool, error) {
	rec, ok := w.records[nameOf(ref)]
	if !ok {
		return nil, false, nil
	}
	// An answer shares no memory with other objects.
	for _, s := range []*string{&rec.ID, &rec.KeyID, &rec.KeyVersionID, &rec.Algorithm, &rec.State} {
		*s = strings.Clone(*s)
	}
	return []signature.Record{rec}, false, nil
}

func (w *world) Bulk(context.Context, image.Reference, []signature.KeyID) ([]signature.Record, time.Time) {
	return nil, time.Time{}
}

func (w *world) Exists(_ context.Context, ref image.Reference) (bool, error) {
	_, ok := w.records[nameOf(ref)]
	return ok, nil
}

// KeyState and PublicKey make a world the vault of a Checker.
func (w *world) KeyState(_ context.Context, id signature.KeyID) (verdict.Key, error) {
	version, err := signature.ParseKeyVersionID(keyVersion)
	return verdict.Key{ID: id, State: verdict.Enabled, Algorithm: "RSA",
		Versions: map[signature.KeyVersionID]string{version: verdict.Enabled}}, err
}

func (w *world) PublicKey(context.Context, signature.KeyID, signature.KeyVersionID) (*rsa.PublicKey, error) {
	return w.public, nil
}

// request returns the body of a request for keysPerRequest images, from the nth on.
func (w *world) request(n int) string {
	keys := make([]string, keysPerRequest)
	for i := range keys {
		keys[i] = question(w.images[(n+i)%len(w.images)], w.key.String())
	}
	return envelope(keys)
}

func question(image string, keys ...string) string {
	slices.Sort(keys)
	return encode(map[string]any{"image": image, "keys": keys})
}

func envelope(keys []string) string {
	return encode(map[string]any{
		"apiVersion": "externaldata.gatekeeper.sh/v1beta1",
		"kind":       "ProviderRequest",
		"request":    map[string]any{"keys": keys},
	})
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps and slices of strings always encode
	}
	return string(b)
}
