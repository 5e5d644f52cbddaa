package ocitest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/oke-sign/oke-sign/provider/image"
)

// tags are the tags of a resource. Every resource of OCI has them.
type tags struct {
	Freeform map[string]string         `json:"freeformTags"`
	Defined  map[string]map[string]any `json:"definedTags"`
	System   map[string]map[string]any `json:"systemTags"`
}

// full replaces missing tags with empty ones, because the fields are mandatory.
func (t tags) full() tags {
	if t.Freeform == nil {
		t.Freeform = map[string]string{}
	}
	if t.Defined == nil {
		t.Defined = map[string]map[string]any{}
	}
	if t.System == nil {
		t.System = map[string]map[string]any{}
	}
	return t
}

// created adds the tags of a new resource, which say who made it, and when.
func (c *call) created(t tags) tags {
	by := "oracleidentitycloudservice/" + c.who.Name
	if c.who.Principal != nil {
		by = c.who.ID
	}
	t.Defined = maps.Clone(t.full().Defined)
	t.Defined["Oracle-Tags"] = map[string]any{"CreatedBy": by, "CreatedOn": stamp(c.now())}
	return t
}

// signatureRecord is a signature as OCI Registry stores it. Nothing in it need be
// true.
type signatureRecord struct {
	born
	Image        string `json:"image"`
	KeyID        string `json:"kmsKeyId"`
	KeyVersionID string `json:"kmsKeyVersionId"`
	Message      string `json:"message"`
	Signature    string `json:"signature"`
	Algorithm    string `json:"signingAlgorithm"`
	CreatedBy    string `json:"createdBy"`
	State        string `json:"lifecycleState"`
	DisplayName  string `json:"displayName"`
	Tags         tags   `json:"tags"`
}

func artifactsRoutes() []route {
	const s = "artifacts"
	return []route{
		to(s, "POST", "/20160918/container/imageSignatures", "artifacts.CreateContainerImageSignature", (*call).createSignature).creating(),
		to(s, "GET", "/20160918/container/imageSignatures", "artifacts.ListContainerImageSignatures", (*call).listSignatures),
		to(s, "GET", "/20160918/container/imageSignatures/{id}", "artifacts.GetContainerImageSignature", (*call).getSignature),
		to(s, "PUT", "/20160918/container/imageSignatures/{id}", "artifacts.UpdateContainerImageSignature", (*call).updateSignature),
		to(s, "DELETE", "/20160918/container/imageSignatures/{id}", "artifacts.DeleteContainerImageSignature", (*call).deleteSignature),
		to(s, "GET", "/20160918/container/configuration", "artifacts.GetContainerConfiguration", (*call).getConfiguration),
		to(s, "PUT", "/20160918/container/configuration", "artifacts.UpdateContainerConfiguration", (*call).updateConfiguration),
	}
}

// signatureAlgorithms returns the algorithms that the registry knows.
func signatureAlgorithms() []string {
	return []string{"SHA_224_RSA_PKCS_PSS", "SHA_256_RSA_PKCS_PSS", "SHA_384_RSA_PKCS_PSS", "SHA_512_RSA_PKCS_PSS"}
}

func last(n int, s string) string { return s[max(0, len(s)-n):] }

type signatureView struct {
	CompartmentID string `json:"compartmentId"`
	CreatedBy     string `json:"createdBy,omitempty"` // not in a list
	DisplayName   string `json:"displayName"`
	ID            string `json:"id"`
	ImageID       string `json:"imageId"`
	KeyID         string `json:"kmsKeyId"`
	KeyVersionID  string `json:"kmsKeyVersionId"`
	Message       string `json:"message"`
	Signature     string `json:"signature"`
	Algorithm     string `json:"signingAlgorithm"`
	TimeCreated   string `json:"timeCreated"`
	State         string `json:"lifecycleState"`
	tags
}

func (c *call) viewSignature(s *signatureRecord, summary bool) signatureView {
	v := signatureView{
		CompartmentID: c.Repositories[c.Images[s.Image].Repository].Compartment,
		CreatedBy:     s.CreatedBy,
		DisplayName:   s.DisplayName,
		ID:            s.ID,
		ImageID:       s.Image,
		KeyID:         s.KeyID,
		KeyVersionID:  s.KeyVersionID,
		Message:       s.Message,
		Signature:     s.Signature,
		Algorithm:     s.Algorithm,
		TimeCreated:   stamp(s.Created),
		State:         s.State,
		tags:          s.Tags.full(),
	}
	if summary {
		v.CreatedBy = ""
	}
	return v
}

