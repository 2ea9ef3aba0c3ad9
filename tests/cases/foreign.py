"""Texts and bytes that are something else than sequences."""

from tests.cases.case import refused

CASES = [
    refused(
        "no header",
        "MKTAYIAK\nGAVL\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got 'MKTAYIAK'. "
        "If it is a sequence without a header, put a line with > and an id before it.",
        seen="mdshw5/pyfaidx#144",
    ),
    refused(
        "letters before the first header",
        "mkt\n>a\nMKT\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got 'mkt'. If it"
        " is a sequence without a header, put a line with > and an id before it.",
    ),
    refused(
        "a letter to a reader",
        "Dear reader,\n\n>a\nMKT\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got 'Dear "
        "reader,'. If it is a table, name its column of sequences by --sequence-column.",
    ),
    refused(
        "GFF3",
        "##gff-version 3\nchr1\t.\tgene\t1\t9\n",
        "in, line 2: not FASTA. Expected '>' at beginning of record, but got "
        "'chr1\\t.\\tgene\\t1\\t9'. It looks like GFF: convert it to FASTA.",
    ),
    refused(
        "GFF3 with its sequences",
        "##gff-version 3\nchr1\t.\tgene\t1\t9\n##FASTA\n>a\nACGT\n",
        "in, line 2: not FASTA. Expected '>' at beginning of record, but got "
        "'chr1\\t.\\tgene\\t1\\t9'. It looks like GFF: convert it to FASTA.",
        dna=True,
        seen="biopython/biopython#4780",
    ),
    refused(
        "VCF",
        "##fileformat=VCFv4.2\n#CHROM\tPOS\nchr1\t1\n",
        "in, line 3: not FASTA. Expected '>' at beginning of record, but got 'chr1\\t1'. "
        "It looks like VCF: name the FASTA of its sequences.",
        dna=True,
    ),
    refused(
        "NEXUS",
        "#NEXUS\nBEGIN DATA;\n",
        "in, line 2: not FASTA. Expected '>' at beginning of record, but got 'BEGIN "
        "DATA;'. It looks like NEXUS: convert it to FASTA.",
    ),
    refused(
        "Stockholm",
        "# STOCKHOLM 1.0\n\nseq1  MKT\n//\n",
        "in, line 3: not FASTA. Expected '>' at beginning of record, but got 'seq1  MKT'."
        " It looks like Stockholm: convert it to FASTA.",
    ),
    refused(
        "PHYLIP",
        " 2 3\na         MKT\nb         GAV\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got '2 3'. It "
        "looks like PHYLIP: convert it to FASTA.",
    ),
    refused(
        "PDB",
        "HEADER    OXYGEN TRANSPORT\nATOM      1  N   VAL A   1\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got 'HEADER    "
        "OXYGEN TRANSPORT'. It looks like PDB: convert it to FASTA.",
    ),
    refused(
        "mmCIF",
        "data_4HHB\n#\nloop_\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got 'data_4HHB'."
        " It looks like mmCIF: convert it to FASTA.",
    ),
    refused(
        "UniProt's text",
        "ID   HBA_HUMAN   Reviewed;  142 AA.\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got 'ID   "
        "HBA_HUMAN   Reviewed;  142 AA.'. It looks like EMBL or UniProt's text: convert "
        "it to FASTA.",
    ),
    refused(
        "a list of JSON",
        '["MKT"]\n',
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got '[\"MKT\"]'. "
        "It looks like JSON: convert it to FASTA.",
    ),
    refused(
        "RTF",
        "{\\rtf1\\ansi\n>a\\\nMKT}\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got "
        "'{\\\\rtf1\\\\ansi'. It looks like RTF: save it as plain text.",
    ),
    refused(
        "a page that says sign in",
        "<!DOCTYPE html>\n<title>Sign in</title>\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got '<!DOCTYPE "
        "html>'. It looks like XML or HTML: download it again if it is an error's page, "
        "or convert it to FASTA.",
    ),
    refused(
        "a pointer of Git LFS",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got 'version "
        "https://git-lfs.github.com/spec/v1'. It looks like a pointer of Git LFS: fetch "
        "the file by git lfs pull.",
    ),
    refused(
        "a path in place of a sequence",
        "/data/proteins.fa\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got "
        "'/data/proteins.fa'. What is read is FASTA, FASTQ, CSV, TSV, Parquet, BAM or "
        "CRAM, plain or packed as .gz, .bz2, .xz or .zst.",
    ),
    refused(
        "SAM",
        "@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:100\nr\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\tIIII\n",
        "in looks like SAM, which is not read. Convert it to BAM by samtools view -b.",
        dna=True,
    ),
    refused(
        "an accent of Latin-1 in the first header",
        b">prot\xe9ine\nMKT\n",
        "in, line 1: byte 0xe9 is not text in UTF-8. If it is a letter with an accent, "
        "save the file as UTF-8 (iconv -f LATIN1 -t UTF-8); if not, the file may be "
        "damaged.",
    ),
    refused(
        "a quote of Windows in a later header",
        b">a\nMKT\n>5\x92 end\nMKT\n",
        "in, line 3: byte 0x92 is not text in UTF-8. If it is a letter with an accent, "
        "save the file as UTF-8 (iconv -f LATIN1 -t UTF-8); if not, the file may be "
        "damaged.",
    ),
    refused(
        "half a letter of UTF-8 at the end",
        b">a\nMKT\n>caf\xc3",
        "in, line 3: byte 0xc3 is not text in UTF-8. If it is a letter with an accent, "
        "save the file as UTF-8 (iconv -f LATIN1 -t UTF-8); if not, the file may be "
        "damaged.",
    ),
    refused(
        "UTF-16 of little ends",
        ">a\nMKT\n".encode("utf-16-le").join([b"\xff\xfe", b""]),
        "in: its text is UTF-16, as some editors write it. Save it as UTF-8 (iconv -f "
        "UTF-16 -t UTF-8).",
    ),
    refused(
        "UTF-16 without a mark",
        ">a\nMKT\n".encode("utf-16-le"),
        "in: its text is UTF-16, as some editors write it. Save it as UTF-8 (iconv -f "
        "UTF-16 -t UTF-8).",
    ),
    refused(
        "a picture",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "in: neither text nor another format that is read. Give FASTA, FASTQ, CSV, TSV, "
        "Parquet, BAM or CRAM, plain or packed as .gz, .bz2, .xz or .zst.",
    ),
    refused(
        "a program",
        b"\x7fELF\2\1\1\0\0\0\0\0\0\0\0\0\3\0>\0",
        "in: neither text nor another format that is read. Give FASTA, FASTQ, CSV, TSV, "
        "Parquet, BAM or CRAM, plain or packed as .gz, .bz2, .xz or .zst.",
    ),
    refused(
        "a pickle with sequences",
        b"\x80\x03}q\0(X\x02\0\0\0d3q\1X\3\0\0\0MKTq\2u.",
        ("in looks like a pickle of Python, which is not read. Write its sequences as FASTA."),
        seen="gcorso/DiffDock#209",
    ),
    refused(
        "HDF5",
        b"\x89HDF\r\n\x1a\n" + bytes(40),
        ("in looks like HDF5, which is not read. Name the file that its embeddings were made of."),
    ),
    refused(
        "an array of NumPy",
        b"\x93NUMPY\1\0v\0{'descr'",
        ("in looks like an array of NumPy, which is not read. Write its sequences as FASTA."),
    ),
    refused(
        "SRA",
        b"NCBI.sra\5\3\x19\x88" + bytes(20),
        "in looks like SRA, which is not read. Convert it by fasterq-dump.",
        dna=True,
    ),
    refused(
        "2bit",
        b"\x43\x27\x41\x1a" + bytes(20),
        "in looks like 2bit, which is not read. Convert it by twoBitToFa.",
        dna=True,
    ),
    refused(
        "SQLite",
        b"SQLite format 3\0" + bytes(20),
        ("in looks like a database of SQLite, which is not read. Write its sequences as FASTA."),
    ),
    refused(
        "a sheet of old Excel",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(20),
        "t.xls looks like a document of Excel or Word, which is not read. Save it as CSV,"
        " or as plain text.",
        name="t.xls",
    ),
]
