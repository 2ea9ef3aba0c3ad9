"""FASTQ, whole and broken."""

from functools import partial

from tests.cases.case import gz
from tests.cases.case import read as any_read
from tests.cases.case import refused as any_refused

read, refused = partial(any_read, dna=True), partial(any_refused, dna=True)

WHOLE = "@a\nAC\n+\nII\n"

CASES = [
    read("FASTQ named as FASTA", "@r1 x\nACGT\n+\nIIII\n", ("r1 x", "ACGT"), name="in.fa"),
    read("FASTQ with Windows line ends", "@r\r\nAC\r\n+\r\nII\r\n", ("r", "AC")),
    read("FASTQ with a byte order mark", "\ufeff@r\nAC\n+\nII\n", ("r", "AC")),
    read("FASTQ whose sequence takes several lines", "@r\nAC\nGT\n+\nII\nII\n", ("r", "ACGT")),
    read(
        "FASTQ with qualities that begin with @",
        "@r\nAC\n+\n@I\n@s\nGT\n+\n@@\n",
        ("r", "AC"),
        ("s", "GT"),
    ),
    read(
        "FASTQ with qualities that begin with > and +",
        "@r\nAC\n+\n>I\n@s\nG\n+\n+\n",
        ("r", "AC"),
        ("s", "G"),
    ),
    read("FASTQ with the name after +", "@r x\nAC\n+r x\nII\n", ("r x", "AC")),
    read("FASTQ with another name after +", "@r\nAC\n+s\nII\n", ("r", "AC")),
    read("FASTQ without a newline at the end", "@r\nAC\n+\nII", ("r", "AC")),
    read(
        "FASTQ with blank lines between reads",
        f"{WHOLE}\n\n{WHOLE}\n",
        ("a", "AC"),
        ("a", "AC"),
        counts={"duplicates": 1},
    ),
    read(
        "FASTQ with points for unknown bases, as N",
        "@r\nAC.G\n+\nIIII\n",
        ("r", "ACNG"),
        options={"unknown": "x"},
        counts={"replaced": 1},
    ),
    read("FASTQ with small letters", "@r\nacgn\n+\nIIII\n", ("r", "ACGN")),
    read("FASTQ of RNA", "@r\nACGU\n+\nIIII\n", ("r", "ACGT"), counts={"rna": 1}),
    read(
        "FASTQ with an empty read, left out",
        f"@r\n\n+\n\n{WHOLE}",
        ("a", "AC"),
        rows=(1,),
        options={"empty": "skip"},
        counts={"empty": 1},
    ),
    read(
        "FASTQ in two members of gzip",
        gz(WHOLE.encode()) * 2,
        ("a", "AC"),
        ("a", "AC"),
        counts={"duplicates": 1},
        seen="OpenGene/fastp#711",
    ),
    refused(
        "FASTQ with an empty read",
        "@r\n\n+\n\n@s\nAC\n+\nII\n",
        "in, line 1: record 1 ('r') has no sequence. Remove it, or set empty to skip "
        "(leave such records out).",
    ),
    refused(
        "FASTQ that ends in its qualities",
        f"{WHOLE}@r\nACGT\n+\nIII\n",
        "in, line 5: the last record, 'r', is cut short: 3 of 4 qualities are there. Is "
        "the file complete?",
        seen="jdidion/atropos#19",
    ),
    refused(
        "FASTQ that ends before its qualities",
        f"{WHOLE}@r\nACGT\n+\n",
        "in, line 5: the last record, 'r', is cut short: 0 of 4 qualities are there. Is "
        "the file complete?",
    ),
    refused(
        "FASTQ that ends after +",
        f"{WHOLE}@r\nACGT\n+",
        "in, line 5: the last record, 'r', is cut short: 0 of 4 qualities are there. Is "
        "the file complete?",
    ),
    refused(
        "FASTQ that ends after a sequence",
        f"{WHOLE}@r\nACGT\n",
        "in, line 5: the last record, 'r', is cut short: it has no line with + after its "
        "sequence. Is the file complete?",
    ),
    refused(
        "FASTQ that ends in a header",
        f"{WHOLE}@r",
        "in, line 5: the last record, 'r', is cut short: it has no line with + after its "
        "sequence. Is the file complete?",
    ),
    refused(
        "FASTQ with too many qualities",
        "@r\nAC\n+\nIII\n",
        "in, line 4: not FASTQ: record 'r' has 3 qualities for 2 letters. The file may be damaged.",
        seen="marcelm/cutadapt#105",
    ),
    refused(
        "FASTQ with too few qualities",
        "@r\nACGT\n+\nIII\n@s\nAC\n+\nII\n",
        "in, line 5: not FASTQ: record 'r' has 5 qualities for 4 letters. The file may be damaged.",
        seen="pysam-developers/pysam#841",
    ),
    refused(
        "FASTQ without +",
        "@r\nAC\nII\n@s\nAC\n+\nII\n",
        "in, line 4: not FASTQ: expected a sequence or '+', but got '@s'. The file may be damaged.",
    ),
    refused(
        "FASTQ and then text",
        f"{WHOLE}xx\n",
        "in, line 5: not FASTQ: expected '@' at beginning of record, but got 'xx'. The "
        "file may be damaged.",
    ),
    refused(
        "FASTQ and then FASTA",
        f"{WHOLE}>b\nAC\n",
        "in, line 5: not FASTQ: expected '@' at beginning of record, but got '>b'. The "
        "file may be damaged.",
    ),
    refused(
        "FASTQ without letters but a >",
        "@r\n>AC\n+\nIII\n",
        "in, line 2: not FASTQ: expected a sequence or '+', but got '>AC'. The file may "
        "be damaged.",
    ),
    refused(
        "FASTQ with a comment for a sequence",
        "@r\n#AC\n+\nIII\n",
        "in, line 2: not FASTQ: expected a sequence or '+', but got '#AC'. The file may be "
        "damaged.",
    ),
    refused(
        "FASTQ with @ between letters",
        "@r\nA@C\n+\nIII\n",
        "in, line 2: record 1 ('r') has '@' at position 2, which is not one of the model's bases. "
        "Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "FASTQ of colours",
        "@r\nT0123\n+\nIIIII\n",
        "in, line 2: record 1 ('r') has '0' at position 2, which is not one of the "
        "model's bases. Digits are no sequence: are they line numbers, or is it no FASTA?"
        " Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "FASTQ with a number in it",
        f"{WHOLE}@r\nAC\nA1\n+\nIIII\n",
        "in, line 7: record 2 ('r') has '1' at position 4, which is not one of the "
        "model's bases. Digits are no sequence: are they line numbers, or is it no FASTA?"
        " Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "FASTQ of proteins",
        "@r\nMEFLP\n+\nIIIII\n",
        "in, line 2: record 1 ('r') has 'E' at position 2, which is not one of the "
        "model's bases. It looks like a protein: give a protein model. Fix it, or set "
        "unknown to x (embed it as N) or to skip (leave such records out).",
    ),
    refused(
        "FASTQ with a byte that is no text",
        b"@r\nAC\n+\nI\xff\n",
        "in, line 4: byte 0xff is not text in UTF-8. If it is a letter with an accent, "
        "save the file as UTF-8 (iconv -f LATIN1 -t UTF-8); if not, the file may be "
        "damaged.",
    ),
    refused(
        "FASTQ with a NUL in a header",
        "@r\nAC\n+\nII\n@\0\nA\n+\nI\n",
        "in, line 5: record 2 ('\\x00') has a NUL in its header. The file may be damaged.",
    ),
    refused(
        "FASTQ of an empty line only",
        "@",
        "in, line 1: the last record, '', is cut short: it has no line with + after its "
        "sequence. Is the file complete?",
    ),
    refused(
        "FASTQ cut inside gzip",
        lambda: gz(WHOLE.encode() * 9)[:-9],
        "in.fq.gz, after record 0: cannot be read to its end (...). Is the file complete?"
        " Nothing was queued.",
        name="in.fq.gz",
        seen="OpenGene/fastp#264",
    ),
]