func (c *call) createSignature() (any, error) {
	var in struct {
		CompartmentID, ImageID, KmsKeyID, KmsKeyVersionID, Message, Signature, SigningAlgorithm string
		FreeformTags                                                                            map[string]string
		DefinedTags                                                                             map[string]map[string]any
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := required("compartmentId", in.CompartmentID, "imageId", in.ImageID, "kmsKeyId", in.KmsKeyID,
		"kmsKeyVersionId", in.KmsKeyVersionID, "message", in.Message, "signature", in.Signature,
		"signingAlgorithm", in.SigningAlgorithm); err != nil {
		return nil, err
	}
	if err := oneOf("signingAlgorithm", in.SigningAlgorithm, signatureAlgorithms()...); err != nil {
		return nil, err
	}
	img, repo, err := c.findImage(in.ImageID, "REPOSITORY_UPDATE")
	if err != nil {
		return nil, err
	}
	if img.State != "AVAILABLE" {
		return nil, conflict("IncorrectState", "The image is %s.", img.State)
	}
	if c.sw.UploadCompartment && in.CompartmentID != repo.Compartment {
		return nil, notFound("the image is in compartment " + repo.Compartment)
	}
	s := &signatureRecord{
		Image: img.ID, KeyID: in.KmsKeyID, KeyVersionID: in.KmsKeyVersionID, Message: in.Message,
		Signature: in.Signature, Algorithm: in.SigningAlgorithm, CreatedBy: c.who.ID, State: "AVAILABLE",
		Tags: c.created(tags{Freeform: in.FreeformTags, Defined: in.DefinedTags}),
	}
	if c.sw.UploadValidation {
		if err := c.validateUpload(s, img, repo); err != nil {
			return nil, err
		}
	}
	if !c.sw.UploadTwice {
		for _, old := range c.Signatures {
			if old.State == "AVAILABLE" && old.Image == s.Image && old.KeyID == s.KeyID && old.KeyVersionID == s.KeyVersionID && old.Algorithm == s.Algorithm {
				return nil, conflict("NotAuthorizedOrResourceAlreadyExists", "The image has a signature by this key version and algorithm.")
			}
		}
	}
	c.keepSignature(s, c.sw)
	v := c.viewSignature(s, false)
	return v, nil // OCI Registry sends no etag for signature records
}

// keepSignature gives a signature record its OCID and stores it.
func (w *world) keepSignature(s *signatureRecord, sw Switches) {
	repo := w.Repositories[w.Images[s.Image].Repository]
	at := s.Created
	s.born = w.birth(w.registryOCID("containerimagesignature", parseRegion(repo.Region), w.tenancyOf(repo.Compartment), sw))
	if !at.IsZero() {
		s.Created = at
	}
	if s.DisplayName == "" {
		s.DisplayName = strings.Join([]string{last(10, s.KeyID), last(10, s.KeyVersionID), s.Algorithm, last(10, s.ID)}, "::")
	}
	w.Signatures[s.ID] = s
}

// validateUpload makes the checks of a careful registry. A switch says whether
// Oracle's registry makes them.
func (c *call) validateUpload(s *signatureRecord, img *containerImage, repo *repository) error {
	text, err := base64.StdEncoding.Strict().DecodeString(s.Message)
	if err != nil {
		return invalid("message: not base64")
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(s.Signature); err != nil {
		return invalid("signature: not base64")
	}
	var m struct {
		ImageDigest, RepositoryName, KmsKeyID, KmsKeyVersionID, SigningAlgorithm string
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return invalid("message: not JSON")
	}
	for _, pair := range [][3]string{
		{"imageDigest", m.ImageDigest, img.Digest},
		{"repositoryName", m.RepositoryName, repo.Name},
		{"kmsKeyId", m.KmsKeyID, s.KeyID},
		{"kmsKeyVersionId", m.KmsKeyVersionID, s.KeyVersionID},
		{"signingAlgorithm", m.SigningAlgorithm, s.Algorithm},
	} {
		if pair[1] != pair[2] {
			return invalid("message: its %s is not the record's or the image's", pair[0])
		}
	}
	return nil
}

func (c *call) listSignatures() (any, error) {
	in, err := c.scope("REPOSITORY_INSPECT")
	if err != nil {
		return nil, err
	}
	q := c.query
	if err := oneOf("signingAlgorithm", q.Get("signingAlgorithm"), signatureAlgorithms()...); err != nil {
		return nil, err
	}
	digest := q.Get("imageDigest")
	if digest != "" && !image.ValidDigest(digest) {
		return nil, invalid("imageDigest: %.80q is no digest", digest)
	}
	repositories := c.repositoriesIn(in)
	images := make(map[string]bool) // few, so that most records of a large registry are skipped quickly
	for id, img := range c.Images {
		if exactly(digest, img.Digest) && repositories[img.Repository] && c.shownImage(img) && exactly(q.Get("imageId"), id) {
			images[id] = true
		}
	}
	var found []*signatureRecord
	for _, s := range c.Signatures {
		if images[s.Image] && c.shown(s.State) &&
			exactly(q.Get("displayName"), s.DisplayName) && exactly(q.Get("kmsKeyId"), s.KeyID) &&
			exactly(q.Get("kmsKeyVersionId"), s.KeyVersionID) && exactly(q.Get("signingAlgorithm"), s.Algorithm) {
			found = append(found, s)
		}
	}
	if err := sorted(c, found, func(s *signatureRecord) string { return s.DisplayName }); err != nil {
		return nil, err
	}
	found, remaining, err := page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]signatureView, len(found))
	for i, s := range found {
		items[i] = c.viewSignature(s, true)
	}
	return map[string]any{"items": items, "remainingItemsCount": remaining}, nil
}

