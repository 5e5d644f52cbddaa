package ocitest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"regexp"
	"slices"

	"github.com/oke-sign/oke-sign/provider/image"
)

// sow seeds a new world.
func (c *Cloud) sow() error {
	switch c.cfg.Seed {
	case "bare":
		t, err := c.sowOperator("emulated", "")
		if err != nil {
			return err
		}
		return c.sowSurroundings(parseRegion(t.HomeRegion), t.ID)
	case "demo":
		return c.sowDemo()
	}
	return nil
}

// sowOperator makes a tenancy and the user of the profiles in Home.
func (c *Cloud) sowOperator(name, namespace string) (*tenancy, error) {
	home, err := image.ParseRegion("us-ashburn-1")
	if err != nil {
		return nil, fmt.Errorf("finding the home region: %w", err)
	}
	t, err := c.world.newTenancy(name, namespace, home, nil)
	if err != nil {
		return nil, err
	}
	u, err := c.world.newUser(t.ID, "operator", "Administrators")
	if err != nil {
		return nil, err
	}
	c.world.Operator = u.ID
	return t, nil
}

// readPolicy adds the users and statements of the policy file.
func (c *Cloud) readPolicy() error {
	if c.cfg.Policy == "" {
		return nil
	}
	b, err := os.ReadFile(c.cfg.Policy)
	if err != nil {
		return fmt.Errorf("reading the policy: %w", err)
	}
	var p struct {
		Users []struct {
			Name   string   `json:"name"`
			Groups []string `json:"groups"`
		} `json:"users"`
		Statements []string `json:"statements"`
	}
	if err := strictly(bytes.NewReader(b), &p); err != nil {
		return fmt.Errorf("reading the policy %s: %w", c.cfg.Policy, err)
	}
	operator, ok := c.world.Users[c.world.Operator]
	if !ok {
		return fmt.Errorf("reading the policy %s: the cloud has no seeded tenancy", c.cfg.Policy)
	}
	for _, u := range p.Users {
		if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}$`).MatchString(u.Name) {
			return fmt.Errorf("reading the policy %s: %q is no name of a user", c.cfg.Policy, u.Name)
		}
		made := c.world.userByName(operator.Tenancy, u.Name)
		if made == nil {
			if made, err = c.world.newUser(operator.Tenancy, u.Name); err != nil {
				return fmt.Errorf("reading the policy %s: %w", c.cfg.Policy, err)
			}
		}
		made.Groups = u.Groups
	}
	t := c.world.Tenancies[operator.Tenancy]
	for _, s := range p.Statements {
		if err := ValidateStatement(s); err != nil {
			return fmt.Errorf("reading the policy %s: %w", c.cfg.Policy, err)
		}
		if !slices.Contains(t.Policies, s) {
			t.Policies = append(t.Policies, s)
		}
	}
	return nil
}

// sowDemo makes the content of the demo: a compartment with a vault and four keys,
// two repositories with two images each, and an OKE cluster. No image is signed, and
// the OKE image policy is off. Identifiers and digests are the same every time. Keys
// are not.
func (c *Cloud) sowDemo() error {
	w := c.world
	w.entropy = mathrand.NewChaCha8([32]byte([]byte("oci-emulator, the demo, a seed..")))
	defer func() { w.entropy = rand.Reader }()
	t, err := c.sowOperator("demo", "idwpqivumvev")
	if err != nil {
		return err
	}
	in, err := w.newCompartment(t.ID, containers)
	if err != nil {
		return err
	}
	region := parseRegion(t.HomeRegion)
	v := w.newVault(region, in.ID, "image-vault", c.cfg.Switches)
	for _, k := range []struct {
		name  string
		shape Shape
	}{
		{"image-key", RSA2048}, {"release-key", RSA4096}, {"etcd-key", AES256}, {"ec-key", P256},
	} {
		if _, err := w.newKey(v, in.ID, k.name, k.shape.shape(), nil, c.cfg.Switches); err != nil {
			return fmt.Errorf("making %s: %w", k.name, err)
		}
	}
	for _, name := range []string{"scan-test", "project01/ngnix-lb"} {
		repo, err := w.newRepository(t.HomeRegion, in.ID, name, c.cfg.Switches)
		if err != nil {
			return fmt.Errorf("making %s: %w", name, err)
		}
		repo.CreatedBy = w.Operator
		for _, tag := range []string{"v1", "latest"} {
			if _, err := c.makeImage(repo, name+" "+tag, tag, c.cfg.Switches); err != nil {
				return fmt.Errorf("making %s:%s: %w", name, tag, err)
			}
		}
	}
	w.newCluster(region, in.ID, "demo", c.cfg.Switches)
	if err := c.sowSurroundings(region, in.ID); err != nil {
		return err
	}
	return c.grantSurroundings(t)
}

// makeImage makes a small image that can be pulled: a layer with the content, a
// config, and a manifest. The caller holds Cloud.mu, or is still alone.
func (c *Cloud) makeImage(repo *repository, content, tag string, sw Switches) (*containerImage, error) {
	layer := tarball("content", []byte(content))
	layerDigest := c.registry.add(repo.ID, layer)
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Labels": map[string]string{"content": content}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layerDigest}},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding an image's config: %w", err)
	}
	configDigest := c.registry.add(repo.ID, config)
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     mediaType,
		"config":        map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": configDigest, "size": len(config)},
		"layers":        []any{map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layerDigest, "size": len(layer)}},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding a manifest: %w", err)
	}
	sum := sha256.Sum256(manifest)
	return c.world.putManifest(repo, mediaType, manifest, "sha256:"+hex.EncodeToString(sum[:]), tag, repo.CreatedBy, sw)
}
