// Calls contigs viral or not, as VirNucPro does: each file by a fleet of its own, which lasts as long as the task.
// docs/virnucpro.md explains it.
//
//   nextflow run deploy/nextflow/predict.nf -profile docker --input 'contigs/*.fna' --classifier 500_model.pth --outdir calls

include { DOWNLOAD } from './embed.nf'

params.classifier = null                        // 300_model.pth, 500_model.pth, or one of your own
params.dna_model = 'dnabert_s'
params.protein_model = 'esm2_t36_3B_UR50D'

// A file's own name is not in the script: Nextflow escapes names for a place without quotes alone.
process PREDICT {
    tag "${name}"
    label 'gpu'
    container "${params.container}"
    memory '24 GB'
    publishDir "${params.outdir}", mode: 'copy', saveAs: { "${name}.calls" }

    input:
    tuple val(name), path(contigs, stageAs: 'contigs.fna')
    path classifier, stageAs: 'classifier/*'
    path weights, stageAs: 'weights-?'

    output:
    tuple val(name), path('calls')

    script:
    """
    mkdir weights
    for folder in weights-*; do cp -rsn "\$PWD/\$folder/." weights; done
    export HF_HOME="\$PWD/weights" XDG_CACHE_HOME="\$PWD/weights/cache" HF_HUB_OFFLINE=1
    export TRITON_CACHE_DIR="\$PWD/.triton" # the image's may be for reading only
    producer predict contigs.fna --classifier classifier/* --local --gpus '${params.gpus}' \\
        --dna-model '${params.dna_model}' --protein-model '${params.protein_model}' -o calls
    """
}

workflow {
    if (!params.input || !params.classifier) {
        error "Name the contigs and the classifier: --input 'contigs/*.fna' --classifier 500_model.pth"
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
    DOWNLOAD(channel.of(params.dna_model, params.protein_model))
    PREDICT(channel.fromList(inputs.collect { [it.name, it] }), file(params.classifier, checkIfExists: true), DOWNLOAD.out.collect())
}
