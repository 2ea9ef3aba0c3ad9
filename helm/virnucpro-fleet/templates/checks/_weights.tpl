{{- define "fleet.checks.weights" -}}
{{- $volume := .Values.weights.volume -}}
{{- $shared := include "fleet.shared" . | fromJson -}}
{{- if and $volume.existingClaim (not $shared.pools) }}
weights.volume.existingClaim is {{ $volume.existingClaim }}, but no pool reads weights from a volume: set weights.source to volume, or leave the claim out.
{{- end }}
{{- if and $shared.pools (not $volume.fill) (not $volume.existingClaim) }}
weights.volume.fill is false, so that the volume must have the weights already: name its claim in weights.volume.existingClaim, or have it filled.
{{- end }}
{{- if and $shared.pools (not $volume.existingClaim) }}
{{- $modes := $volume.accessModes -}}
{{- if not (or (has "ReadWriteMany" $modes) (has "ReadWriteOnce" $modes)) }}
weights.volume.accessModes is {{ join ", " $modes }}, but the hook that fills the volume writes: set ReadWriteMany.
{{- else if and (not (has "ReadWriteMany" $modes)) (include "fleet.checks.manyNodes" (dict "root" . "source" "volume" "others" (list "submission"))) }}
weights.volume.accessModes is ReadWriteOnce, which only pods of one node share: set ReadWriteMany, set weights.source to download, or name that node (kubernetes.io/hostname) in the nodeSelector of the pools that read it and, for the hook that fills it, in submission.nodeSelector.
{{- end }}
{{- $sum := 0.0 -}}
{{- range $shared.models }}{{ $sum = addf $sum (include "fleet.weightsGigabytes" . | float64) }}{{ end -}}
{{- $size := include "fleet.bytes" (toString $volume.size) | float64 -}}
{{- if gt (mulf $sum 1e9) $size }}
weights.volume.size is {{ $volume.size }}, and the weights of {{ join ", " $shared.models }} take {{ $sum }} GB: set {{ include "fleet.checks.room" $sum }} or more.
{{- end }}
{{- end }}
{{- end -}}

{{/* Of a pool: room for weights of models whose size is known, in a pod and in a CPU's memory. */}}
{{- define "fleet.checks.size" -}}
{{- $pool := .pool -}}
{{- $gigabytes := include "fleet.weightsGigabytes" $pool.model | float64 -}}
{{- if and $pool.downloads (gt (mulf $gigabytes 1e9) (include "fleet.bytes" (toString $pool.weightsSizeLimit) | float64)) }}
Pool {{ $pool.name }}: the weights of {{ $pool.model }} take {{ $gigabytes }} GB, and may take {{ $pool.weightsSizeLimit }} in a pod, which would be evicted and begin anew: set weightsSizeLimit to {{ include "fleet.checks.room" $gigabytes }} or more.
{{- end }}
{{- $memory := dig "limits" "memory" "" $pool.resources | toString -}}
{{- $used := ternary (divf $gigabytes 2.0) $gigabytes (ne $pool.rung "fp32") -}}
{{- if and (not $pool.onGpu) $memory (gt (mulf $used 1e9) (include "fleet.bytes" $memory | float64)) }}
Pool {{ $pool.name }}: the weights of {{ $pool.model }} take {{ $used }} GB of memory ({{ $pool.rung }}, without a GPU), and resources.limits.memory is {{ $memory }}: raise it, or give the pool GPUs.
{{- end }}
{{- end -}}

{{/* A size that weights of so many gigabytes fit into. */}}
{{- define "fleet.checks.room" -}}
{{- printf "%vGi" (ceil (mulf . 1.05)) -}}
{{- end -}}
