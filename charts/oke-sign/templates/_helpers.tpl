{{/* Everything is called oke-sign, whatever the release: Gatekeeper's Provider
     objects are there once in a cluster, and so is what serves them. */}}
{{- define "oke-sign.selector" -}}
app.kubernetes.io/name: oke-sign
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "oke-sign.labels" -}}
{{ include "oke-sign.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: oke-sign
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The ports, of the container and of the Service. */}}
{{- define "oke-sign.port" -}}8443{{- end }}
{{- define "oke-sign.healthPort" -}}8081{{- end }}

{{/* Not empty if the provider makes its certificate itself. */}}
{{- define "oke-sign.ownCertificate" -}}
{{- if not .Values.certificate.existingSecret }}yes{{ end }}
{{- end }}

{{/* Not empty if the provider asks the API server anything. */}}
{{- define "oke-sign.asksCluster" -}}
{{- if or (include "oke-sign.ownCertificate" .) (not .Values.gatekeeper.clientCAConfigMap) }}yes{{ end }}
{{- end }}

{{/* Not empty if the provider signs in to OCI with a file. */}}
{{- define "oke-sign.configFile" -}}
{{- if has .Values.oci.auth (list "api_key" "security_token") }}yes{{ end }}
{{- end }}

{{/* What the schema cannot say, or says less well. */}}
{{- define "oke-sign.check" -}}
{{- with .Values }}
{{- if and (eq .oci.auth "oke_workload_identity") (not .oci.region) }}
{{- fail "oci.region is missing: with oci.auth oke_workload_identity a Pod is not told in which region it runs. Set it to the cluster's, such as us-ashburn-1" }}
{{- end }}
{{- if and (include "oke-sign.configFile" $) (not .oci.config.secret) }}
{{- fail (printf "oci.config.secret is missing: oci.auth %s signs in with the file in that Secret" .oci.auth) }}
{{- end }}
{{- if and .certificate.existingSecret (not .certificate.caBundle) }}
{{- fail "certificate.caBundle is missing: Gatekeeper must know the CA of the certificate in certificate.existingSecret. Give it with --set-file certificate.caBundle=ca.crt" }}
{{- end }}
{{- if and .certificate.caBundle (not .certificate.existingSecret) }}
{{- fail "certificate.caBundle is given without certificate.existingSecret: the provider makes its certificate itself then, and tells Gatekeeper its CA" }}
{{- end }}
{{- if and .serviceMonitor.enabled .networkPolicy.enabled (not .networkPolicy.metricsFrom) }}
{{- fail "networkPolicy.metricsFrom is missing: serviceMonitor.enabled has Prometheus read the metrics, and the NetworkPolicy lets nobody but the node do so" }}
{{- end }}
{{- end }}
{{- end }}
