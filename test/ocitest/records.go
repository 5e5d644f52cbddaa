package ocitest

import (
	"fmt"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// Record is a signature record that the emulator stores without OCI's checks.
type Record struct {
	// ImageID or Image (a pinned reference) names the image.
	ImageID string `json:"imageId,omitempty"`
	Image   string `json:"image,omitempty"`
	// CopyOf is the OCID of a signature record from which empty fields are copied.
	CopyOf string `json:"copyOf,omitempty"`

	KeyID        string    `json:"kmsKeyId,omitempty"`
	KeyVersionID string    `json:"kmsKeyVersionId,omitempty"`
	Message      string    `json:"message,omitempty"`   // base64, or whatever you like
	Signature    string    `json:"signature,omitempty"` // as above
	Algorithm    string    `json:"signingAlgorithm,omitempty"`
	State        string    `json:"lifecycleState,omitempty"` // AVAILABLE if empty
	CreatedBy    string    `json:"createdBy,omitempty"`
	DisplayName  string    `json:"displayName,omitempty"`
	TimeCreated  time.Time `json:"timeCreated,omitzero"`
}

// AddRecord attaches a signature record to an image without any check, and returns
// its OCID.
func (c *Cloud) AddRecord(r Record) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	img, err := c.world.imageOf(r)
	if err != nil {
		return "", fmt.Errorf("adding a record: %w", err)
	}
	s := &signatureRecord{
		born:  born{Created: r.TimeCreated},
		Image: img.ID, KeyID: r.KeyID, KeyVersionID: r.KeyVersionID, Message: r.Message, Signature: r.Signature,
		Algorithm: r.Algorithm, State: r.State, CreatedBy: r.CreatedBy, DisplayName: r.DisplayName,
	}
	from := &signatureRecord{CreatedBy: img.CreatedBy, State: "AVAILABLE"}
	if r.CopyOf != "" {
		if from = c.world.Signatures[r.CopyOf]; from == nil {
			return "", fmt.Errorf("adding a record: no signature %s", r.CopyOf)
		}
	}
	for _, f := range []struct{ to, from *string }{
		{&s.KeyID, &from.KeyID}, {&s.KeyVersionID, &from.KeyVersionID}, {&s.Message, &from.Message},
		{&s.Signature, &from.Signature}, {&s.Algorithm, &from.Algorithm}, {&s.CreatedBy, &from.CreatedBy}, {&s.State, &from.State},
	} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	c.world.keepSignature(s, c.switches(c.world, c.world.Repositories[img.Repository].Compartment))
	return s.ID, nil
}

func (w *world) imageOf(r Record) (*containerImage, error) {
	if r.Image == "" {
		img, ok := w.Images[r.ImageID]
		if !ok {
			return nil, fmt.Errorf("no image %q", r.ImageID)
		}
		return img, nil
	}
	ref, err := image.Parse(r.Image)
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", r.Image, err)
	}
	t := w.tenancyByNamespace(ref.Namespace(), ref.Region().Realm())
	if t == nil {
		return nil, fmt.Errorf("no namespace %s", ref.Namespace())
	}
	repo := w.repositoryByName(ref.Region().ID(), t.ID, ref.Repository())
	if repo == nil {
		return nil, fmt.Errorf("no repository %s", ref.Repository())
	}
	img := w.imageBy(repo.ID, ref.Tag(), ref.Digest())
	if img == nil {
		return nil, fmt.Errorf("no image %s", r.Image)
	}
	return img, nil
}