// shown reports whether a list shows a record in a lifecycle state.
func (c *call) shown(state string) bool {
	return state != "DELETED" || c.sw.DeletedRecords == "listed"
}

func (c *call) findSignature(permission string) (*signatureRecord, error) {
	s, ok := c.Signatures[c.path["id"]]
	if !ok || !c.shown(s.State) {
		return nil, notFound("no signature " + c.path["id"])
	}
	if _, _, err := c.findImage(s.Image, permission); err != nil {
		return nil, err
	}
	return s, nil
}

func (c *call) getSignature() (any, error) {
	s, err := c.findSignature("REPOSITORY_READ")
	if err != nil {
		return nil, err
	}
	v := c.viewSignature(s, false)
	return c.tagged(v)
}

func (c *call) updateSignature() (any, error) {
	s, err := c.findSignature("REPOSITORY_UPDATE")
	if err != nil {
		return nil, err
	}
	if err := c.ifMatch(c.viewSignature(s, false)); err != nil {
		return nil, err
	}
	var in struct {
		FreeformTags map[string]string
		DefinedTags  map[string]map[string]any
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.FreeformTags != nil {
		s.Tags.Freeform = in.FreeformTags
	}
	if in.DefinedTags != nil {
		s.Tags.Defined = in.DefinedTags
	}
	v := c.viewSignature(s, false)
	return c.tagged(v)
}

func (c *call) deleteSignature() (any, error) {
	s, err := c.findSignature("REPOSITORY_UPDATE")
	if err != nil {
		return nil, err
	}
	if s.State != "AVAILABLE" {
		return nil, conflict("IncorrectState", "The signature is %s.", s.State)
	}
	if err := c.ifMatch(c.viewSignature(s, false)); err != nil {
		return nil, err
	}
	s.State = "DELETED"
	return nil, nil
}

func (c *call) getConfiguration() (any, error) {
	id := c.query.Get("compartmentId")
	if id == "" {
		return nil, missing("compartmentId")
	}
	if err := c.need("REPOSITORY_INSPECT", id); err != nil {
		return nil, err
	}
	return c.configuration(id)
}

func (c *call) configuration(id string) (any, error) {
	t := c.Tenancies[id]
	if t == nil {
		return nil, notFound("no tenancy " + id)
	}
	v := map[string]any{"isRepositoryCreatedOnFirstPush": t.CreateOnFirstPush, "namespace": t.Namespace}
	return c.tagged(v)
}

func (c *call) updateConfiguration() (any, error) {
	id := c.query.Get("compartmentId")
	if id == "" {
		return nil, missing("compartmentId")
	}
	if err := c.need("REPOSITORY_MANAGE", id); err != nil {
		return nil, err
	}
	t := c.Tenancies[id]
	if t == nil {
		return nil, notFound("no tenancy " + id)
	}
	var in struct{ IsRepositoryCreatedOnFirstPush *bool }
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.IsRepositoryCreatedOnFirstPush == nil {
		return nil, fmt.Errorf("nothing to update: %w", missing("isRepositoryCreatedOnFirstPush"))
	}
	if _, err := c.configuration(id); err != nil {
		return nil, err
	}
	t.CreateOnFirstPush = *in.IsRepositoryCreatedOnFirstPush
	return c.configuration(id)
}
