{{/* In these files each line that a template gives is a problem: what is wrong, and what to do. */}}

{{- define "fleet.checks.names" -}}
{{- $fullname := include "fleet.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) }}
All objects' names would begin with {{ $fullname }}, but a Service's begins with a letter and has only letters, digits and hyphens: set fullnameOverride.
{{- end }}
{{- range $key, $_ := .Values.commonLabels }}
{{- include "fleet.checks.label" (dict "key" $key "where" "commonLabels") }}
{{- end }}
{{- with .Values.images }}
{{- if contains "://" .registry }}
images.registry is {{ .registry }}: leave {{ regexFind "^.*://" .registry }} out.
{{- end }}
{{- range $name := list "producer" "workerGpu" "workerCpu" "redis" }}
{{- include "fleet.checks.repository" (dict "value" (get $.Values.images $name).repository "where" (printf "images.%s" $name)) }}
{{- end }}
{{- end }}
{{- with .Values.serviceAccount }}
{{- if and .annotations (not .create) }}
serviceAccount.annotations are for an account that the release makes, but serviceAccount.create is false: annotate the account itself, and leave them out.
{{- end }}
{{- end }}
{{- range $name := list "keeper" "flower" "submission" }}
{{- include "fleet.checks.variables" (dict "list" (get $.Values $name).extraEnv "where" (printf "%s.extraEnv" $name)) }}
{{- end }}
{{- end -}}

{{/* Labels that select pods, for Services, disruption budgets and network policies. */}}
{{- define "fleet.checks.label" -}}
{{- if or (eq .key "virnucpro/pool") (has .key (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/part-of" "app.kubernetes.io/managed-by" "helm.sh/chart")) }}
{{ .where }} has {{ .key }}, a label that the chart sets itself: leave it out.
{{- end }}
{{- end -}}

{{- define "fleet.checks.repository" -}}
{{- if regexMatch "[:@][^/]*$" .value }}
{{ .where }}.repository is {{ .value }}: write what follows the name as {{ .where }}.tag or {{ .where }}.digest.
{{- end }}
{{- end -}}

{{/* Variables that other values set; a second one of the same name would win without a word. */}}
{{- define "fleet.checks.variables" -}}
{{- $where := .where -}}
{{- $others := dict "VIRNUCPRO_BROKER_URL" "redis or externalRedis" "VIRNUCPRO_STORE" "store.url" "VIRNUCPRO_MESSAGE_KEY" "secrets" "VIRNUCPRO_LOG_FORMAT" "log.format" "VIRNUCPRO_LOG_LEVEL" "log.level" "VIRNUCPRO_FLOWER_LOGIN" "secrets" "AWS_ENDPOINT_URL_S3" "store.s3.endpoint" "AWS_ENDPOINT_URL_STS" "store.s3.webIdentity.stsEndpoint" "AWS_SESSION_TOKEN" "store.s3.existingSecret" "AWS_ACCESS_KEY_ID" "store.s3.existingSecret" "AWS_SECRET_ACCESS_KEY" "store.s3.existingSecret" "HF_ENDPOINT" "weights.hub.endpoint" "HF_TOKEN" "weights.hub.tokenSecret" "VIRNUCPRO_HIGH_WATER" "keeper.highWater" "VIRNUCPRO_TMP_BYTES" "submission.tmpSizeLimit" -}}
{{- range .list }}
{{- if hasKey $others .name }}
{{ $where }} has {{ .name }}: set it by {{ get $others .name }}.
{{- else if has .name (list "VIRNUCPRO_METRICS" "VIRNUCPRO_WORKER_NAME" "VIRNUCPRO_LIVENESS_FILE" "VIRNUCPRO_READY_FILE" "VIRNUCPRO_POD_COSTS" "VIRNUCPRO_OWNER" "REDIS_PASSWORD") }}
{{ $where }} has {{ .name }}, which the chart sets itself: leave it out.
{{- end }}
{{- end }}
{{- end -}}
