{{- define "fleet.checks.store" -}}
{{- $store := .Values.store -}}
{{- $s3 := $store.s3 -}}
{{- $buckets := $store.url -}}
{{- range .Values.pools -}}
{{- if hasPrefix "s3://" (.model | default $.Values.poolDefaults.model) }}{{ $buckets = .model }}{{ end -}}
{{- end -}}
{{- range .Values.submissions -}}
{{- if or (hasPrefix "s3://" .input) (hasPrefix "s3://" (.output | default "")) }}{{ $buckets = .input }}{{ end -}}
{{- end -}}
{{- if and (not $buckets) (or $s3.endpoint $s3.existingSecret $s3.caSecret $s3.webIdentity.roleArn) }}
store.s3 says how buckets are reached, but nothing is in one: set store.url to s3://bucket/prefix, or leave store.s3 out.
{{- end }}
{{- if and $s3.existingSecret $s3.webIdentity.roleArn }}
store.s3.existingSecret and store.s3.webIdentity.roleArn are two sources of credentials: leave one out.
{{- end }}
{{- if and $s3.webIdentity.roleArn (hasKey .Values.serviceAccount.annotations "eks.amazonaws.com/role-arn") }}
store.s3.webIdentity.roleArn and the annotation eks.amazonaws.com/role-arn in serviceAccount.annotations both name a role: leave one out.
{{- end }}
{{- if $store.url }}
{{- if or $store.volume.existingClaim $store.volume.storageClass }}
store.volume is for a store in a folder, but store.url is {{ $store.url }}: leave store.volume out, or store.url empty.
{{- end }}
{{- else if not $store.volume.existingClaim }}
{{- $modes := $store.volume.accessModes -}}
{{- if not (has "ReadWriteMany" $modes) }}
{{- if not (has "ReadWriteOnce" $modes) }}
store.volume.accessModes is {{ join ", " $modes }}, but keepers, workers and submissions all write the store: set ReadWriteMany.
{{- else if or (gt (int .Values.keeper.replicas) 1) (include "fleet.checks.manyNodes" (dict "root" . "source" "")) }}
store.volume.accessModes is ReadWriteOnce, which pods of one node share, but there may be pods on several: set ReadWriteMany, put the store into a bucket (store.url), or have one keeper and one pod in all (keeper.replicas and replicas.max of the pool 1), or pin keepers and pools by nodeSelector with kubernetes.io/hostname.
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Not empty if pools with a source of weights (or all, without one) may have pods on several nodes:
(dict "root" $ "source" "volume").
*/}}
{{- define "fleet.checks.manyNodes" -}}
{{- $most := 0 -}}
{{- range .root.Values.pools -}}
{{- $pool := include "fleet.pool" (dict "root" $.root "pool" .) | fromJson -}}
{{- if and (or (not $.source) (eq $pool.weightsSource $.source)) (not (hasKey $pool.nodeSelector "kubernetes.io/hostname")) -}}
{{- $most = add $most (int $pool.replicas.max) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $most) 1 }}true{{ end -}}
{{- end -}}
