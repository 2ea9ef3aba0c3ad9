{{- define "fleet.checks.redis" -}}
{{- $redis := .Values.redis -}}
{{- $external := .Values.externalRedis -}}
{{- if and $redis.enabled $external.host }}
redis.enabled is true, and externalRedis.host is {{ $external.host }}: set redis.enabled to false to use that one, or leave externalRedis.host empty.
{{- end }}
{{- if not (or $redis.enabled $external.host) }}
There is no Redis: set redis.enabled to true, or externalRedis.host.
{{- end }}
{{- if $redis.enabled }}
{{- if and $redis.tls.enabled (not $redis.tls.existingSecret) }}
redis.tls.enabled needs a certificate: name its Secret in redis.tls.existingSecret.
{{- end }}
{{- if and $redis.tls.existingSecret (not $redis.tls.enabled) }}
redis.tls.existingSecret is given, but redis.tls.enabled is false: enable it, or leave the Secret out.
{{- end }}
{{- $memory := include "fleet.bytes" $redis.maxMemory | int64 -}}
{{- $limit := include "fleet.bytes" (dig "limits" "memory" "" $redis.resources | toString) | int64 -}}
{{- if and (gt $limit 0) (ge $memory $limit) }}
redis.maxMemory is {{ $redis.maxMemory }}, as much as redis.resources.limits.memory ({{ $redis.resources.limits.memory }}) or more, with which Redis would be killed: let the limit be twice as much.
{{- end }}
{{- $size := include "fleet.bytes" $redis.persistence.size | int64 -}}
{{- if lt $size (mul 3 $memory) }}
redis.persistence.size is {{ $redis.persistence.size }}, but the file of a Redis with {{ $redis.maxMemory }} (redis.maxMemory) may take three times as much while it is written anew: raise the size, or lower redis.maxMemory.
{{- end }}
{{- else }}
{{- if and (contains ":" $external.host) (not (regexMatch "^[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*$" $external.host)) }}
externalRedis.host is {{ $external.host }}: write the name or address alone, and the port as externalRedis.port.
{{- end }}
{{- if and $external.tls.existingSecret (not $external.tls.enabled) }}
externalRedis.tls.existingSecret is given, but externalRedis.tls.enabled is false: enable it, or leave the Secret out.
{{- end }}
{{- if and $external.host (ne $external.authentication "none") (not .Values.secrets.existingSecret) }}
The passwords of the external Redis are not known here (externalRedis.authentication is {{ $external.authentication }}): name a Secret that has them in secrets.existingSecret.
{{- end }}
{{- if .Values.networkPolicy.redisClients }}
networkPolicy.redisClients is about the release's own Redis, but redis.enabled is false: leave it out.
{{- end }}
{{- end }}
{{- end -}}

{{/* A size in bytes, of Kubernetes or of Redis, which says mb for what Kubernetes calls Mi. */}}
{{- define "fleet.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "m" 1000000 "g" 1000000000 "t" 1000000000000 "ki" 1024 "mi" 1048576 "gi" 1073741824 "ti" 1099511627776 "p" 1000000000000000 "pi" 1125899906842624 "kb" 1024 "mb" 1048576 "gb" 1073741824 "b" 1 -}}
{{- if regexMatch "^[0-9.]+e[+]?[0-9]+$" . -}}
{{- float64 . | int64 -}}
{{- else -}}
{{- $unit := regexFind "[A-Za-z]*$" . | lower -}}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units $unit | default 0) | int64 -}}
{{- end -}}
{{- end -}}
