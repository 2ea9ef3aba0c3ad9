version 1.0

# Embeds FASTA files: each by a fleet of its own, which lasts as long as the task. docs/deploy.md explains it.
#
#   miniwdl run deploy/wdl/embed.wdl fasta=proteins.fasta

workflow embed {
    input {
        Array[File]+ fasta
        String model = "esm2_t33_650M_UR50D"
        File? weights
        String gpus = "required"
        String docker = "virnucpro-pipeline:gpu"
    }

    if (!defined(weights)) {
        call download {
            input:
                model = model,
                docker = docker
        }
    }

    scatter (file in fasta) {
        call embed_file {
            input:
                fasta = file,
                model = model,
                weights = select_first([weights, download.weights]),
                gpus = gpus,
                docker = docker
        }
    }

    output {
        Array[File] embeddings = embed_file.embeddings
        File weights_used = select_first([weights, download.weights])
    }

    parameter_meta {
        fasta: "FASTA files, plain or compressed"
        model: "model of the Hugging Face hub, or s3://bucket/key"
        weights: "weights_used of an earlier run; without it they are downloaded"
        gpus: "required, all or numbers such as 0,1; none for the CPU"
        docker: "the image: virnucpro-pipeline:gpu or virnucpro-pipeline:cpu"
    }
}

task download {
    input {
        String model
        String docker
    }

    command <<<
        set -eu
        export HF_HOME="$PWD/weights" XDG_CACHE_HOME="$PWD/weights/cache"
        worker download --model '~{model}'
        tar -cf weights.tar weights
    >>>

    output {
        File weights = "weights.tar"
    }

    runtime {
        docker: docker
        cpu: 1
        memory: "4 GB"
    }
}

task embed_file {
    input {
        File fasta
        String model
        File weights
        String gpus
        String docker
    }

    String name = basename(fasta) + ".h5"

    command <<<
        set -eu
        # A name may have any character but a line's end: in a file none has to be escaped.
        tar -xf "$(cat ~{write_lines([weights])})"
        export HF_HOME="$PWD/weights" XDG_CACHE_HOME="$PWD/weights/cache" HF_HUB_OFFLINE=1
        export TRITON_CACHE_DIR="$PWD/.triton" # the image's may be for reading only
        producer submit "$(cat ~{write_lines([fasta])})" --local --model '~{model}' --gpus '~{gpus}' \
            -o "$PWD/$(cat ~{write_lines([name])})"
        rm -r weights
    >>>

    output {
        File embeddings = name
    }

    runtime {
        docker: docker
        cpu: 4
        memory: "16 GB"
        gpu: gpus != "none"
        maxRetries: 2
    }
}
