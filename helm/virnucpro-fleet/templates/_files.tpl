{{/*
The text of a file: (dict "root" $ "name" "users.acl"). What is missing would be empty without a word, and
a Redis without users lets everybody in.
*/}}
{{- define "fleet.file" -}}
{{- $path := printf "files/%s" .name -}}
{{- $text := .root.Files.Get $path -}}
{{- if not (trim $text) -}}
{{- fail (printf "The chart has no %s, or an empty one: fetch or copy it again with all its files." $path) -}}
{{- end -}}
{{- $text -}}
{{- end -}}
