# The break-glass annotation of OCI Kubernetes Engine. It counts on what becomes
# the Pod: a Pod's own metadata, or the Pod template's. On a Deployment itself it
# says nothing about the Deployment's Pods.
package lib.breakglass

annotation := "oracle.image-policy.k8s.io/break-glass"

reason := "oke-sign.dev/break-glass-reason"

until := "oke-sign.dev/break-glass-until"

names := [annotation, reason, until]

# in_use holds for the one value that has an effect.
in_use(annotations) if annotations[annotation] == "true"
