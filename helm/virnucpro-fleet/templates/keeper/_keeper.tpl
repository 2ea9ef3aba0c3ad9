{{/* "true" where keepers mark busy workers, for which they ask the API server. */}}
{{- define "fleet.keeper.marks" -}}
{{- if and .Values.autoscaling.deletionCost (include "fleet.scaled" .) }}true{{ end -}}
{{- end -}}

{{/* An account that the user made serves keepers too; else they have one of their own, with that right. */}}
{{- define "fleet.keeper.hasAccount" -}}
{{- if and (include "fleet.keeper.marks" .) (or .Values.serviceAccount.create (not .Values.serviceAccount.name)) }}true{{ end -}}
{{- end -}}

{{- define "fleet.keeper.serviceAccount" -}}
{{- if include "fleet.keeper.hasAccount" . -}}
{{- include "fleet.fullname" . }}-keeper
{{- else -}}
{{- include "fleet.serviceAccount" . -}}
{{- end -}}
{{- end -}}

{{- define "fleet.keeper.affinity" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "fleet.selector" (dict "root" . "component" "keeper") | nindent 12 }}
{{- end -}}
