// Embeds FASTA files: each by a fleet of its own, which lasts as long as the task. docs/deploy.md explains it.
//
//   nextflow run deploy/nextflow/embed.nf -profile docker --input 'proteins/*.fasta'
//
// In a pipeline of yours: include { DOWNLOAD; EMBED } from './embed.nf'

// The name of a model as that of a folder.
def folderOf(model) {
    return model.replaceAll('[^A-Za-z0-9._-]+', '-')
}

// Brings a model's weights, once: nextflow.config has them kept, so that later runs need no network.
process DOWNLOAD {
    tag "${model}"
    container "${params.container}"

    input:
    val model

    output:
    path "${folderOf(model)}"

    script:
    """
    export HF_HOME="\$PWD/${folderOf(model)}" XDG_CACHE_HOME="\$PWD/${folderOf(model)}/cache"
    worker download --model '${model}'
    """
}

// A file's own name is not in the script: Nextflow escapes names for a place without quotes alone.
process EMBED {
    tag "${name}"
    label 'gpu'
    container "${params.container}"
    publishDir "${params.outdir}", mode: 'copy', saveAs: { "${name}.h5" }

    input:
    tuple val(name), path(fasta, stageAs: 'input.fasta')
    val model
    path weights, stageAs: 'weights'

    output:
    tuple val(name), path('embeddings.h5')

    script:
    """
    export HF_HOME="\$PWD/weights" XDG_CACHE_HOME="\$PWD/weights/cache" HF_HUB_OFFLINE=1
    export TRITON_CACHE_DIR="\$PWD/.triton" # the image's may be for reading only
    producer submit input.fasta --local --model '${model}' --gpus '${params.gpus}' -o embeddings.h5
    """
}

workflow {
    if (!params.input) {
        error "Name the FASTA files: --input 'proteins/*.fasta'"
    }
    def inputs = files(params.input, checkIfExists: true)
    if (!inputs) {
        error "No file is named by --input '${params.input}'"
    }
    // What is published has the input's name: of two, one would be lost.
    def equal = inputs.groupBy { it.name }.findAll { it.value.size() > 1 }
    if (equal) {
        error "Files with the same name, of which each result would replace another: ${equal.values().flatten().join(', ')}. Rename them, or use a run with its own --outdir for each folder."
    }
    DOWNLOAD(params.model)
    EMBED(channel.fromList(inputs.collect { [it.name, it] }), params.model, DOWNLOAD.out)
}
