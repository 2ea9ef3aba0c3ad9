{{/*
A pool with all its values, as JSON: (dict "root" $ "pool" .). What it does not set is in poolDefaults;
lists replace those. `{{- $pool := include "fleet.pool" (dict "root" $ "pool" .) | fromJson }}`
*/}}
{{- define "fleet.pool" -}}
{{- $pool := mergeOverwrite (deepCopy .root.Values.poolDefaults) (deepCopy .pool) -}}
{{- $gpu := gt (int $pool.gpu.count) 0 -}}
{{- $_ := set $pool "onGpu" $gpu -}}
{{- if eq $pool.precision "auto" -}}
{{- $_ := set $pool "rung" (ternary "fp16" "fp32" $gpu) -}}
{{- else -}}
{{- $_ := set $pool "rung" $pool.precision -}}
{{- end -}}
{{- $_ := set $pool "scaled" (and (ne .root.Values.autoscaling.mode "none") (ne (int $pool.replicas.min) (int $pool.replicas.max))) -}}
{{- $_ := set $pool "fullname" (printf "%s-%s" (include "fleet.fullname" .root) .pool.name) -}}
{{- $_ := set $pool "weightsSource" ($pool.weightsSource | default .root.Values.weights.source) -}}
{{- $_ := set $pool "weightsSizeLimit" ($pool.weightsSizeLimit | default .root.Values.weights.sizeLimit) -}}
{{- $_ := set $pool "weightsFrom" (include "fleet.weightsFrom" $pool.model) -}}
{{- $_ := set $pool "downloads" (and (eq $pool.weightsSource "download") (ne $pool.weightsFrom "")) -}}
{{- $defaults := ternary .root.Values.images.workerGpu .root.Values.images.workerCpu $gpu -}}
{{- $image := mergeOverwrite (deepCopy $defaults) $pool.image -}}
{{- $_ := set $pool "imageName" (include "fleet.image" (dict "root" .root "image" $image "suffix" (ternary "-gpu" "-cpu" $gpu))) -}}
{{- if $pool.spot -}}
{{- $_ := set $pool "tolerations" (concat $pool.tolerations (include "fleet.spotTolerations" . | fromYamlArray)) -}}
{{- $_ := set $pool "terminationGracePeriodSeconds" (min 25 (int $pool.terminationGracePeriodSeconds)) -}}
{{- end -}}
{{- $_ := set $pool "podResources" (include "fleet.timesGpus" $pool | fromJson) -}}
{{- $_ := set $pool "tmpSizeLimit" (include "fleet.times" (dict "quantity" $pool.tmpSizeLimit "count" $pool.gpu.count)) -}}
{{- $eviction := include "fleet.eviction" $pool | fromYaml -}}
{{- $_ := set $pool "podAnnotations" (merge (dict) $pool.podAnnotations .root.Values.podAnnotations $eviction) -}}
{{- toJson $pool -}}
{{- end -}}

{{/* Taints that clouds give to nodes which they take away: Google's, Azure's, Oracle's. Amazon has none. */}}
{{- define "fleet.spotTolerations" -}}
- {key: cloud.google.com/gke-spot, operator: Exists, effect: NoSchedule}
- {key: kubernetes.azure.com/scalesetpriority, operator: Equal, value: spot, effect: NoSchedule}
- {key: oci.oraclecloud.com/oke-is-preemptible, operator: Exists, effect: NoSchedule}
{{- end -}}

{{/*
Whether autoscalers of nodes may move a worker to spare a node. Nothing would be lost, but the batches
under way are computed again, and a GPU waits for a node, an image and weights: a pool's own scaling
empties nodes soon enough. A spot pod moves anyway; without the word, its emptyDirs would forbid it.
`kubectl drain` heeds only the disruption budget.
*/}}
{{- define "fleet.eviction" -}}
cluster-autoscaler.kubernetes.io/safe-to-evict: {{ .spot | quote }}
{{- if not .spot }}
karpenter.sh/do-not-disrupt: "true"
{{- end }}
{{- end -}}

