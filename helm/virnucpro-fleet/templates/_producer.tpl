{{/* What containers and pods of the producer's image share: keepers, Flower, submissions, hooks, the test. */}}

{{- define "fleet.producer" -}}
image: {{ include "fleet.image" (dict "root" . "image" .Values.images.producer) }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{- end -}}

{{/*
Annotations of pods of a Deployment: (dict "root" $ "at" .Values.keeper). The cluster's autoscaler would
keep a node for the sake of what they have in /tmp.
*/}}
{{- define "fleet.movable" -}}
{{- $own := dict "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes" "tmp" -}}
{{- $at := dict "podAnnotations" (merge (dict) .at.podAnnotations .root.Values.podAnnotations $own) -}}
{{- include "fleet.podAnnotations" (dict "root" .root "at" $at) -}}
{{- end -}}

{{/* Options that name a pool's model: (dict "root" $ "pool" (first .Values.pools)), as a JSON list. */}}
{{- define "fleet.modelOptions" -}}
{{- $pool := include "fleet.pool" . | fromJson -}}
{{- $options := list "--model" $pool.model "--precision" $pool.rung -}}
{{- with $pool.revision }}{{ $options = concat $options (list "--revision" .) }}{{ end -}}
{{- toJson $options -}}
{{- end -}}
