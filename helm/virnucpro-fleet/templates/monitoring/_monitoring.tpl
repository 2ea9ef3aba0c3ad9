{{/* The label `fleet` of what this release's pods export, which tells releases apart. */}}
{{- define "fleet.monitoring.label" -}}
{{- printf "%s/%s" .Release.Namespace (include "fleet.fullname" .) -}}
{{- end -}}

{{/*
A query of this release's series alone: (dict "root" $ "query" …). A name is one of the program's
(`virnucpro_jobs`), or of what a rule records (`pool:virnucpro_work:changes10m`).
*/}}
{{- define "fleet.monitoring.own" -}}
{{- $own := printf "fleet=%s" (include "fleet.monitoring.label" .root | quote) -}}
{{- $name := `((?:\w+:)?\bvirnucpro_\w+(?::\w+)?)` -}}
{{- $query := regexReplaceAll `\{__name__` .query (printf "{%s,__name__" $own) -}}
{{- $query = regexReplaceAll (print $name `\{`) $query (printf "${1}{%s," $own) -}}
{{- regexReplaceAll (print $name `([^\w:{]|$)`) $query (printf "${1}{%s}${2}" $own) -}}
{{- end -}}

{{/*
The groups of rules: of this release's series, if its PodMonitors give them the label; each alert with a
link to what to do.
*/}}
{{- define "fleet.monitoring.rules" -}}
{{- $root := . -}}
{{- $file := include "fleet.file" (dict "root" . "name" "rules.yaml") | fromYaml -}}
{{- range $file.groups -}}
{{- range .rules -}}
{{- if $root.Values.monitoring.podMonitor -}}
{{- $_ := set . "expr" (include "fleet.monitoring.own" (dict "root" $root "query" .expr)) -}}
{{- with .labels -}}
{{- $_ := set . "fleet" (include "fleet.monitoring.label" $root) -}}
{{- end -}}
{{- end -}}
{{- with .annotations -}}
{{- if $root.Values.monitoring.runbook -}}
{{- $_ := set . "runbook_url" (printf "%s#%s" $root.Values.monitoring.runbook (splitList "#" .runbook_url | last)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $file -}}
{{- end -}}
