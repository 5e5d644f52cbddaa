package kubelet

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	corev1 "k8s.io/api/core/v1"
)

// Pulled images hold one or two programs with their files. Every file is a separate
// mount, so the limits are low.
const (
	maxFiles  = 100
	maxUnpack = 512 << 20
)

// image is the content of a container: a program, or the files and configuration of a
// pulled image.
type image struct {
	Program // replaces the image
	files   []mount
	config  v1.Config
}

// image returns the program that replaces an image, or else pulls the image.
func (k *Kubelet) image(ctx context.Context, pod *corev1.Pod, ref string) (image, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return image{}, fmt.Errorf("image %q: %w", ref, err)
	}
	if program, ok := k.Programs[reference.FamiliarName(named)]; ok {
		return image{Program: program}, nil
	}
	if k.Registries == nil {
		return image{}, fmt.Errorf("no program replaces image %s", ref)
	}
	i, err := k.pull(ctx, pod, ref)
	if err != nil {
		return image{}, fmt.Errorf("no program replaces image %s, and pulling it: %w", ref, err)
	}
	return i, nil
}

// pull pulls an image with the Pod's rights. The registry is asked each time, as with
// imagePullPolicy Always. Files that are already here are not downloaded again.
func (k *Kubelet) pull(ctx context.Context, pod *corev1.Pod, ref string) (image, error) {
	at, err := name.ParseReference(ref)
	if err != nil {
		return image{}, err
	}
	login, err := k.login(pod, at.Context().RegistryStr())
	if err != nil {
		return image{}, err
	}
	found, err := remote.Image(at, remote.WithContext(ctx), remote.WithTransport(k.Registries), remote.WithAuth(login),
		remote.WithPlatform(v1.Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}))
	if err != nil {
		return image{}, err
	}
	digest, err := found.Digest()
	if err != nil {
		return image{}, err
	}
	about, err := found.ConfigFile()
	if err != nil {
		return image{}, err
	}
	k.pulling.Lock()
	defer k.pulling.Unlock()
	dir := filepath.Join(k.Dir, "images", digest.Hex)
	if _, err := os.Stat(dir); err != nil {
		if err := unpack(found, dir); err != nil {
			return image{}, err
		}
	}
	files, err := filesOf(dir)
	return image{files: files, config: about.Config}, err
}

// login returns the credentials for a registry from the Pod's imagePullSecrets.
func (k *Kubelet) login(pod *corev1.Pod, registry string) (authn.Authenticator, error) {
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := k.secrets.Secrets(pod.Namespace).Get(ref.Name)
		if err != nil {
			return nil, err
		}
		var file struct {
			Auths map[string]authn.AuthConfig
		}
		if err := json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &file); err != nil {
			return nil, fmt.Errorf("secret %s: %w", ref.Name, err)
		}
		if login, ok := file.Auths[registry]; ok {
			return authn.FromConfig(login), nil
		}
	}
	return authn.Anonymous, nil
}

// unpack writes the files of an image to a folder. The folder appears only when it is
// complete.
func unpack(i v1.Image, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), "pulling-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made)
	root, err := os.OpenRoot(made)
	if err != nil {
		return err
	}
	defer root.Close()
	layers := mutate.Extract(i)
	defer layers.Close()
	if err := write(root, tar.NewReader(io.LimitReader(layers, maxUnpack))); err != nil {
		return err
	}
	return os.Rename(made, dir)
}

func write(root *os.Root, content *tar.Reader) error {
	for n := 0; ; n++ {
		header, err := content.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == maxFiles {
			return fmt.Errorf("images of more than %d files are not supported", maxFiles)
		}
		file := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		switch header.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(file, 0o755)
		case tar.TypeReg:
			err = writeFile(root, file, header.FileInfo().Mode().Perm(), content)
		default:
			err = errors.New("links and devices are not supported")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", header.Name, err)
		}
	}
}

func writeFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// filesOf lists the files of a folder as mounts of a container.
func filesOf(dir string) ([]mount, error) {
	var all []mount
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, mount{Source: file, Target: strings.TrimPrefix(file, dir), ReadOnly: true})
		}
		return err
	})
	return all, err
}

// command returns the command line, from the Pod's command and arguments or else from
// the image's.
func (i image) command(command, args []string) ([]string, error) {
	if len(command) == 0 {
		if command = i.config.Entrypoint; len(args) == 0 {
			args = i.config.Cmd
		}
	}
	all := slices.Concat(command, args)
	if len(all) == 0 || !path.IsAbs(all[0]) {
		return nil, fmt.Errorf("a command without an absolute path is not supported: %q", all)
	}
	return all, nil
}

// environment returns the image's environment, overridden by the container's.
func (i image) environment(own map[string]string) map[string]string {
	env := map[string]string{}
	for _, v := range i.config.Env {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	maps.Copy(env, own)
	return env
}

// identity returns the numeric user and group of the image; the default is root.
func (i image) identity() (*identity, error) {
	if i.config.User == "" {
		return &identity{}, nil
	}
	user, group, found := strings.Cut(i.config.User, ":")
	uid, err := strconv.Atoi(user)
	gid := 0
	if err == nil && found {
		gid, err = strconv.Atoi(group)
	}
	if err != nil {
		return nil, startError{"CreateContainerConfigError", fmt.Errorf("user %q of the image is not a number", i.config.User)}
	}
	return &identity{User: uid, Group: gid}, nil
}
