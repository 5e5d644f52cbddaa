package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume/configmap"
	"k8s.io/kubernetes/pkg/volume/secret"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
	"k8s.io/utils/ptr"
)

// files holds the content of a volume by path.
type files = map[string]volumeutil.FileProjection

// fill creates or updates the Pod's volumes below dir, and returns their paths. It
// fails if a source does not exist yet; the caller tries again.
func (k *Kubelet) fill(pod *corev1.Pod, dir string) (map[string]string, error) {
	at := map[string]string{}
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		where, err := k.fillOne(pod, volume, filepath.Join(dir, volume.Name))
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", volume.Name, err)
		}
		at[volume.Name] = where
	}
	return at, nil
}

func (k *Kubelet) fillOne(pod *corev1.Pod, volume *corev1.Volume, dir string) (string, error) {
	if host := volume.HostPath; host != nil {
		if host.Type != nil && *host.Type == corev1.HostPathDirectoryOrCreate {
			return host.Path, os.MkdirAll(host.Path, 0o755)
		}
		_, err := os.Stat(host.Path)
		return host.Path, err
	}
	sources, mode, err := projections(volume)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if volume.EmptyDir != nil {
		// Chmod, because the umask would reduce the mode.
		return dir, errors.Join(os.Chmod(dir, 0o777), giveToFSGroup(pod, dir))
	}
	content := files{}
	for _, source := range sources {
		part, err := k.project(pod, source, mode)
		if err != nil {
			return "", err
		}
		maps.Copy(content, part)
	}
	writer, err := volumeutil.NewAtomicWriter(dir, volume.Name)
	if err != nil {
		return "", err
	}
	return dir, writer.Write(content, func(part string) error { return giveToFSGroup(pod, filepath.Join(dir, part)) })
}

// projections converts every kind of volume that the API fills to projections. An
// emptyDir has none.
func projections(v *corev1.Volume) (sources []corev1.VolumeProjection, mode *int32, err error) {
	switch {
	case v.EmptyDir != nil:
		return nil, nil, nil
	case v.Secret != nil:
		return []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: v.Secret.SecretName},
			Items:                v.Secret.Items, Optional: v.Secret.Optional,
		}}}, v.Secret.DefaultMode, nil
	case v.ConfigMap != nil:
		return []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: v.ConfigMap.LocalObjectReference,
			Items:                v.ConfigMap.Items, Optional: v.ConfigMap.Optional,
		}}}, v.ConfigMap.DefaultMode, nil
	case v.DownwardAPI != nil:
		return []corev1.VolumeProjection{{DownwardAPI: &corev1.DownwardAPIProjection{Items: v.DownwardAPI.Items}}}, v.DownwardAPI.DefaultMode, nil
	case v.Projected != nil:
		return v.Projected.Sources, v.Projected.DefaultMode, nil
	}
	return nil, nil, errors.New("its kind is not supported")
}

// project reads one source.
func (k *Kubelet) project(pod *corev1.Pod, from corev1.VolumeProjection, mode *int32) (files, error) {
	mode = ptr.To(ptr.Deref(mode, 0o644))
	switch {
	case from.Secret != nil:
		object, err := k.secrets.Secrets(pod.Namespace).Get(from.Secret.Name)
		if absent(err, from.Secret.Optional) {
			object, err = &corev1.Secret{}, nil
		}
		if err != nil {
			return nil, err
		}
		return secret.MakePayload(from.Secret.Items, object, mode, ptr.Deref(from.Secret.Optional, false))
	case from.ConfigMap != nil:
		object, err := k.configMaps.ConfigMaps(pod.Namespace).Get(from.ConfigMap.Name)
		if absent(err, from.ConfigMap.Optional) {
			object, err = &corev1.ConfigMap{}, nil
		}
		if err != nil {
			return nil, err
		}
		return configmap.MakePayload(from.ConfigMap.Items, object, mode, ptr.Deref(from.ConfigMap.Optional, false))
	case from.DownwardAPI != nil:
		content := files{}
		for _, item := range from.DownwardAPI.Items {
			if item.FieldRef == nil {
				return nil, fmt.Errorf("%s: only fields are supported", item.Path)
			}
			value, err := field(pod, item.FieldRef.FieldPath)
			if err != nil {
				return nil, err
			}
			content[item.Path] = volumeutil.FileProjection{Data: []byte(value), Mode: ptr.Deref(item.Mode, *mode)}
		}
		return content, nil
	case from.ServiceAccountToken != nil:
		return k.serviceAccountToken(pod, from.ServiceAccountToken, *mode)
	}
	return nil, errors.New("one of its sources is not supported")
}

// serviceAccountToken returns a token that is bound to the Pod, so it is useless once
// the Pod is gone. The token manager renews it before it expires.
func (k *Kubelet) serviceAccountToken(pod *corev1.Pod, from *corev1.ServiceAccountTokenProjection, mode int32) (files, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: from.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if from.Audience != "" {
		request.Spec.Audiences = []string{from.Audience}
	}
	answer, err := k.tokens.GetServiceAccountToken(pod.Namespace, pod.Spec.ServiceAccountName, request)
	if err != nil {
		return nil, err
	}
	return files{from.Path: {Data: []byte(answer.Status.Token), Mode: mode}}, nil
}

// giveToFSGroup gives the files below dir to the Pod's fsGroup, if it has one.
func giveToFSGroup(pod *corev1.Pod, dir string) error {
	if pod.Spec.SecurityContext == nil || pod.Spec.SecurityContext.FSGroup == nil {
		return nil
	}
	group := int(*pod.Spec.SecurityContext.FSGroup)
	if ok, err := hasOtherUsers(); !ok || err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, group); err != nil || d.Type() == fs.ModeSymlink {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode() | 0o440
		if d.IsDir() {
			mode |= fs.ModeSetgid | 0o110
		}
		return os.Chmod(path, mode)
	})
}
