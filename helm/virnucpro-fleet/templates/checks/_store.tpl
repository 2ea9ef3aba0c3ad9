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
{{- else if include "fleet.checks.manyNodes" (dict "root" . "source" "" "others" (list "keeper" "submission")) }}
store.volume.accessModes is ReadWriteOnce, which only pods of one node share: set ReadWriteMany, put the store into a bucket (store.url), or name that node (kubernetes.io/hostname) in keeper.nodeSelector, submission.nodeSelector and the nodeSelector of every pool.
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Not empty unless all pods that use a volume are on one node that is named: of pools with a source of
weights, or of all without one, and of others: (dict "root" $ "source" "volume" "others" (list
"submission")). One pod of each does not suffice: each may be on a node of its own.
*/}}
{{- define "fleet.checks.manyNodes" -}}
{{- $nodes := list -}}
{{- range .others -}}
{{- $nodes = append $nodes (dig "kubernetes.io/hostname" "" (get $.root.Values .).nodeSelector) -}}
{{- end -}}
{{- range .root.Values.pools -}}
{{- $pool := include "fleet.pool" (dict "root" $.root "pool" .) | fromJson -}}
{{- if or (not $.source) (eq $pool.weightsSource $.source) -}}
{{- $nodes = append $nodes (dig "kubernetes.io/hostname" "" $pool.nodeSelector) -}}
{{- end -}}
{{- end -}}
{{- $nodes = uniq $nodes -}}
{{- if or (gt (len $nodes) 1) (has "" $nodes) }}true{{ end -}}
{{- end -}}
