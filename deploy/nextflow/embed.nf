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

process EMBED {
    tag "${fasta.name}"
    label 'gpu'
    container "${params.container}"
    publishDir "${params.outdir}", mode: 'copy'

    input:
    path fasta
    val model
    path weights

    output:
    path "${fasta.name}.h5"

    script:
    """
    export HF_HOME="\$PWD/${weights}" XDG_CACHE_HOME="\$PWD/${weights}/cache" HF_HUB_OFFLINE=1
    export TRITON_CACHE_DIR="\$PWD/.triton" # the image's may be for reading only
    producer submit '${fasta}' --local --model '${model}' --gpus '${params.gpus}' -o '${fasta.name}.h5'
    """
}

workflow {
    if (!params.input) {
        error "Name the FASTA files: --input 'proteins/*.fasta'"
    }
    DOWNLOAD(params.model)
    EMBED(channel.fromPath(params.input, checkIfExists: true), params.model, DOWNLOAD.out)
}
