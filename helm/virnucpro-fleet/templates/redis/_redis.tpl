{{/* The image's user in place of other pods'; none where those are null, as on OpenShift. */}}
{{- define "fleet.redis.podSecurityContext" -}}
{{- $context := deepCopy .Values.podSecurityContext -}}
{{- range $key, $value := dict "runAsUser" .Values.redis.runAsUser "runAsGroup" .Values.redis.runAsGroup "fsGroup" .Values.redis.runAsGroup -}}
{{- if and (hasKey $context $key) $value -}}
{{- $_ := set $context $key (int64 $value) -}}
{{- end -}}
{{- end -}}
{{- toYaml $context -}}
{{- end -}}

{{/*
How a probe asks Redis. It does not check the certificate: Redis reads a new one by itself, and until
then a restart would help nobody.
*/}}
{{- define "fleet.redis.cli" -}}
valkey-cli{{ if .Values.redis.tls.enabled }} --tls --insecure{{ end }}
{{- end -}}
