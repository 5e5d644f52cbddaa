// Command image packs one program, oke-sign-provider or kubectl-oke_sign, into an
// OCI image for several platforms. It needs no daemon and no base image. The image
// has the program, which is linked statically, and the certificate authorities that
// Mozilla trusts. It has no shell and no writable files, and it does not run as
// root. The same programs give the same digest.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"debug/elf"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

const usage = `image packs oke-sign-provider or kubectl-oke_sign into an OCI image.

Usage: image --out DIR [--program NAME] [flags] linux/amd64=FILE linux/arm64=FILE...

It writes an OCI image layout and prints the digest.

`

// nobody is the user and the group that the image runs as.
const nobody = "65532:65532"

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatalf("image: %v", err)
	}
}

// ports are the ports on which each program listens.
var ports = map[string][]string{"oke-sign-provider": {"8443/tcp", "8081/tcp"}, "kubectl-oke_sign": nil}

// release is the image's information about itself.
type release struct {
	program, version, revision string
	created                    time.Time
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.Usage = func() {
		_, _ = io.WriteString(flags.Output(), usage)
		flags.PrintDefaults()
	}
	dir := flags.String("out", "", "`directory` of the layout, which must not exist")
	push := flags.String("push", "", "`reference` to which it also pushes the image, with the credentials of docker login")
	var r release
	flags.StringVar(&r.program, "program", "oke-sign-provider", "`name` of the program in the image: oke-sign-provider or kubectl-oke_sign")
	flags.StringVar(&r.version, "version", "unknown", "version of the program")
	flags.StringVar(&r.revision, "revision", "", "commit of the build")
	created := flags.Int64("created", 0, "time of that commit, `seconds` since 1970")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r.created = time.Unix(*created, 0).UTC()
	if *dir == "" || flags.NArg() == 0 {
		return errors.New("want --out and at least one PLATFORM=FILE; --help tells more")
	}
	if _, known := ports[r.program]; !known {
		return fmt.Errorf("--program %s: want oke-sign-provider or kubectl-oke_sign", r.program)
	}
	if _, err := os.Stat(*dir); err == nil {
		return fmt.Errorf("%s is there already", *dir)
	}

	index, err := pack(r, flags.Args())
	if err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	at, err := layout.Write(*dir, empty.Index)
	if err != nil {
		return err
	}
	if err := at.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r.version})); err != nil {
		return err
	}
	if *push != "" {
		ref, err := name.ParseReference(*push)
		if err != nil {
			return err
		}
		if err := remote.WriteIndex(ref, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
			return fmt.Errorf("pushing %s: %w", ref, err)
		}
	}
	_, err = fmt.Fprintln(out, digest)
	return err
}

// pack makes an image of each PLATFORM=FILE, and an index of the images.
func pack(r release, programs []string) (v1.ImageIndex, error) {
	roots, err := authorities()
	if err != nil {
		return nil, err
	}
	trust, err := r.layer("etc/ssl/certs/ca-certificates.crt", 0o444, roots)
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range programs {
		platform, file, _ := strings.Cut(p, "=")
		system, arch, _ := strings.Cut(platform, "/")
		if _, known := machines[arch]; system != "linux" || !known {
			return nil, fmt.Errorf("%s: want linux/amd64=FILE or linux/arm64=FILE", p)
		}
		program, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := static(program, arch); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		image, err := r.image(&v1.Platform{OS: system, Architecture: arch}, trust, program)
		if err != nil {
			return nil, fmt.Errorf("packing %s: %w", file, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: system, Architecture: arch}},
		})
	}
	annotated, _ := mutate.Annotations(index, r.labels()).(v1.ImageIndex) // the index of an index is an index
	return annotated, nil
}

func (r release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":    r.program,
		"org.opencontainers.image.source":   "https://github.com/oke-sign/oke-sign",
		"org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version":  r.version,
		"org.opencontainers.image.revision": r.revision,
		"org.opencontainers.image.created":  r.created.Format(time.RFC3339),
	}
}

func (r release) image(platform *v1.Platform, trust v1.Layer, program []byte) (v1.Image, error) {
	layer, err := r.layer(r.program, 0o555, program)
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.Append(image,
		mutate.Addendum{Layer: trust, History: v1.History{Created: v1.Time{Time: r.created}, CreatedBy: "certificate authorities that Mozilla trusts"}},
		mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: r.created}, CreatedBy: r.program + " " + r.version}},
	); err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = platform.OS, platform.Architecture, v1.Time{Time: r.created}
	file.Config = v1.Config{
		Entrypoint: []string{"/" + r.program}, User: nobody, WorkingDir: "/", Labels: r.labels(),
	}
	for _, port := range ports[r.program] {
		if file.Config.ExposedPorts == nil {
			file.Config.ExposedPorts = make(map[string]struct{})
		}
		file.Config.ExposedPorts[port] = struct{}{}
	}
	return mutate.ConfigFile(image, file)
}

// layer returns a layer with one file and the directories above it.
func (r release) layer(path string, mode int64, content []byte) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := range path {
		if path[i] == '/' {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path[:i+1], Mode: 0o755, ModTime: r.created}); err != nil {
				return nil, err
			}
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: mode, Size: int64(len(content)), ModTime: r.created}); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer))
}

// static rejects a program that does not start in an image without other files.
func static(program []byte, arch string) error {
	file, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return err
	}
	if file.Machine != machines[arch] {
		return fmt.Errorf("it is a program for %s, not for %s", file.Machine, arch)
	}
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
			return errors.New("it is linked dynamically: build it with CGO_ENABLED=0")
		}
	}
	return nil
}

// authorities returns the certificate authorities that Mozilla trusts, in PEM. It
// omits those that Mozilla trusts with a constraint, because a file cannot express
// the constraint.
func authorities() ([]byte, error) {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "# %s\n", cert.Subject)
		if err := pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}
