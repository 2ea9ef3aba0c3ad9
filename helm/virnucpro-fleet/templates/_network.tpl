{{/* Rules of the NetworkPolicies. One without peers would allow everybody: it is left out. */}}

{{/* Rules in and out: (dict "peers" … "ports" …); nothing if there are no peers. */}}
{{- define "fleet.network.from" -}}
{{- if .peers -}}
- from:
    {{- toYaml .peers | nindent 4 }}
  {{- include "fleet.network.ports" .ports | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "fleet.network.to" -}}
{{- if .peers -}}
- to:
    {{- toYaml .peers | nindent 4 }}
  {{- include "fleet.network.ports" .ports | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "fleet.network.ports" -}}
ports:
  {{- range . }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end -}}

{{/* A rule to a server: (dict "to" .Values.networkPolicy.hub "address" URL), whose port is the default. */}}
{{- define "fleet.network.server" -}}
{{- $url := urlParse .address -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- include "fleet.network.to" (dict "peers" .to.peers "ports" (.to.ports | default (list $port))) -}}
{{- end -}}

{{- define "fleet.network.dns" -}}
{{- with .Values.networkPolicy.dns -}}
{{- if .peers -}}
- to:
    {{- toYaml .peers | nindent 4 }}
  ports:
    {{- range .ports }}
    - {protocol: UDP, port: {{ . }}}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A component of the release, as a list of peers: (dict "root" $ "components" (list "redis")). */}}
{{- define "fleet.network.component" -}}
{{- $root := .root -}}
{{- range .components }}
- podSelector:
    matchLabels:
      {{- include "fleet.selector" (dict "root" $root "component" .) | nindent 6 }}
{{- end }}
{{- end -}}

{{/* To Redis: the release's, or an external one. */}}
{{- define "fleet.network.redis" -}}
{{- if .Values.redis.enabled -}}
{{- $redis := include "fleet.network.component" (dict "root" . "components" (list "redis")) | fromYamlArray -}}
{{- include "fleet.network.to" (dict "peers" $redis "ports" (list 6379)) -}}
{{- else -}}
{{- include "fleet.network.to" (dict "peers" .Values.networkPolicy.redis.peers "ports" (list .Values.externalRedis.port)) -}}
{{- end -}}
{{- end -}}

{{/*
Not empty if pods exchange a token for credentials of the store, and so need none of the node. The annotation
is the one by which Amazon's webhook gives them a token; others say nothing of it.
*/}}
{{- define "fleet.network.exchanges" -}}
{{- if or .Values.store.s3.webIdentity.roleArn (hasKey .Values.serviceAccount.annotations "eks.amazonaws.com/role-arn") }}true{{ end -}}
{{- end -}}

{{/* To buckets, and to who gives credentials for them: a Secret, a server, or the node's. */}}
{{- define "fleet.network.buckets" -}}
{{- $network := .Values.networkPolicy -}}
{{- $s3 := .Values.store.s3 -}}
{{- $rules := list (include "fleet.network.server" (dict "to" $network.store "address" $s3.endpoint)) -}}
{{- if not $s3.existingSecret -}}
{{- $rules = append $rules (include "fleet.network.server" (dict "to" $network.credentials "address" $s3.webIdentity.stsEndpoint)) -}}
{{- if not (include "fleet.network.exchanges" .) -}}
{{- $rules = append $rules (include "fleet.network.to" $network.node) -}}
{{- end -}}
{{- end -}}
{{- join "\n" (compact $rules) -}}
{{- end -}}

{{- define "fleet.network.hub" -}}
{{- include "fleet.network.server" (dict "to" .Values.networkPolicy.hub "address" .Values.weights.hub.endpoint) -}}
{{- end -}}

{{/* Where weights of pools with a source (`download` or `volume`) are fetched, as JSON: `hub`, `bucket`. */}}
{{- define "fleet.network.weights" -}}
{{- $from := dict -}}
{{- range .root.Values.pools -}}
{{- $pool := include "fleet.pool" (dict "root" $.root "pool" .) | fromJson -}}
{{- if eq $pool.weightsSource $.source -}}
{{- $_ := set $from ($pool.weightsFrom | default "nowhere") true -}}
{{- end -}}
{{- end -}}
{{- toJson $from -}}
{{- end -}}

{{/*
A component's policy: (dict "root" $ "component" "keeper" "in" … "out" …), lists of the rules above, and
perhaps "name" and "annotations". Whoever is in no rule is refused, also where there are no rules.
*/}}
{{- define "fleet.network.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "fleet.fullname" .root }}-{{ .name | default .component }}
  labels:
    {{- include "fleet.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  podSelector:
    matchLabels:
      {{- include "fleet.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- join "\n" (compact .in) | default "[]" | nindent 4 }}
  egress:
    {{- join "\n" (compact .out) | default "[]" | nindent 4 }}
{{- end -}}
