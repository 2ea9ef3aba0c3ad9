version 1.0

# Calls contigs viral or not, as VirNucPro does: each file by a fleet of its own, which lasts as long as the task.
# docs/virnucpro.md explains it.
#
#   miniwdl run deploy/wdl/predict.wdl contigs=contigs.fna classifier=500_model.pth

import "embed.wdl" as embedding

workflow predict {
    input {
        Array[File]+ contigs
        File classifier
        Int? chunk
        String dna_model = "dnabert_s"
        String protein_model = "esm2_t36_3B_UR50D"
        Array[File] weights = []
        String gpus = "required"
        String docker = "virnucpro-pipeline:gpu"
    }

    if (length(weights) == 0) {
        scatter (model in [dna_model, protein_model]) {
            call embedding.download {
                input:
                    model = model,
                    docker = docker
            }
        }
    }

    Array[File] all_weights = if length(weights) > 0 then weights else select_first([download.weights])

    scatter (file in contigs) {
        call predict_file {
            input:
                contigs = file,
                classifier = classifier,
                chunk = chunk,
                dna_model = dna_model,
                protein_model = protein_model,
                weights = all_weights,
                gpus = gpus,
                docker = docker
        }
    }

    output {
        Array[File] calls = predict_file.calls
        Array[File] frames = predict_file.frames
        Array[File] chunks = predict_file.chunks
        Array[File] reports = predict_file.report
        Array[File] weights_used = all_weights
    }

    parameter_meta {
        contigs: "contigs or reads: FASTA or FASTQ, plain or compressed, or BAM"
        classifier: "300_model.pth, 500_model.pth, or what producer train-classifier wrote"
        chunk: "bases of a chunk; default: those of the classifier"
        dna_model: "model of the DNA: of the Hugging Face hub, or s3://bucket/key"
        protein_model: "model of the proteins"
        weights: "weights_used of an earlier run; without it they are downloaded"
        gpus: "required, all or numbers such as 0,1; none for the CPU"
        docker: "the image: virnucpro-pipeline:gpu or virnucpro-pipeline:cpu"
    }
}

task predict_file {
    input {
        File contigs
        File classifier
        Int? chunk
        String dna_model
        String protein_model
        Array[File] weights
        String gpus
        String docker
    }

    command <<<
        set -eu
        # A name may have any character but a line's end: in a file none has to be escaped.
        while IFS= read -r archive; do tar -xf "$archive"; done < ~{write_lines(weights)}
        export HF_HOME="$PWD/weights" XDG_CACHE_HOME="$PWD/weights/cache" HF_HUB_OFFLINE=1
        export TRITON_CACHE_DIR="$PWD/.triton" # the image's may be for reading only
        producer predict "$(cat ~{write_lines([contigs])})" --classifier "$(cat ~{write_lines([classifier])})" \
            --dna-model '~{dna_model}' --protein-model '~{protein_model}' ~{"--chunk " + chunk} \
            --local --gpus '~{gpus}' -o calls
        rm -rf weights
    >>>

    output {
        File calls = "calls/contigs.tsv"
        File frames = "calls/prediction_results.txt"
        File chunks = "calls/prediction_results_highestscore.csv"
        File report = "calls/report.html"
    }

    runtime {
        docker: docker
        cpu: 4
        memory: "24 GB"
        gpu: gpus != "none"
        maxRetries: 2
    }
}
