{{/*
Where a model's weights are downloaded from: `hub`, `bucket`, or nothing, as random ones are made and
those of a path are there.
*/}}
{{- define "fleet.weightsFrom" -}}
{{- $model := lower . -}}
{{- if hasPrefix "s3://" $model -}}
bucket
{{- else if not (or (hasSuffix ".pt" $model) (regexMatch "^(random:|file:/|[/~.])" $model)) -}}
hub
{{- end -}}
{{- end -}}

{{/*
Gigabytes of a model's weights as the hub has them, in FP32; 0 if its name says nothing. A name may
have an owner before it and a revision behind it.
*/}}
{{- define "fleet.weightsGigabytes" -}}
{{- $sizes := dict "esm2_t6_8m_ur50d" 0.04 "esm2_t12_35m_ur50d" 0.2 "esm2_t30_150m_ur50d" 0.6 "esm2_t33_650m_ur50d" 2.7 "esm2_t36_3b_ur50d" 11.5 "esm2_t48_15b_ur50d" 61 "dnabert_s" 0.5 "dnabert-s" 0.5 -}}
{{- get $sizes (regexReplaceAll "^(random:|[^/:@]+/)" . "" | splitList "@" | first | lower) | default 0 -}}
{{- end -}}

{{/* Where `worker download` puts weights, and `worker start` finds them. */}}
{{- define "fleet.weightsEnv" -}}
- {name: HF_HOME, value: /weights}
- {name: XDG_CACHE_HOME, value: /weights/cache}
{{- end -}}

{{/* How a download reaches the hub. */}}
{{- define "fleet.hubEnv" -}}
{{- with .Values.weights.hub.endpoint }}
- {name: HF_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .Values.weights.hub.tokenSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: token}}
{{- end }}
{{- end -}}

{{/* The claim of the shared volume. */}}
{{- define "fleet.weightsClaim" -}}
{{- .Values.weights.volume.existingClaim | default (printf "%s-weights" (include "fleet.fullname" .)) -}}
{{- end -}}

{{/* The init container that downloads a pool's weights: (dict "root" $ "pool" $pool). */}}
{{- define "fleet.weightsInit" -}}
- name: weights
  image: {{ .pool.imageName }}
  imagePullPolicy: {{ .root.Values.images.pullPolicy }}
  args:
    {{- $args := list "download" "--model" .pool.model }}
    {{- with .pool.revision }}{{ $args = concat $args (list "--revision" .) }}{{ end }}
    {{- toYaml $args | nindent 4 }}
  env:
    {{- include "fleet.weightsEnv" . | nindent 4 }}
    {{- if eq .pool.weightsFrom "hub" }}
    {{- include "fleet.hubEnv" .root | nindent 4 }}
    {{- else }}
    {{- include "fleet.s3" .root | nindent 4 }}
    {{- end }}
    {{- with .pool.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  securityContext:
    {{- toYaml .root.Values.containerSecurityContext | nindent 4 }}
  resources:
    {{- toYaml .pool.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: weights, mountPath: /weights}
    {{- if eq .pool.weightsFrom "bucket" }}
    {{- include "fleet.mounts" (dict "root" .root "s3" true) | nindent 4 }}
    {{- end }}
{{- end -}}

{{/*
Variables of the hook: those of the pools that read the volume and those of all hooks, each once, as the
last one has it: (dict "root" $ "pools" $shared.pools).
*/}}
{{- define "fleet.shared.variables" -}}
{{- $last := dict -}}
{{- $names := list -}}
{{- range append .pools .root.Values.submission -}}
{{- range .extraEnv -}}
{{- $_ := set $last .name . -}}
{{- $names = append $names .name | uniq -}}
{{- end -}}
{{- end -}}
{{- range $names }}
- {{ toJson (get $last .) }}
{{- end }}
{{- end -}}

{{/*
What the hook has to do, as JSON: `pools` that read the volume, `models` to download to it, and
whether one of them is in a `bucket`.
*/}}
{{- define "fleet.shared" -}}
{{- $shared := dict "pools" list "models" list "bucket" false -}}
{{- range .Values.pools -}}
{{- $pool := include "fleet.pool" (dict "root" $ "pool" .) | fromJson -}}
{{- if eq $pool.weightsSource "volume" -}}
{{- $_ := set $shared "pools" (append $shared.pools $pool) -}}
{{- if $pool.weightsFrom -}}
{{- $model := $pool.revision | empty | ternary $pool.model (printf "%s@%s" $pool.model $pool.revision) -}}
{{- $_ := set $shared "models" (append $shared.models $model | uniq) -}}
{{- $_ := set $shared "bucket" (or $shared.bucket (eq $pool.weightsFrom "bucket")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $shared -}}
{{- end -}}
