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
{{- else if and (not (has "ReadWriteMany" $modes)) (include "fleet.checks.manyNodes" (dict "root" . "source" "volume")) }}
weights.volume.accessModes is ReadWriteOnce, which pods of one node share, but pools that read it may have pods on several: set ReadWriteMany, have one pod (replicas.max), pin the pools by nodeSelector with kubernetes.io/hostname, or set weights.source to download.
{{- end }}
{{- end }}
{{- end -}}
