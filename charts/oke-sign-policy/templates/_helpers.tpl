{{/* A constraint from a dict with root, kind, role (pods, workloads or report) and
     parameters. `kubectl oke-sign policy` finds its constraints by these names and
     labels. */}}
{{- define "oke-sign-policy.constraint" -}}
{{- $values := .root.Values }}
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: {{ .kind }}
metadata:
  name: image-policy{{ if ne .role "pods" }}-{{ .role }}{{ end }}
  labels:
    oke-sign.dev/policy: {{ .role }}
    {{- include "oke-sign-policy.labels" .root | nindent 4 }}
  {{- with $values.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  # Workload and report constraints only warn; in mode dryrun they do not even warn.
  enforcementAction: {{ if and (ne .role "pods") (eq $values.mode "deny") }}warn{{ else }}{{ $values.mode }}{{ end }}
  match:
    kinds:
      {{- if ne .role "workloads" }}
      - {apiGroups: [""], kinds: [Pod]}
      {{- end }}
      {{- if or (eq .role "workloads") (eq .kind "OKEBreakGlass") }}
      - {apiGroups: [""], kinds: [PodTemplate, ReplicationController]}
      - {apiGroups: [apps], kinds: [{{ if eq .kind "OKEBreakGlass" }}ControllerRevision, {{ end }}DaemonSet, Deployment, ReplicaSet, StatefulSet]}
      - {apiGroups: [batch], kinds: [CronJob, Job]}
      {{- end }}
    {{- with include "oke-sign-policy.scope" .root }}{{ . | nindent 4 }}{{ end }}
  parameters: {{- toYaml .parameters | nindent 4 }}
{{- end }}

{{- define "oke-sign-policy.labels" -}}
app.kubernetes.io/name: oke-sign-policy
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/part-of: oke-sign
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The exempt namespaces as JSON: those of scope, Gatekeeper's and the provider's. */}}
{{- define "oke-sign-policy.exempt" -}}
{{- with .Values }}
{{- concat (.scope.excludedNamespaces | default list) (compact (list .installation.gatekeeperNamespace .installation.namespace)) | uniq | toJson }}
{{- end }}
{{- end }}

{{/* The namespaces that the policy applies in, as part of a match. */}}
{{- define "oke-sign-policy.scope" -}}
{{- $scope := dict }}
{{- range $name, $value := .Values.scope }}
{{- with $value }}{{ $_ := set $scope $name . }}{{ end }}
{{- end }}
{{- $_ := set $scope "excludedNamespaces" (include "oke-sign-policy.exempt" . | fromJsonArray) }}
{{- with $scope }}{{ toYaml . }}{{ end }}
{{- end }}
