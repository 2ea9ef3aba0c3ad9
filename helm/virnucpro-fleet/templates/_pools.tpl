{{/*
A pool with all its values, as JSON: (dict "root" $ "pool" .). What it does not set is in poolDefaults;
lists replace those. `{{- $pool := include "fleet.pool" (dict "root" $ "pool" .) | fromJson }}`
*/}}
{{- define "fleet.pool" -}}
{{- $pool := mergeOverwrite (deepCopy .root.Values.poolDefaults) (deepCopy .pool) -}}
{{- $gpu := gt (int $pool.gpu.count) 0 -}}
{{- if eq $pool.precision "auto" -}}
{{- $_ := set $pool "rung" (ternary "fp16" "fp32" $gpu) -}}
{{- else -}}
{{- $_ := set $pool "rung" $pool.precision -}}
{{- end -}}
{{- $_ := set $pool "scaled" (and (ne .root.Values.autoscaling.mode "none") (ne (int $pool.replicas.min) (int $pool.replicas.max))) -}}
{{- $_ := set $pool "fullname" (printf "%s-%s" (include "fleet.fullname" .root) .pool.name | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $pool "weightsSource" ($pool.weightsSource | default .root.Values.weights.source) -}}
{{- $defaults := ternary .root.Values.images.workerGpu .root.Values.images.workerCpu $gpu -}}
{{- $image := mergeOverwrite (deepCopy $defaults) $pool.image -}}
{{- $_ := set $pool "imageName" (include "fleet.image" (dict "root" .root "image" $image "suffix" (ternary "-gpu" "-cpu" $gpu))) -}}
{{- toJson $pool -}}
{{- end -}}
