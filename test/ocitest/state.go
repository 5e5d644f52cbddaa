package ocitest

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
)

// stateVersion is the version of the file's format. Load rejects other versions.
const stateVersion = 1

// saved is a state file: the world, the blobs of the registry, and the key of the
// authority. Its private keys are not encrypted.
type saved struct {
	Version   int               `json:"version"`
	Authority []byte            `json:"authority"` // PKCS #8
	World     *world            `json:"world"`
	Blobs     map[string][]byte `json:"blobs"`
}

// Save writes the state file.
func (c *Cloud) Save() error {
	if c.cfg.State == "" {
		return errors.New("saving the state: no state file was named at the start")
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.ca.key)
	if err != nil {
		return fmt.Errorf("saving the state: %w", err)
	}
	s := saved{Version: stateVersion, Authority: key}
	c.mu.Lock()
	s.World, err = c.world.clone()
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("saving the state: %w", err)
	}
	c.registry.mu.Lock()
	s.Blobs = maps.Clone(c.registry.blobs)
	c.registry.mu.Unlock()
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("saving the state: %w", err)
	}
	// A crash must not leave half a state, so the content goes into another file
	// first.
	next := c.cfg.State + ".new"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("saving the state: %w", err)
	}
	if err := os.Rename(next, c.cfg.State); err != nil {
		return fmt.Errorf("saving the state: %w", err)
	}
	return nil
}

// load reads the state file, if one is named and exists.
func (c *Cloud) load() (bool, error) {
	if c.cfg.State == "" {
		return false, nil
	}
	b, err := os.ReadFile(c.cfg.State)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("loading the state: %w", err)
	}
	s := saved{World: newWorld(c.cfg.Now)}
	if err := json.Unmarshal(b, &s); err != nil {
		return false, fmt.Errorf("loading the state: %w", err)
	}
	if s.Version != stateVersion {
		return false, fmt.Errorf("loading the state: version %d, not %d", s.Version, stateVersion)
	}
	key, err := x509.ParsePKCS8PrivateKey(s.Authority)
	if err != nil {
		return false, fmt.Errorf("loading the state: %w", err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return false, fmt.Errorf("loading the state: the authority's key is a %T", key)
	}
	if c.ca, err = newAuthority(ec); err != nil {
		return false, err
	}
	c.world = s.World
	if s.Blobs != nil {
		c.registry.blobs = s.Blobs
	}
	return true, nil
}
