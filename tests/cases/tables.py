"""CSV and TSV, whole and broken."""

from producer.input.columns import Columns
from tests.cases.case import read, refused

SEQ = {"columns": Columns("acc", "seq")}

CASES = [
    read(
        "CSV with a byte order mark, as of Excel",
        "\ufeffid,sequence\na,MKT\n",
        ("a", "MKT"),
        name="t.csv",
    ),
    read("CSV with semicolons", "id;sequence\na;MKT\n", ("a", "MKT"), name="t.csv"),
    read("TSV named CSV", "id\tsequence\na\tMKT\n", ("a", "MKT"), name="t.csv"),
    read("CSV named TSV", "id,sequence\na,MKT\n", ("a", "MKT"), name="t.tsv"),
    read("CSV with Windows line ends", "id,sequence\r\na,MKT\r\n", ("a", "MKT"), name="t.csv"),
    read(
        "CSV whose header has blanks and capitals",
        " ID , Sequence \na,MKT\n",
        ("a", "MKT"),
        name="t.csv",
    ),
    read(
        "CSV with a number of each row before, as of pandas",
        ",id,sequence\n0,a,MKT\n1,b,GAV\n",
        ("a", "MKT"),
        ("b", "GAV"),
        name="t.csv",
    ),
    read(
        "CSV with a sequence over two lines in quotes",
        'id,sequence\na,"MK\nT"\n',
        ("a", "MKT"),
        name="t.csv",
    ),
    read(
        "CSV with quotes in quotes", 'id,sequence\n"a ""x""",MKT\n', ('a "x"', "MKT"), name="t.csv"
    ),
    read("CSV with blank lines", "id,sequence\n\na,MKT\n\n", ("a", "MKT"), name="t.csv"),
    read("CSV without ids", "id,sequence\n,MKT\n", ("", "MKT"), name="t.csv"),
    read(
        "CSV with empty cells, left out",
        "id,sequence\na,\nb,GAV\n",
        ("b", "GAV"),
        name="t.csv",
        rows=(1,),
        options={"empty": "skip"},
        counts={"empty": 1},
    ),
    read("CSV without a suffix, its columns named", "acc,seq\na,MKT\n", ("a", "MKT"), options=SEQ),
    read(
        "CSV with a cell of 200,000 letters",
        f"id,sequence\na,{'MK' * 100_000}\n",
        ("a", "MK" * 100_000),
        name="t.csv",
        options={"max_residues": 10**6},
    ),
    refused(
        "CSV without its suffix",
        "acc,seq\na,MKT\n",
        "in, line 1: not FASTA. Expected '>' at beginning of record, but got 'acc,seq'. "
        "If it is a table, name its column of sequences by --sequence-column.",
    ),
    refused(
        "CSV without the usual columns",
        "name,aa\na,MKT\n",
        "t.csv has no column 'id'. Its columns are 'name', 'aa': name the one with the "
        "ids by --id-column (in Python: id_column).",
        name="t.csv",
    ),
    refused(
        "CSV without the usual column of sequences",
        "id,aa\na,MKT\n",
        "t.csv has no column 'sequence'. Its columns are 'id', 'aa': name the one with "
        "the sequences by --sequence-column (in Python: sequence_column).",
        name="t.csv",
    ),
    refused(
        "CSV without the column that was named",
        "id,sequence\na,MKT\n",
        "t.csv has no column 'acc'. Its columns are 'id', 'sequence': name the one with "
        "the ids by --id-column (in Python: id_column).",
        name="t.csv",
        options=SEQ,
    ),
    refused(
        "CSV whose column has capitals where it was named without",
        "acc,SEQ\na,MKT\n",
        "t.csv has no column 'seq'. Its columns are 'acc', 'SEQ': name the one with the "
        "sequences by --sequence-column (in Python: sequence_column).",
        name="t.csv",
        options=SEQ,
    ),
    refused(
        "CSV with two columns of one name",
        "acc,seq,seq\na,MKT,GAV\n",
        "t.csv has two columns 'seq'. Its columns are 'acc', 'seq', 'seq': name the one "
        "with the sequences by --sequence-column (in Python: sequence_column).",
        name="t.csv",
        options=SEQ,
    ),
    refused(
        "CSV with thirty columns",
        ",".join(f"c{n}" for n in range(30)) + "\n",
        "t.csv has no column 'id'. Its columns are 'c0', 'c1', 'c2', 'c3', 'c4', 'c5', "
        "'c6', 'c7', 'c8', 'c9', 'c10', 'c11', 'c12', 'c13', 'c14', 'c15', 'c16', 'c17', "
        "'c18', 'c19' and 10 more: name the one with the ids by --id-column (in Python: "
        "id_column).",
        name="t.csv",
    ),
    refused(
        "CSV without a header",
        "a,MKT\nb,GAV\n",
        "t.csv has no column 'id'. Its columns are 'a', 'MKT': name the one with the ids "
        "by --id-column (in Python: id_column).",
        name="t.csv",
    ),
    refused(
        "CSV with a row that is short",
        "id,sequence\na,MKT\nb\n",
        "t.csv, line 3: the row has 1 column, but the header 2. Correct it; a cell that "
        "has the sign between columns in it needs quotes.",
        name="t.csv",
    ),
    refused(
        "CSV with a row that is long",
        "id,sequence\na,MKT,x\n",
        "t.csv, line 2: the row has 3 columns, but the header 2. Correct it; a cell that "
        "has the sign between columns in it needs quotes.",
        name="t.csv",
    ),
    refused(
        "CSV with a comma in a cell without quotes",
        "id,note,sequence\na,x, y,MKT\n",
        "t.csv, line 2: the row has 4 columns, but the header 3. Correct it; a cell that "
        "has the sign between columns in it needs quotes.",
        name="t.csv",
    ),
    refused(
        "CSV with a quote left open",
        'id,sequence\na,"MKT\n',
        "t.csv, line 2: not a row of a table (unexpected end of data). Is a quote left "
        "open, or the file cut short?",
        name="t.csv",
    ),
    refused(
        "CSV with text after a quote",
        'id,sequence\na,"MK"T\n',
        "t.csv, line 2: not a row of a table (',' expected after '\"'). Is a quote left "
        "open, or the file cut short?",
        name="t.csv",
    ),
    refused(
        "CSV with an empty cell",
        "id,sequence\na,\n",
        "t.csv, line 2: record 1 ('a') has no sequence. Remove it, or set empty to skip "
        "(leave such records out).",
        name="t.csv",
    ),
    refused(
        "CSV with an error of Excel",
        "id,sequence\na,#REF!\n",
        "t.csv, line 2: '#REF!' is not a sequence. Correct it, or name another column by "
        "--sequence-column (in Python: sequence_column).",
        name="t.csv",
    ),
    refused(
        "CSV with FASTA in its cells",
        "id,sequence\na,>MKT\n",
        "t.csv, line 2: '>MKT' is not a sequence. Correct it, or name another column by "
        "--sequence-column (in Python: sequence_column).",
        name="t.csv",
    ),
    refused(
        "CSV with a comment in a cell",
        "id,sequence\na,;MKT\n",
        "t.csv, line 2: ';MKT' is not a sequence. Correct it, or name another column by "
        "--sequence-column (in Python: sequence_column).",
        name="t.csv",
    ),
    refused(
        "CSV with a number in a sequence",
        "id,sequence\na,MKT\nb,MK1\n",
        "t.csv, line 3: record 2 ('b') has '1' at position 3, which is not one of the "
        "model's amino acids. Digits are no sequence: are they line numbers, or is it no "
        "FASTA? Fix it, or set unknown to skip (leave such records out).",
        name="t.csv",
    ),
    refused(
        "CSV with a sequence that is a number",
        "id,sequence\na,12.5\n",
        "t.csv, line 2: record 1 ('a') has '1' at position 1, which is not one of the "
        "model's amino acids. Digits are no sequence: are they line numbers, or is it no "
        "FASTA? Fix it, or set unknown to skip (leave such records out).",
        name="t.csv",
    ),
    refused(
        "CSV with a list in a cell",
        "id,sequence\na,\"['MKT']\"\n",
        "t.csv, line 2: record 1 ('a') has '[' at position 1, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
        name="t.csv",
    ),
    refused(
        "CSV with the line after a cell of two lines",
        'id,sequence\n"a\n",MKT\n\nb,M1\n',
        "t.csv, line 5: record 2 ('b') has '1' at position 2, which is not one of the "
        "model's amino acids. Digits are no sequence: are they line numbers, or is it no "
        "FASTA? Fix it, or set unknown to skip (leave such records out).",
        name="t.csv",
    ),
    refused(
        "CSV with only a header",
        "id,sequence\n",
        "t.csv is empty: it contains no record.",
        name="t.csv",
    ),
    refused("CSV of no byte", "", "t.csv is empty: it contains no record.", name="t.csv"),
    refused("CSV of blank lines", "\n\n", "t.csv is empty: it contains no record.", name="t.csv"),
    refused(
        "TSV of tabs",
        "\t\n\t\n",
        "t.tsv is empty: it contains no record.",
        name="t.tsv",
    ),
    refused(
        "FASTA named CSV",
        ">a\nMKT\n",
        "t.csv, line 1: expected the names of a table's columns, but got '>a'. If it is "
        "FASTA or FASTQ, give it a name without .csv or .tsv.",
        name="t.csv",
    ),
    refused(
        "CSV with an accent of Latin-1",
        b"id,sequence\nprot\xe9ine,MKT\n",
        "t.csv, line 2: byte 0xe9 is not text in UTF-8. If it is a letter with an accent,"
        " save the file as UTF-8 (iconv -f LATIN1 -t UTF-8); if not, the file may be "
        "damaged.",
        name="t.csv",
    ),
    refused(
        "CSV in UTF-16",
        "\ufeffid,sequence\na,MKT\n".encode("utf-16-le"),
        "t.csv: its text is UTF-16, as some editors write it. Save it as UTF-8 (iconv -f "
        "UTF-16 -t UTF-8).",
        name="t.csv",
    ),
    refused(
        "CSV with a NUL",
        "id,sequence\na\0,MKT\n",
        ("t.csv, line 2: record 1 ('a\\x00') has a NUL in its header. The file may be damaged."),
        name="t.csv",
    ),
    refused(
        "Excel named CSV",
        b"PK\3\4\x14\0\6\0\x08\0\0\0!\0\xe9",
        "t.csv looks like a ZIP archive, which is not read. Unpack it, or, of Excel, save"
        " the table as CSV.",
        name="t.csv",
    ),
]