{{/* Arguments of a pool's `worker start`. */}}
{{- define "fleet.startArgs" -}}
{{- $args := list "start" "--model" .model "--precision" .precision "--gpus" (ternary "required" "none" .onGpu) -}}
{{- with .revision }}{{ $args = concat $args (list "--revision" .) }}{{ end -}}
{{- with .gpu.memory }}{{ $args = concat $args (list "--gpu-memory" (toString .)) }}{{ end -}}
{{- concat $args .extraArgs | toYaml -}}
{{- end -}}

{{/* A quantity as often as there are GPUs, and once without: (dict "quantity" "8Gi" "count" 4). */}}
{{- define "fleet.times" -}}
{{- $quantity := toString .quantity -}}
{{- $number := regexFind "^[0-9.]+" $quantity -}}
{{- if le (int .count) 1 -}}
{{- $quantity -}}
{{- else -}}
{{- printf "%v%s" (mulf (float64 $number) (int .count)) (trimPrefix $number $quantity) -}}
{{- end -}}
{{- end -}}

{{/* Resources of a pod: those of each GPU, as often as it has GPUs, as JSON. */}}
{{- define "fleet.timesGpus" -}}
{{- $resources := deepCopy .resources -}}
{{- $count := .gpu.count -}}
{{- range $which := list "requests" "limits" -}}
{{- $given := get $resources $which | default dict -}}
{{- range $name := list "cpu" "memory" "ephemeral-storage" -}}
{{- if hasKey $given $name -}}
{{- $_ := set $given $name (include "fleet.times" (dict "quantity" (get $given $name) "count" $count)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $resources -}}
{{- end -}}

{{/* Resources of a pool's worker, with its GPUs. */}}
{{- define "fleet.workerResources" -}}
{{- $resources := deepCopy .podResources -}}
{{- if and .onGpu .gpu.claimTemplate -}}
{{- $_ := set $resources "claims" (list (dict "name" "gpu")) -}}
{{- else if .onGpu -}}
{{- $gpus := dict .gpu.resource (int .gpu.count) -}}
{{- $resources = mergeOverwrite $resources (dict "requests" $gpus "limits" (deepCopy $gpus)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The worker touches the file every second while it loads its model or takes batches. */}}
{{- define "fleet.alive" -}}
exec:
  command: [sh, -c, 'test $(($(date +%s) - $(stat -c %Y "$VIRNUCPRO_LIVENESS_FILE"))) -lt 60']
timeoutSeconds: 5
{{- end -}}

{{/*
Where the keeper tells a pool's demand: (dict "root" $ "pool" $pool). A worker with weights in FP32
takes jobs of every precision.
*/}}
{{- define "fleet.demandUrl" -}}
{{- $query := printf "model=%s" (urlquery .pool.model) -}}
{{- with .pool.revision }}{{ $query = printf "%s&revision=%s" $query (urlquery .) }}{{ end -}}
{{- if ne .pool.rung "fp32" }}{{ $query = printf "%s&precision=%s" $query .pool.rung }}{{ end -}}
{{- printf "http://%s-keeper.%s.svc:9808/demand?%s" (include "fleet.fullname" .root) .root.Release.Namespace $query -}}
{{- end -}}

{{/* The stem of the names of a pool's queues, the label `pool` of metrics: as ModelSource.queue has it. */}}
{{- define "fleet.queueStem" -}}
{{- $model := .model -}}
{{- if hasPrefix "s3://" $model -}}
{{- printf "s3-%s" ($model | trimSuffix "/" | sha256sum | trunc 16) -}}
{{- else if regexMatch "^(file:/)?/" $model -}}
{{- printf "path-%s" ($model | trimPrefix "file://" | clean | sha256sum | trunc 16) -}}
{{- else -}}
{{- $parts := splitList "@" $model -}}
{{- $revision := .revision | default (index (append $parts "") 1) -}}
{{- $name := first $parts | replace ":" "." | replace "facebook/" "" -}}
{{- with $revision -}}
{{- $name = printf "%s.%s-%s" $name (regexReplaceAll "[^A-Za-z0-9_-]" (trunc 20 .) "-") (. | sha256sum | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{/* Not empty if an autoscaler changes the number of pods of a pool. */}}
{{- define "fleet.scaled" -}}
{{- $root := . -}}
{{- range .Values.pools -}}
{{- if (include "fleet.pool" (dict "root" $root "pool" .) | fromJson).scaled -}}true{{- end -}}
{{- end -}}
{{- end -}}
