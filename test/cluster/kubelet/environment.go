package kubelet

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/pkg/kubelet/envvars"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

// environment returns the environment of a container: defaults, Services, envFrom and
// env, in this order. Later values override earlier ones. A variable of env may refer
// to all earlier variables.
func (k *Kubelet) environment(pod *corev1.Pod, c *corev1.Container) (map[string]string, error) {
	env := map[string]string{
		"PATH":     "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME":     "/",
		"HOSTNAME": pod.Name,
	}
	services, err := k.serviceEnvironment(pod)
	if err != nil {
		return nil, err
	}
	for _, v := range services {
		env[v.Name] = v.Value
	}
	for _, from := range c.EnvFrom {
		values, err := k.environmentFrom(pod.Namespace, from)
		if err != nil {
			return nil, err
		}
		for name, value := range values {
			env[from.Prefix+name] = value
		}
	}
	for _, v := range c.Env {
		value, set, err := k.environmentValue(pod, c, v, env)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.Name, err)
		}
		if set {
			env[v.Name] = value
		}
	}
	return env, nil
}

// serviceEnvironment returns the variables of the API server's Service and, unless the
// Pod disables service links, of its namespace's Services.
func (k *Kubelet) serviceEnvironment(pod *corev1.Pod) ([]corev1.EnvVar, error) {
	var found []*corev1.Service
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		own, err := k.services.Services(pod.Namespace).List(labels.Everything())
		if err != nil {
			return nil, err
		}
		found = own
	}
	// Without this variable a program believes that it runs outside a cluster.
	api, err := k.services.Services(corev1.NamespaceDefault).Get("kubernetes")
	if err != nil {
		return nil, err
	}
	return envvars.FromServices(append(found, api)), nil
}

func (k *Kubelet) environmentFrom(namespace string, from corev1.EnvFromSource) (map[string]string, error) {
	values := map[string]string{}
	switch {
	case from.SecretRef != nil:
		secret, err := k.secrets.Secrets(namespace).Get(from.SecretRef.Name)
		if absent(err, from.SecretRef.Optional) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for name, value := range secret.Data {
			values[name] = string(value)
		}
	case from.ConfigMapRef != nil:
		configMap, err := k.configMaps.ConfigMaps(namespace).Get(from.ConfigMapRef.Name)
		if absent(err, from.ConfigMapRef.Optional) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(values, configMap.Data)
	}
	return values, nil
}

// environmentValue returns the value of one variable, and whether it is set.
func (k *Kubelet) environmentValue(pod *corev1.Pod, c *corev1.Container, v corev1.EnvVar, before map[string]string) (string, bool, error) {
	from := v.ValueFrom
	if from == nil {
		return expansion.Expand(v.Value, expansion.MappingFuncFor(before)), true, nil
	}
	switch {
	case from.FieldRef != nil:
		value, err := field(pod, from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := resource.ExtractResourceValueByContainerNameAndNodeAllocatable(from.ResourceFieldRef, pod, c.Name, allocatable())
		return value, true, err
	case from.SecretKeyRef != nil:
		secret, err := k.secrets.Secrets(pod.Namespace).Get(from.SecretKeyRef.Name)
		if absent(err, from.SecretKeyRef.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		value, ok := secret.Data[from.SecretKeyRef.Key]
		return string(value), ok, missing(ok, from.SecretKeyRef.Optional, "secret", from.SecretKeyRef.Key)
	case from.ConfigMapKeyRef != nil:
		configMap, err := k.configMaps.ConfigMaps(pod.Namespace).Get(from.ConfigMapKeyRef.Name)
		if absent(err, from.ConfigMapKeyRef.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, err
		}
		value, ok := configMap.Data[from.ConfigMapKeyRef.Key]
		return value, ok, missing(ok, from.ConfigMapKeyRef.Optional, "configmap", from.ConfigMapKeyRef.Key)
	}
	return "", false, errors.New("its source is not supported")
}

// absent reports whether err means that an optional object does not exist.
func absent(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && optional != nil && *optional
}

func missing(ok bool, optional *bool, kind, key string) error {
	if ok || (optional != nil && *optional) {
		return nil
	}
	return fmt.Errorf("the %s has no key %s", kind, key)
}

// field returns the downward API's value of a path.
func field(pod *corev1.Pod, path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return pod.Status.HostIP, nil
	case "status.podIP", "status.podIPs":
		return pod.Status.PodIP, nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

// commandLine returns a container's command and arguments, with variables expanded. The
// command is empty if the image's command is wanted.
func commandLine(c *corev1.Container, env map[string]string) (command, args []string) {
	mapping := expansion.MappingFuncFor(env)
	for _, s := range c.Command {
		command = append(command, expansion.Expand(s, mapping))
	}
	for _, s := range c.Args {
		args = append(args, expansion.Expand(s, mapping))
	}
	return command, args
}

// variables returns an environment in the form of exec.
func variables(env map[string]string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		all = append(all, name+"="+env[name])
	}
	return all
}
