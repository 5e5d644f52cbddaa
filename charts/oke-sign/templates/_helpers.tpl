{{/* Every object is named oke-sign, not after the release. Provider objects are
     cluster-wide, so a cluster has one provider. */}}
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

{{/* The ports of the container and of the Service. */}}
{{- define "oke-sign.port" -}}8443{{- end }}
{{- define "oke-sign.healthPort" -}}8081{{- end }}

{{/* Not empty if the provider makes its own certificate. */}}
{{- define "oke-sign.ownCertificate" -}}
{{- if not .Values.certificate.existingSecret }}yes{{ end }}
{{- end }}

{{/* Not empty if the provider sends requests to the API server. */}}
{{- define "oke-sign.asksCluster" -}}
{{- if or (include "oke-sign.ownCertificate" .) (not .Values.gatekeeper.clientCAConfigMap) }}yes{{ end }}
{{- end }}

{{/* Not empty if the provider signs in to OCI with a configuration file. */}}
{{- define "oke-sign.configFile" -}}
{{- if has .Values.oci.auth (list "api_key" "security_token") }}yes{{ end }}
{{- end }}

{{/* Checks that the schema cannot make, or reports less clearly. */}}
{{- define "oke-sign.check" -}}
{{- with .Values }}
{{- if and (eq .oci.auth "oke_workload_identity") (not .oci.region) }}
{{- fail "oci.region is missing. With oci.auth oke_workload_identity a Pod cannot find its region. Set oci.region to the cluster's, such as us-ashburn-1" }}
{{- end }}
{{- if and (include "oke-sign.configFile" $) (not .oci.config.secret) }}
{{- fail (printf "oci.config.secret is missing. oci.auth %s signs in with an OCI configuration file. Set oci.config.secret to the Secret that has it" .oci.auth) }}
{{- end }}
{{- if and .certificate.existingSecret (not .certificate.caBundle) }}
{{- fail "certificate.caBundle is missing. Gatekeeper needs the CA of the certificate in certificate.existingSecret. Add --set-file certificate.caBundle=ca.crt" }}
{{- end }}
{{- if and .certificate.caBundle (not .certificate.existingSecret) }}
{{- fail "certificate.caBundle is set without certificate.existingSecret. The provider then makes its own certificate and gives Gatekeeper the CA. Set both or none" }}
{{- end }}
{{- if and .serviceMonitor.enabled .networkPolicy.enabled (not .networkPolicy.metricsFrom) }}
{{- fail "networkPolicy.metricsFrom is missing. serviceMonitor.enabled has Prometheus read the metrics, but the NetworkPolicy admits only the node. Set networkPolicy.metricsFrom to the peers of Prometheus" }}
{{- end }}
{{- end }}
{{- end }}
