# The break-glass annotations. They count on the metadata that becomes the Pod's: that of a
# Pod or of a Pod template. On a Deployment's own metadata they have no effect on its Pods.
package lib.breakglass

# annotation is the one that OCI Kubernetes Engine defined.
annotation := "oracle.image-policy.k8s.io/break-glass"

reason_annotation := "oke-sign.dev/break-glass-reason"

until_annotation := "oke-sign.dev/break-glass-until"

annotations := [annotation, reason_annotation, until_annotation]

# in_use holds for the only value that takes effect.
in_use(pod_annotations) if pod_annotations[annotation] == "true"
