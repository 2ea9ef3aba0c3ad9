{{/* What all pods and containers share. */}}

{{/* Fields of a pod: (dict "root" $ "at" .Values.keeper), where `at` has nodeSelector and so on. */}}
{{- define "fleet.podFields" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .at.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Annotations of a pod: (dict "root" $ "at" .Values.keeper); nothing if there are none. */}}
{{- define "fleet.podAnnotations" -}}
{{- $annotations := merge (dict) (.at.podAnnotations | default dict) .root.Values.podAnnotations -}}
{{- with $annotations }}
{{- toYaml . }}
{{- end }}
{{- end -}}
