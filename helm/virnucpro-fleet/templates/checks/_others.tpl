{{- define "fleet.checks.flower" -}}
{{- with .Values.flower }}
{{- if and .ingress.enabled .httpRoute.enabled }}
flower.ingress and flower.httpRoute are both enabled: disable one.
{{- end }}
{{- if and (not .enabled) (or .ingress.enabled .httpRoute.enabled) }}
flower.{{ ternary "ingress" "httpRoute" .ingress.enabled }} is enabled, but flower.enabled is false: enable Flower, or disable that.
{{- end }}
{{- if and .ingress.enabled (not .ingress.host) }}
flower.ingress.enabled needs flower.ingress.host: without one, Flower would answer for every name.
{{- end }}
{{- if and .httpRoute.enabled (not .httpRoute.parentRefs) }}
flower.httpRoute.enabled needs a gateway: name it in flower.httpRoute.parentRefs.
{{- end }}
{{- end }}
{{- end -}}

{{- define "fleet.checks.submissions" -}}
{{- $names := dict -}}
{{- $pools := list -}}
{{- range .Values.pools }}{{ $pools = append $pools .name }}{{ end -}}
{{- range .Values.submissions }}
{{- $who := printf "Submission %s" .name }}
{{- if hasKey $names .name }}
Two submissions are named {{ .name }}: rename one.
{{- end }}
{{- $_ := set $names .name true -}}
{{- $job := printf "%s-%s" (include "fleet.fullname" $) .name -}}
{{- if gt (len $job) 52 }}
{{ $who }}: its CronJob's name, {{ $job }}, has {{ len $job }} characters, and may have 52: shorten it, or set fullnameOverride.
{{- end }}
{{- if and .pool .model }}
{{ $who }} has a pool and a model: leave one out.
{{- end }}
{{- if and .pool (not (has .pool $pools)) }}
{{ $who }}: there is no pool {{ .pool }}: name one of {{ join ", " $pools }}.
{{- end }}
{{- if and .output (not (regexMatch "\\.(h5|hdf5)$" .output)) }}
{{ $who }}: output is {{ .output }}: name a file that ends with .h5 or .hdf5.
{{- end }}
{{- range $key, $path := dict "input" .input "output" (.output | default "s3://") }}
{{- if not (or (hasPrefix "s3://" $path) $.Values.submission.extraVolumeMounts) }}
{{ $who }}: {{ $key }} is {{ $path }}, but its pod has no volume: give an address s3://bucket/key, or submission.extraVolumes and extraVolumeMounts.
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Connections that other values need, and nobody is named for. */}}
{{- define "fleet.checks.network" -}}
{{- with .Values.networkPolicy }}
{{- if .enabled }}
{{- $buckets := $.Values.store.url -}}
{{- $download := include "fleet.network.weights" (dict "root" $ "source" "download") | fromJson -}}
{{- $fill := dict -}}
{{- if $.Values.weights.volume.fill }}{{ $fill = include "fleet.network.weights" (dict "root" $ "source" "volume") | fromJson }}{{ end -}}
{{- if not .dns.peers }}
networkPolicy.dns.peers is empty, so that no name would be found: name the pods that answer.
{{- end }}
{{- if and (or $buckets $download.bucket $fill.bucket) (not .store.peers) }}
networkPolicy.store.peers is empty, but buckets are used: name where they are.
{{- end }}
{{- if and (or $download.hub $fill.hub) (not .hub.peers) }}
networkPolicy.hub.peers is empty, but weights are downloaded from the hub: name where it is, or set weights.source to image, or to volume with one that is filled.
{{- end }}
{{- if and $buckets (not $.Values.store.s3.existingSecret) (not .credentials.peers) (or (not .node.peers) (include "fleet.network.exchanges" $)) }}
networkPolicy.credentials.peers is empty, but credentials of the store are asked for: name the server that gives them, or the Secret that has them in store.s3.existingSecret.
{{- end }}
{{- if and (not $.Values.redis.enabled) (not .redis.peers) }}
networkPolicy.redis.peers is empty, but Redis is external: name where it is.
{{- end }}
{{- if and (include "fleet.keeper.marks" $) (not .apiServer.peers) }}
networkPolicy.apiServer.peers is empty, but keepers mark busy workers: name where the API server is, or set autoscaling.deletionCost to false.
{{- end }}
{{- if and (eq $.Values.autoscaling.mode "keda") (include "fleet.scaled" $) (not .keda) }}
networkPolicy.keda is empty, but autoscaling.mode is keda: name KEDA's pods.
{{- end }}
{{- if and $.Values.monitoring.podMonitor (not .prometheus) }}
networkPolicy.prometheus is empty, but monitoring.podMonitor is true: name Prometheus's pods.
{{- end }}
{{- if and (or $.Values.flower.ingress.enabled $.Values.flower.httpRoute.enabled) (not .flower) }}
networkPolicy.flower is empty, but Flower has an ingress or a route: name the pods that its requests come from.
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Kinds that the cluster must know. `helm template` knows none of a cluster, and says nothing of the kinds
that every cluster has.
*/}}
{{- define "fleet.checks.cluster" -}}
{{- $known := .Capabilities.APIVersions -}}
{{- if $known.Has "v1/Pod" }}
{{- if and (eq .Values.autoscaling.mode "keda") (include "fleet.scaled" .) (not ($known.Has "keda.sh/v1alpha1")) }}
autoscaling.mode is keda, but the cluster has no KEDA: install it, or set the mode to hpa or none.
{{- end }}
{{- if and (or .Values.monitoring.podMonitor .Values.monitoring.rules) (not ($known.Has "monitoring.coreos.com/v1")) }}
monitoring.{{ ternary "podMonitor" "rules" .Values.monitoring.podMonitor }} is true, but the cluster has no operator of Prometheus: install it, or set that to false.
{{- end }}
{{- if and .Values.flower.httpRoute.enabled (not ($known.Has "gateway.networking.k8s.io/v1")) }}
flower.httpRoute.enabled is true, but the cluster has no Gateway API: install it, or use flower.ingress.
{{- end }}
{{- end }}
{{- end -}}
