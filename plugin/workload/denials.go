package workload

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/connect"
)

// webhook is the name of Gatekeeper's webhook in the API server's errors.
const webhook = "validation.gatekeeper.sh"

// Denial is the report of a controller that Gatekeeper denied a Pod of a workload.
type Denial struct {
	Time    time.Time  `json:"time"`
	Object  ObjectName `json:"object"` // of the controller, such as a ReplicaSet
	Message string     `json:"message"`
	Over    bool       `json:"over"` // the controller has made a Pod since
}

// LastDenial returns the newest denial of a Pod of a workload, or of a Pod's siblings. It
// is nil if the cluster's events report none. Events last for an hour by default.
func LastDenial(ctx context.Context, s *connect.Session, object *unstructured.Unstructured) (*Denial, error) {
	makers, err := makersOf(ctx, s, object)
	if err != nil {
		return nil, err
	}
	events := func(reason string) (last *corev1.Event, err error) {
		client, err := s.Kube.Typed()
		if err != nil {
			return nil, err
		}
		list, err := client.CoreV1().Events(object.GetNamespace()).List(ctx, metav1.ListOptions{FieldSelector: "reason=" + reason})
		if err != nil {
			return nil, fmt.Errorf("listing events: %w", err)
		}
		for i, e := range list.Items {
			of := e.InvolvedObject
			made := slices.Contains(makers, ObjectName{of.APIVersion, of.Kind, object.GetNamespace(), of.Name})
			if made && (reason != "FailedCreate" || strings.Contains(e.Message, webhook)) && (last == nil || timeOf(e).After(timeOf(*last))) {
				last = &list.Items[i]
			}
		}
		return last, nil
	}
	failed, err := events("FailedCreate")
	if err != nil || failed == nil {
		return nil, err
	}
	made, err := events("SuccessfulCreate")
	if err != nil {
		return nil, err
	}
	of := failed.InvolvedObject
	return &Denial{
		Time: timeOf(*failed), Object: ObjectName{of.APIVersion, of.Kind, object.GetNamespace(), of.Name},
		Message: denialOf(failed.Message), Over: made != nil && timeOf(*made).After(timeOf(*failed)),
	}, nil
}

// timeOf returns when an event happened last.
func timeOf(e corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	}
	return e.EventTime.Time
}

// denialOf returns the part of a controller's message that Gatekeeper wrote.
func denialOf(message string) string {
	if _, denial, ok := strings.Cut(message, "denied the request: "); ok {
		return denial
	}
	return message
}

// makersOf returns the objects that make the Pods of a workload: those that a Deployment
// or a CronJob owns, the controller of a Pod, or the workload itself.
func makersOf(ctx context.Context, s *connect.Session, object *unstructured.Unstructured) ([]ObjectName, error) {
	of, ok := map[string]schema.GroupVersionResource{"Deployment": between["ReplicaSet"], "CronJob": between["Job"]}[object.GetKind()]
	if !ok {
		return []ObjectName{Controller(object)}, nil
	}
	client, err := s.Kube.Objects()
	if err != nil {
		return nil, err
	}
	makers := []ObjectName{}
	err = EachObject(ctx, client, of, object.GetNamespace(), metav1.ListOptions{}, func(o *unstructured.Unstructured) error {
		if slices.ContainsFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == object.GetUID() }) {
			makers = append(makers, NameOf(o))
		}
		return nil
	})
	return makers, err
}
