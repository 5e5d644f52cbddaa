package simulate

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
)

// EachTemplate calls f for the Pods that the workloads of a namespace would make, or those
// of all namespaces.
func EachTemplate(ctx context.Context, s *connect.Session, namespace string, f func(workload, pod *unstructured.Unstructured)) error {
	client, err := s.Kube.Objects()
	if err != nil {
		return err
	}
	for _, of := range workload.Templated() {
		err := workload.EachObject(ctx, client, of, namespace, metav1.ListOptions{}, func(o *unstructured.Unstructured) error {
			for _, pod := range manifest.Pods(o) {
				f(o, workload.Slim(pod))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
