"""Folders, patterns, lists and several files: what is found, and what is not there."""

from tests.cases.case import Case, gz

A, B = ">a\nMKT\n", ">b\nGAV\n"
BOTH = (("a", "MKT"), ("b", "GAV"))

CASES = [
    Case(kind="two files", files={"1.fa": A, "2.fa": B}, read=BOTH),
    Case(
        kind="files of two formats", files={"1.fa": A, "2.csv": "id,sequence\nb,GAV\n"}, read=BOTH
    ),
    Case(
        kind="a file without a newline before another",
        files={"1.fa": ">a\nMKT", "2.fa": B},
        read=BOTH,
    ),
    Case(
        kind="a folder with hidden files and notes",
        files={"d/1.fa": A, "d/2.FASTA": B, "d/.3.fa": "x", "d/n.md": "x"},
        named=("d",),
        read=BOTH,
    ),
    Case(
        kind="a folder with the files of a Mac",
        files={"d/1.fa": A, "d/._1.fa": b"\0\5\x16\7", "d/2.fa": B},
        named=("d",),
        read=BOTH,
    ),
    Case(
        kind="a pattern that finds other suffixes",
        files={"1.txt": A, "2.txt": B},
        named=("*.txt",),
        read=BOTH,
    ),
    Case(
        kind="a file with signs of a pattern in its name",
        files={"a[1].fa": A},
        named=("a[1].fa",),
        read=BOTH[:1],
    ),
    Case(
        kind="a list with a byte order mark, comments and Windows line ends",
        files={"1.fa": A, "2.fa": B, "l.txt": "\ufeff1.fa\r\n\r\n# x\r\n 2.fa \r\n"},
        named=(),
        lists=("l.txt",),
        read=BOTH,
    ),
    Case(
        kind="an empty file among others, left out",
        files={"1.fa": A, "2.fa": "", "3.fa": B},
        read=BOTH,
        options={"empty": "skip"},
    ),
    Case(kind="a file with a space in its name", files={"my proteins.fa": A}, read=BOTH[:1]),
    Case(kind="no such file", named=("no.fa",), refused="no.fa: no such file (looked in {here})."),
    Case(
        kind="a home that is nobody's",
        named=("~no-such-user/x.fa",),
        refused=(
            "~no-such-user/x.fa: the home folder of '~no-such-user' is not known. Write the "
            "whole path."
        ),
    ),
    Case(
        kind="a pattern that finds nothing",
        files={"1.fa": A},
        named=("*.gbk",),
        refused="*.gbk: no file matches this pattern (looked in {here}).",
    ),
    Case(
        kind="a folder without files",
        files={"d/e/1.fa": A},
        named=("d",),
        refused=(
            "d: the folder has no file to read. Looked for .fasta, .fa, .faa, .fna, .fas, "
            ".pep, .fastq, .fq, each also with .gz, .bz2, .xz, .zst. For deeper folders give "
            "a pattern, as 'd/**/*.fa'; it also finds other suffixes."
        ),
    ),
    Case(
        kind="a folder with other files only",
        files={"d/notes.txt": "x"},
        named=("d/",),
        refused=(
            "d/: the folder has no file to read, only 1 other. Looked for .fasta, .fa, .faa, "
            ".fna, .fas, .pep, .fastq, .fq, each also with .gz, .bz2, .xz, .zst. For deeper "
            "folders give a pattern, as 'd/**/*.fa'; it also finds other suffixes."
        ),
    ),
    Case(
        kind="a folder with tables only",
        files={"d/1.csv": "x", "d/2.csv": "x"},
        named=("d",),
        refused=(
            "d: the folder has no file to read, only 2 others. Looked for .fasta, .fa, .faa, "
            ".fna, .fas, .pep, .fastq, .fq, each also with .gz, .bz2, .xz, .zst. For deeper "
            "folders give a pattern, as 'd/**/*.fa'; it also finds other suffixes."
        ),
    ),
    Case(
        kind="a file that is named twice",
        files={"1.fa": A},
        named=("1.fa", "./1.fa"),
        refused=(
            "./1.fa is given twice: name it once. A pattern, a folder or a list may name it too."
        ),
    ),
    Case(
        kind="a file that its folder has too",
        files={"d/1.fa": A},
        named=("d/1.fa", "d"),
        refused=(
            "d/1.fa is given twice: name it once. A pattern, a folder or a list may name it too."
        ),
    ),
    Case(
        kind="a bad record in the second file",
        files={"1.fa": A, "2.fa": ">b\nG1\n"},
        refused=(
            "2.fa, line 2: record 1 ('b') has '1' at position 2, which is not one of the "
            "model's amino acids. Digits are no sequence: are they line numbers, or is it no "
            "FASTA? Fix it, or set unknown to skip (leave such records out)."
        ),
    ),
    Case(
        kind="bad records in two files",
        files={"1.fa": ">a\nM1\n", "2.fa": A + ">b\nG2\n"},
        refused=(
            "1.fa and 1 more source: 2 records cannot be embedded.\n  1.fa, line 2: record 1 "
            "('a') has '1' at position 2, which is not one of the model's amino acids.\n  "
            "2.fa, line 4: record 2 ('b') has '2' at position 2, which is not one of the "
            "model's amino acids.\nDigits are no sequence: are they line numbers, or is it no "
            "FASTA? Fix it, or set unknown to skip (leave such records out)."
        ),
    ),
    Case(
        kind="an empty file among others",
        files={"1.fa": A, "2.fa": ""},
        refused="2.fa is empty: it contains no record. Leave the file out, or set empty to skip.",
    ),
    Case(
        kind="only empty files, left out",
        files={"1.fa": "", "2.fa": ""},
        options={"empty": "skip"},
        refused=(
            "1.fa and 1 more source: nothing is left to embed: all files are empty. Is it the"
            " right input?"
        ),
    ),
    Case(
        kind="a file of no format among others",
        files={"1.fa": A, "2.fa": "MKT\n"},
        refused=(
            "2.fa, line 1: not FASTA. Expected '>' at beginning of record, but got 'MKT'. If "
            "it is a sequence without a header, put a line with > and an id before it."
        ),
    ),
    Case(
        kind="a table without its columns among others",
        files={"1.fa": A, "2.csv": "x,y\n1,MKT\n"},
        refused=(
            "2.csv has no column 'id'. Its columns are 'x', 'y': name the one with the ids by"
            " --id-column (in Python: id_column)."
        ),
    ),
    Case(
        kind="no such list",
        lists=("l.txt",),
        refused="--from l.txt: cannot be read (No such file or directory).",
    ),
    Case(
        kind="a list that names nothing",
        files={"l.txt": "# none\n\n"},
        lists=("l.txt",),
        refused="--from l.txt: it names no file. Write a path into each line.",
    ),
    Case(
        kind="a list that is no text",
        files={"l.txt": b"\x89PNG\r\n"},
        lists=("l.txt",),
        refused="--from l.txt: cannot be read (not a text in UTF-8).",
    ),
    Case(
        kind="a list that is a folder",
        files={"l/1.fa": A},
        lists=("l",),
        refused="--from l: cannot be read (Is a directory).",
    ),
    Case(
        kind="a list that names what is not there",
        files={"1.fa": A, "l.txt": "1.fa\n\nno.fa\n"},
        lists=("l.txt",),
        refused="--from l.txt, line 3: no.fa: no such file (looked in {here}).",
    ),
    Case(
        kind="a list that is the FASTA itself",
        files={"1.fa": A},
        lists=("1.fa",),
        refused="--from 1.fa, line 1: >a: no such file (looked in {here}).",
    ),
    Case(
        kind="a list that names a file twice",
        files={"1.fa": A, "l.txt": "1.fa\n1.fa\n"},
        lists=("l.txt",),
        refused=(
            "1.fa is given twice: name it once. A pattern, a folder or a list may name it too."
        ),
    ),
    # --- buckets --------------------------------------------------------------------------------
    Case(
        kind="an object whose name has no suffix",
        objects={"odd/1/a": A},
        named=("s3://embeddings/odd/1/a",),
        read=BOTH[:1],
    ),
    Case(
        kind="a prefix with notes, hidden and deeper objects",
        objects={"odd/2/1.fa": A, "odd/2/n.md": "x", "odd/2/.2.fa": "x", "odd/2/d/3.fa": B},
        named=("s3://embeddings/odd/2/",),
        read=BOTH[:1],
    ),
    Case(
        kind="a pattern of objects",
        objects={"odd/3/1.txt": A, "odd/3/d/2.txt": B},
        named=("s3://embeddings/odd/3/*.txt",),
        read=BOTH,
    ),
    Case(
        kind="a bucket without a name",
        named=("s3:///x.fa",),
        refused="s3:///x.fa names no bucket: write s3://bucket/key.",
    ),
    Case(
        kind="a prefix without objects",
        objects={"odd/4/1.fa": A},
        named=("s3://embeddings/odd/none/",),
        refused=(
            "s3://embeddings/odd/none/: the prefix has no object to read. Looked for .fasta, "
            ".fa, .faa, .fna, .fas, .pep, .fastq, .fq, each also with .gz, .bz2, .xz, .zst. "
            "For deeper objects give a pattern, as 's3://embeddings/odd/none/*.fa'; it also "
            "finds other suffixes."
        ),
    ),
    Case(
        kind="a prefix with tables only",
        objects={"odd/5/1.csv": "x"},
        named=("s3://embeddings/odd/5/",),
        refused=(
            "s3://embeddings/odd/5/: the prefix has no object to read, only 1 other. Looked "
            "for .fasta, .fa, .faa, .fna, .fas, .pep, .fastq, .fq, each also with .gz, .bz2, "
            ".xz, .zst. For deeper objects give a pattern, as 's3://embeddings/odd/5/*.fa'; "
            "it also finds other suffixes."
        ),
    ),
    Case(
        kind="a pattern that matches no object",
        objects={"odd/6/1.fa": A},
        named=("s3://embeddings/odd/6/*.faa",),
        refused=(
            "s3://embeddings/odd/6/*.faa: no object matches this pattern (looked at 1 object "
            "below s3://embeddings/odd/6/)."
        ),
    ),
    Case(
        kind="an object that is named twice",
        objects={"odd/7/1.fa": A},
        named=("s3://embeddings/odd/7/1.fa", "s3://embeddings/odd/7/"),
        refused=(
            "s3://embeddings/odd/7/1.fa is given twice: name it once. A pattern, a folder or "
            "a list may name it too."
        ),
    ),
    Case(
        kind="an empty object",
        objects={"odd/8/1.fa": ""},
        named=("s3://embeddings/odd/8/1.fa",),
        refused="s3://embeddings/odd/8/1.fa is empty: it contains no record.",
    ),
    Case(
        kind="an object that is cut inside gzip",
        objects={"odd/9/1.fa.gz": gz(A.encode())[:-9]},
        named=("s3://embeddings/odd/9/1.fa.gz",),
        refused=(
            "s3://embeddings/odd/9/1.fa.gz, after record 0: cannot be read to its end (...). "
            "Is the file complete? Nothing was queued."
        ),
    ),
    Case(
        kind="a BAM file in a bucket",
        objects={"odd/10/1.bam": gz(b"BAM\1")},
        named=("s3://embeddings/odd/10/1.bam",),
        refused=(
            "s3://embeddings/odd/10/1.bam: BAM and CRAM are read from a file only: save it as"
            " one first, and name that."
        ),
    ),
]
