package ociclient

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// Record is a signature record in the form of the emulator's own pages.
type Record struct {
	Image        string `json:"image,omitempty"` // a reference with a digest
	KeyID        string `json:"kmsKeyId,omitempty"`
	KeyVersionID string `json:"kmsKeyVersionId,omitempty"`
	Algorithm    string `json:"signingAlgorithm,omitempty"`
	Message      string `json:"message,omitempty"`
	Signature    string `json:"signature,omitempty"`
	State        string `json:"lifecycleState,omitempty"`
}

// Attach attaches a signature record to an image without any check of the registry.
func (c *Cloud) Attach(ctx context.Context, r Record) error {
	return c.page(ctx, http.MethodPost, "signatures", r, nil)
}

// Records returns the signature records of a pinned image in OCI Registry.
func (c *Cloud) Records(ctx context.Context, image string) ([]Record, error) {
	var state struct {
		Images     map[string]struct{ ID, Digest string }
		Signatures map[string]Record // their image is its OCID
	}
	if err := c.page(ctx, http.MethodGet, "state", nil, &state); err != nil {
		return nil, err
	}
	_, digest, _ := strings.Cut(image, "@")
	var records []Record
	for _, r := range state.Signatures {
		if state.Images[r.Image].Digest == digest {
			r.Image = image
			records = append(records, r)
		}
	}
	return records, nil
}

// Publish sets what later scans find in an image.
func (c *Cloud) Publish(ctx context.Context, p ocitest.Problems) error {
	return c.page(ctx, http.MethodPost, "problems", p, nil)
}

// SetFault makes OCI fail until ClearFaults.
func (c *Cloud) SetFault(ctx context.Context, f ocitest.Fault) error {
	return c.page(ctx, http.MethodPost, "faults", f, nil)
}

// ClearFaults removes all faults.
func (c *Cloud) ClearFaults(ctx context.Context) error {
	return c.page(ctx, http.MethodDelete, "faults", nil, nil)
}

func (c *Cloud) page(ctx context.Context, method, page string, body, into any) error {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.address+"/_emulator/"+page, reader)
	if err != nil {
		return err
	}
	response, err := c.local.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return err
	}
	if response.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, page, response.Status, text)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// Clusters returns the OCIDs of the OKE clusters, by name.
func (c *Cloud) Clusters(ctx context.Context) (map[string]string, error) {
	var state struct {
		Clusters map[string]struct{ Name string }
	}
	if err := c.page(ctx, http.MethodGet, "state", nil, &state); err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for id, cluster := range state.Clusters {
		found[cluster.Name] = id
	}
	return found, nil
}
