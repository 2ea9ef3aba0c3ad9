{{- define "fleet.checks.pools" -}}
{{- $names := dict -}}
{{- range .Values.pools }}
{{- if hasKey $names .name }}
Two pools are named {{ .name }}: rename one.
{{- end }}
{{- $_ := set $names .name true -}}
{{- $pool := include "fleet.pool" (dict "root" $ "pool" .) | fromJson -}}
{{- include "fleet.checks.pool" (dict "root" $ "pool" $pool "given" .) }}
{{- end }}
{{- include "fleet.checks.variables" (dict "list" .Values.poolDefaults.extraEnv "where" "poolDefaults.extraEnv") }}
{{- end -}}

{{- define "fleet.checks.pool" -}}
{{- $pool := .pool -}}
{{- $gpu := $pool.gpu -}}
{{- $who := printf "Pool %s" $pool.name -}}
{{- $taken := list "keeper" "flower" "redis" "store" "weights" "secrets" -}}
{{- if has $pool.name $taken }}
{{ $who }} has a name that objects of the release have: choose another than {{ join ", " (initial $taken) }} and {{ last $taken }}.
{{- end }}
{{- if and $.root.Values.prePull.enabled (not $pool.nodeSelector) (not $pool.affinity.nodeAffinity) }}
{{ $who }} may be on any node, and prePull would have every node of the cluster pull its image: give it a nodeSelector or an affinity for nodes (kubernetes.io/os: linux, if all of them are meant).
{{- end }}
{{- if not $pool.model }}
{{ $who }} has no model: set its model.
{{- end }}
{{- include "fleet.checks.size" . }}
{{- if gt (int $pool.replicas.min) (int $pool.replicas.max) }}
{{ $who }}: replicas.min is {{ $pool.replicas.min }}, and replicas.max {{ $pool.replicas.max }}: give a max that is not smaller.
{{- else if eq (int $pool.replicas.max) 0 }}
{{ $who }}: replicas.max is 0, so that it would never have a pod: raise it, or leave the pool out.
{{- end }}
{{- if not $pool.onGpu }}
{{- if eq $pool.precision "fp16" }}
{{ $who }}: precision is fp16, with which CPUs are 35 to 175 times slower than with fp32: set it to auto, fp32 or bf16, or gpu.count to 1.
{{- end }}
{{- if or $gpu.claimTemplate $gpu.memory }}
{{ $who }}: gpu.count is 0, but gpu.{{ ternary "claimTemplate" "memory" (ne $gpu.claimTemplate "") }} is given: raise the count, or leave that out.
{{- end }}
{{- end }}
{{- if and $gpu.claimTemplate (or (dig "gpu" "resource" "" .given) (ne $gpu.resource "nvidia.com/gpu")) }}
{{ $who }}: gpu.claimTemplate asks for GPUs in place of gpu.resource, and both are given: leave one out.
{{- end }}
{{- if and (contains "/mig-" $gpu.resource) (gt (int $gpu.count) 1) }}
{{ $who }}: gpu.count is {{ $gpu.count }}, but a worker uses one part of a GPU ({{ $gpu.resource }}) and would leave the others idle: set gpu.count to 1, and raise replicas.max.
{{- end }}
{{- if and $gpu.claimTemplate (semverCompare "<1.32.0-0" $.root.Capabilities.KubeVersion.Version) }}
{{ $who }}: gpu.claimTemplate needs Kubernetes 1.32 or newer, and this is {{ $.root.Capabilities.KubeVersion.Version }}: ask for gpu.resource instead.
{{- end }}
{{- range $which := list "requests" "limits" }}
{{- if hasKey (get $pool.resources $which | default dict) $gpu.resource }}
{{ $who }}: resources.{{ $which }} has {{ $gpu.resource }}: set the number of GPUs by gpu.count alone.
{{- end }}
{{- end }}
{{- if and (not $pool.spot) (lt (int $pool.terminationGracePeriodSeconds) 45) }}
{{ $who }}: terminationGracePeriodSeconds is {{ $pool.terminationGracePeriodSeconds }}, but a worker takes up to 40 s to requeue its batches and end: set 45 or more, or spot to true.
{{- end }}
{{- if and $pool.paused (not $pool.scaled) }}
{{ $who }} is paused, but nothing scales it: leave paused out.
{{- end }}
{{- range $key, $_ := $pool.podLabels }}
{{- include "fleet.checks.label" (dict "key" $key "where" (printf "%s: podLabels" $who)) }}
{{- end }}
{{- with .given.image }}
{{- include "fleet.checks.repository" (dict "value" (.repository | default "") "where" (printf "%s: image" $who)) }}
{{- end }}
{{- include "fleet.checks.variables" (dict "list" .given.extraEnv "where" (printf "%s: extraEnv" $who)) }}
{{- end -}}

{{/* Of pools that scale: each starts pods for the whole demand that it asks for. */}}
{{- define "fleet.checks.scaling" -}}
{{- $asked := dict -}}
{{- range .Values.pools }}
{{- $pool := include "fleet.pool" (dict "root" $ "pool" .) | fromJson -}}
{{- if $pool.scaled }}
{{- $demand := include "fleet.demandUrl" (dict "root" $ "pool" $pool) -}}
{{- with get $asked $demand }}
{{- if ne . $pool.name }}
Pools {{ . }} and {{ $pool.name }} have the same model, revision and precision, and both scale: each would start pods for the whole demand. Give one of them a fixed number of pods (replicas.min equal to replicas.max).
{{- end }}
{{- end }}
{{- $_ := set $asked $demand $pool.name -}}
{{- if and (eq $.Values.autoscaling.mode "hpa") (eq (int $pool.replicas.min) 0) }}
Pool {{ $pool.name }}: replicas.min is 0, to which a HorizontalPodAutoscaler never scales (autoscaling.mode is hpa): set it to 1, or the mode to keda.
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
