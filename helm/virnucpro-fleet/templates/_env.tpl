{{/* Environment, volumes and mounts by which a process finds Redis and the store. */}}

{{- define "fleet.log" -}}
- {name: VIRNUCPRO_LOG_FORMAT, value: {{ .Values.log.format | quote }}}
- {name: VIRNUCPRO_LOG_LEVEL, value: {{ .Values.log.level | quote }}}
{{- end -}}

{{/* Where a process listens: (dict "root" $ "port" 9808). */}}
{{- define "fleet.listen" -}}
{{- printf "%s:%d" (include "fleet.inUrl" .root.Values.listenAddress) (int .port) -}}
{{- end -}}

{{/* A host as URLs have it: an IPv6 address in brackets. */}}
{{- define "fleet.inUrl" -}}
{{- ternary (printf "[%s]" .) . (contains ":" .) -}}
{{- end -}}

{{/* How much room files have in /tmp, which the file system does not show: "20Gi". */}}
{{- define "fleet.tmpBytes" -}}
{{- with include "fleet.bytes" . | int64 -}}
- {name: VIRNUCPRO_TMP_BYTES, value: {{ . | quote }}}
{{- end -}}
{{- end -}}

{{- define "fleet.redis.host" -}}
{{- if .Values.redis.enabled -}}
{{- printf "%s-redis.%s.svc" (include "fleet.fullname" .) .Release.Namespace -}}
{{- else -}}
{{- include "fleet.inUrl" .Values.externalRedis.host -}}
{{- end -}}
{{- end -}}

{{- define "fleet.redis.port" -}}
{{- if .Values.redis.enabled }}6379{{ else }}{{ .Values.externalRedis.port }}{{ end -}}
{{- end -}}

{{/* The Secret with the certificate of Redis's authority, or nothing. */}}
{{- define "fleet.redis.caSecret" -}}
{{- if .Values.redis.enabled -}}
{{- if .Values.redis.tls.enabled }}{{ .Values.redis.tls.existingSecret }}{{ end -}}
{{- else if .Values.externalRedis.tls.enabled -}}
{{- .Values.externalRedis.tls.existingSecret -}}
{{- end -}}
{{- end -}}

{{/*
The address of Redis with a user's password: (dict "root" $ "user" "keeper"). The password is a
variable of its own, which the kubelet puts into the address: no manifest has it.
*/}}
{{- define "fleet.redis" -}}
{{- $root := .root -}}
{{- $external := $root.Values.externalRedis -}}
{{- $how := ternary "users" $external.authentication $root.Values.redis.enabled -}}
{{- $tls := ternary $root.Values.redis.tls.enabled $external.tls.enabled $root.Values.redis.enabled -}}
{{- $login := "" -}}
{{- if eq $how "users" -}}
{{- $login = printf "%s:$(REDIS_PASSWORD)@" .user -}}
{{- else if eq $how "password" -}}
{{- $login = ":$(REDIS_PASSWORD)@" -}}
{{- end -}}
{{- if ne $how "none" -}}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "fleet.secret" $root }}
      key: {{ ternary (printf "%s-password" .user) "redis-password" (eq $how "users") }}
{{ end -}}
- name: VIRNUCPRO_BROKER_URL
  value: {{ printf "%s://%s%s:%s/%v%s" (ternary "rediss" "redis" $tls) $login
      (include "fleet.redis.host" $root) (include "fleet.redis.port" $root)
      (ternary 0 $external.database $root.Values.redis.enabled)
      (ternary "?ssl_ca_certs=/etc/virnucpro/redis/ca.crt" "" (ne (include "fleet.redis.caSecret" $root) "")) | quote }}
{{- end -}}

{{- define "fleet.messageKey" -}}
{{- if .Values.secrets.signMessages -}}
- name: VIRNUCPRO_MESSAGE_KEY
  valueFrom:
    secretKeyRef: {name: {{ include "fleet.secret" . }}, key: message-key}
{{- end -}}
{{- end -}}

{{/* How S3 is reached, of the store and of weights in a bucket. */}}
{{- define "fleet.s3" -}}
{{- with .Values.store.s3 -}}
{{- with .endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ . | quote }}}
{{- end }}
{{- with .region }}
- {name: AWS_DEFAULT_REGION, value: {{ . | quote }}}
{{- end }}
{{- with .existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ . }}, key: access-key-id}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: secret-access-key}}
- name: AWS_SESSION_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . }}, key: session-token, optional: true}}
{{- end }}
{{- with .webIdentity.roleArn }}
- {name: AWS_ROLE_ARN, value: {{ . | quote }}}
- {name: AWS_WEB_IDENTITY_TOKEN_FILE, value: /var/run/secrets/virnucpro/store/token}
{{- end }}
{{- with .webIdentity.stsEndpoint }}
- {name: AWS_ENDPOINT_URL_STS, value: {{ . | quote }}}
{{- end }}
{{- if .caSecret }}
- {name: AWS_CA_BUNDLE, value: /etc/virnucpro/store/ca.crt}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The store, with how S3 is reached. */}}
{{- define "fleet.store" -}}
- {name: VIRNUCPRO_STORE, value: {{ .Values.store.url | default "file:///store" | quote }}}
{{- include "fleet.s3" . }}
{{- end -}}

{{/* All that producers, keepers and workers share: (dict "root" $ "user" "keeper"). */}}
{{- define "fleet.env" -}}
{{ include "fleet.log" .root }}
{{ include "fleet.redis" . }}
{{ include "fleet.store" .root }}
{{- with include "fleet.messageKey" .root }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Files behind the above: (dict "root" $ "redis" true "store" true); "s3" for those of S3 alone. */}}
{{- define "fleet.mounts" -}}
{{- if and .redis (include "fleet.redis.caSecret" .root) }}
- {name: redis-ca, mountPath: /etc/virnucpro/redis, readOnly: true}
{{- end }}
{{- if or .store .s3 }}
{{- if .root.Values.store.s3.caSecret }}
- {name: store-ca, mountPath: /etc/virnucpro/store, readOnly: true}
{{- end }}
{{- if .root.Values.store.s3.webIdentity.roleArn }}
- {name: store-token, mountPath: /var/run/secrets/virnucpro/store, readOnly: true}
{{- end }}
{{- end }}
{{- if and .store (not .root.Values.store.url) }}
- {name: store, mountPath: /store}
{{- end }}
{{- end -}}

{{- define "fleet.volumes" -}}
{{- if and .redis (include "fleet.redis.caSecret" .root) }}
- name: redis-ca
  secret: {secretName: {{ include "fleet.redis.caSecret" .root }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- if or .store .s3 }}
{{- with .root.Values.store.s3.caSecret }}
- name: store-ca
  secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- with .root.Values.store.s3.webIdentity }}
{{- if .roleArn }}
- name: store-token
  projected:
    sources:
      - serviceAccountToken: {path: token, audience: {{ .audience }}, expirationSeconds: 3600}
{{- end }}
{{- end }}
{{- end }}
{{- if and .store (not .root.Values.store.url) }}
- name: store
  persistentVolumeClaim:
    claimName: {{ .root.Values.store.volume.existingClaim | default (printf "%s-store" (include "fleet.fullname" .root)) }}
{{- end }}
{{- end -}}
