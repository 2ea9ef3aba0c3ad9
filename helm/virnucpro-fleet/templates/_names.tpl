{{/* Names and labels. A component is keeper, flower, redis, worker, submission or hook. */}}

{{- define "fleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters at most: a component's or pool's name follows, and a label has 63. */}}
{{- define "fleet.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $name = .Release.Name -}}
{{- if not (contains (include "fleet.name" .) $name) -}}
{{- $name = printf "%s-%s" $name (include "fleet.name" .) -}}
{{- end -}}
{{- end -}}
{{- include "fleet.cut" (dict "name" $name "most" 40) -}}
{{- end -}}

{{/* A name that is cut if it is too long: a hash tells it from others that begin alike. */}}
{{- define "fleet.cut" -}}
{{- if gt (len .name) .most -}}
{{- printf "%s-%s" (trunc (int (sub .most 9)) .name | trimSuffix "-") (sha256sum .name | trunc 8) -}}
{{- else -}}
{{- .name -}}
{{- end -}}
{{- end -}}

{{/* Labels that select a component's pods: (dict "root" $ "component" "keeper"). They never change. */}}
{{- define "fleet.selector" -}}
app.kubernetes.io/name: {{ include "fleet.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
virnucpro/pool: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels of a component's pods: those that select it, and the user's. */}}
{{- define "fleet.podLabels" -}}
{{ include "fleet.selector" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of an object: (dict "root" $ "component" "keeper"), and "pool" for a pool's. */}}
{{- define "fleet.labels" -}}
{{ include "fleet.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: virnucpro-fleet
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image: (dict "root" $ "image" .Values.images.producer "suffix" ""). */}}
{{- define "fleet.image" -}}
{{- $registry := .root.Values.images.registry -}}
{{- $name := .image.repository -}}
{{- if and $registry (ne .image.repository .root.Values.images.redis.repository) -}}
{{- $name = printf "%s/%s" (trimSuffix "/" $registry) .image.repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default (print .root.Chart.AppVersion (.suffix | default ""))) -}}
{{- end -}}
{{- end -}}

{{- define "fleet.secret" -}}
{{- .Values.secrets.existingSecret | default (printf "%s-secrets" (include "fleet.fullname" .)) -}}
{{- end -}}

{{- define "fleet.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "fleet.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}
