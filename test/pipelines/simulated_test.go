package pipelines

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// docker simulates the container tool. It signs in to a registry, packs a directory's
// Dockerfile into an image, and pushes the image. Every other command fails.
func docker(args []string) error {
	switch {
	case len(args) == 5 && slices.Equal(args[:4], []string{"login", "--username", "BEARER_TOKEN", "--password-stdin"}):
		return dockerLogin(args[4])
	case len(args) == 4 && args[0] == "build" && args[1] == "--tag":
		recipe, err := os.ReadFile(filepath.Join(args[3], "Dockerfile"))
		if err != nil {
			return err
		}
		return os.WriteFile(stored(args[2]), recipe, 0o600)
	case len(args) == 2 && args[0] == "push":
		return dockerPush(args[1])
	}
	return fmt.Errorf("this docker is a simulation with login, build and push only, not %q", args)
}

// stored returns the file in which docker stores an item.
func stored(what string) string {
	sum := sha256.Sum256([]byte(what))
	return filepath.Join(os.Getenv("HOME"), "docker-"+hex.EncodeToString(sum[:8]))
}

func dockerLogin(host string) error {
	password, err := io.ReadAll(io.LimitReader(os.Stdin, 64<<10))
	if err != nil {
		return err
	}
	auth := authn.AuthConfig{Username: "BEARER_TOKEN", Password: string(bytes.TrimSpace(password))}
	registry, err := name.NewRegistry(host)
	if err != nil {
		return err
	}
	if _, err := transport.NewWithContext(ctx, registry, authn.FromConfig(auth), http.DefaultTransport, nil); err != nil {
		return fmt.Errorf("docker login: %w", err)
	}
	text, err := json.Marshal(auth)
	if err != nil {
		return err
	}
	return os.WriteFile(stored(host), text, 0o600)
}

func dockerPush(tag string) error {
	ref, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	login, err := os.ReadFile(stored(ref.RegistryStr()))
	if err != nil {
		return errors.New("docker push: not signed in")
	}
	recipe, err := os.ReadFile(stored(tag))
	if err != nil {
		return errors.New("docker push: no such image")
	}
	var auth authn.AuthConfig
	if err := json.Unmarshal(login, &auth); err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer(recipe, types.DockerLayer))
	if err != nil {
		return err
	}
	if err := remote.Write(ref, image, remote.WithContext(ctx), remote.WithAuth(authn.FromConfig(auth))); err != nil {
		return fmt.Errorf("docker push: %w", err)
	}
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("The push refers to repository [%s]\nsha256:%064d: Pushed\n%s: digest: %s size: 528\n", ref.Repository, 1, ref.TagStr(), digest) //nolint:forbidigo // it plays a program
	return nil
}

// simulated holds the programs that scripts find on the PATH, besides the real plugin.
// Downloads come from $RELEASE instead of the release page.
var simulated = map[string]string{
	"curl": `#!/bin/bash
prefix=https://github.com/oke-sign/oke-sign/releases/download/v0.1.0/
[[ $# == 2 && $1 == -fsSLO && $2 == "$prefix"* ]] || { echo "curl: not simulated here: $*" >&2; exit 22; }
names=${2#"$prefix"} names=${names#\{} names=${names%\}}
for name in ${names//,/ }; do cp "$RELEASE/$name" .; done
`,
	"wget": `#!/bin/bash
[[ $# == 2 && $1 == -q ]] || { echo "wget: not simulated here: $*" >&2; exit 22; }
exec curl -fsSLO "$2"
`,
}
