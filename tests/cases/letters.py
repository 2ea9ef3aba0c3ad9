"""FASTA with records that cannot be embedded; files of this kind are in ``cases.toml`` too."""

from tests.cases.case import read, refused

CASES = [
    refused(
        "only a header",
        ">a",
        "in, line 1: record 1 ('a') has no sequence. Remove it, or set empty to skip "
        "(leave such records out).",
    ),
    refused(
        "a header after a header",
        ">a\n>b\nMKT\n",
        "in, line 1: record 1 ('a') has no sequence. Remove it, or set empty to skip "
        "(leave such records out).",
    ),
    refused(
        "a number in a sequence",
        ">a\nMK\nT1A\n",
        "in, line 3: record 1 ('a') has '1' at position 4, which is not one of the "
        "model's amino acids. Digits are no sequence: are they line numbers, or is it no "
        "FASTA? Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "a comma between letters",
        ">a\nM,K,T\n",
        "in, line 2: record 1 ('a') has ',' at position 2, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "a slash, as between chains",
        ">a\nMKT/GAV\n",
        "in, line 2: record 1 ('a') has '/' at position 4, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "a colon, as between chains",
        ">a\nMKT:GAV\n",
        "in, line 2: record 1 ('a') has ':' at position 4, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "masked positions",
        ">a\nMK<mask>T\n",
        "in, line 2: record 1 ('a') has '<' at position 3, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
        seen="facebookresearch/esm#350",
    ),
    refused(
        "quotes around a sequence",
        '>a\n"MKT"\n',
        "in, line 2: record 1 ('a') has '\"' at position 1, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "secondary structure after a sequence",
        ">a\nMKT\n(((..)))\n",
        "in, line 3: record 1 ('a') has '(' at position 4, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "qualities after a sequence",
        ">a\nACGT\n+\nIIII\n",
        "in, line 3: record 1 ('a') has '+' at position 5, which is not one of the "
        "model's bases. Fix it, or set unknown to skip (leave such records out).",
        dna=True,
    ),
    refused(
        "a backslash at a line's end",
        ">a\nMKT\\\nGAV\n",
        "in, line 2: record 1 ('a') has '\\\\' at position 4, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "a Greek letter that looks like A",
        ">a\nMK\u0391\n",
        "in, line 2: record 1 ('a') has '\u0391' at position 3, which is not one of the "
        "model's amino acids. Fix it, or set unknown to x (embed it as X) or to skip "
        "(leave such records out).",
    ),
    refused(
        "letters of full width",
        ">a\n\uff2d\uff2b\n",
        "in, line 2: record 1 ('a') has '\uff2d' at position 1, which is not one of the "
        "model's amino acids. Fix it, or set unknown to x (embed it as X) or to skip "
        "(leave such records out).",
    ),
    refused(
        "a soft hyphen",
        ">a\nMK\u00adT\n",
        "in, line 2: record 1 ('a') has '\\xad' at position 3, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "control signs",
        ">a\nMK\x1bT\n",
        "in, line 2: record 1 ('a') has '\\x1b' at position 3, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "a NUL among letters",
        ">a\nMK\0T\n",
        "in, line 2: record 1 ('a') has '\\x00' at position 3, which is not one of the "
        "model's amino acids. Fix it, or set unknown to skip (leave such records out).",
    ),
    refused(
        "a NUL in a header",
        ">a\0\nMKT\n",
        "in, line 1: record 1 ('a\\x00') has a NUL in its header. The file may be damaged.",
    ),
    refused(
        "protein and DNA in one file for DNA",
        ">a\nACGT\n>b\nMKTAYIAKQR\n",
        "in, line 4: record 2 ('b') has 'I' at position 6, which is not one of the "
        "model's bases. It looks like a protein: give a protein model. Fix it, or set "
        "unknown to x (embed it as N) or to skip (leave such records out).",
        dna=True,
    ),
    read(
        "a protein of letters that DNA has too, for DNA",
        ">a\nMKUT\n",
        ("a", "MKTT"),
        dna=True,
        counts={"rna": 1},
    ),
    refused(
        "a record that is too long",
        ">a\nMKTAY\n",
        "in, line 1: record 1 ('a') has 5 residues, more than the limit of 4. Raise "
        "max_residues, or set long to truncate or window.",
        options={"long": "error", "max_residues": 4},
    ),
    refused(
        "a contig that is too long",
        ">a\nACGTA\n",
        "in, line 1: record 1 ('a') has 5 bases, more than the limit of 4. Raise "
        "max_residues, or set long to truncate or window.",
        dna=True,
        options={"long": "error", "max_residues": 4},
    ),
    refused(
        "gaps where none are expected",
        ">a\nM-K\n",
        "in, line 2: record 1 ('a') has '-' at position 2, which is a gap. Set gaps to "
        "strip (remove them) or to keep (embed them as the model's tokens of gaps).",
        options={"gaps": "error"},
    ),
    refused(
        "gaps of DNA",
        ">a\nAC-GT\n",
        "in, line 2: record 1 ('a') has '-' at position 3, which is not one of the "
        "model's bases. Gaps are removed if you set gaps to strip. Fix it, or set unknown"
        " to x (embed it as N) or to skip (leave such records out).",
        dna=True,
    ),
    refused(
        "nothing left of what was left out",
        ">a\n\n>b\nM1\n",
        "in: nothing is left to embed: all records are left out (1 without a sequence, 1 "
        "with unknown letters). Is it the right input?",
        options={"empty": "skip", "unknown": "skip"},
    ),
    refused(
        "a bad record and one that is too long",
        ">a\nMKTAY\n>b\nMJ\n",
        "in: 2 records cannot be embedded.\n  line 1: record 1 ('a') has 5 residues, more "
        "than the limit of 4.\n  line 4: record 2 ('b') has 'J' at position 2, which is "
        "not one of the model's amino acids.\nRaise max_residues, or set long to truncate "
        "or window.\nFix it, or set unknown to x (embed it as X) or to skip (leave such "
        "records out).",
        options={"long": "error", "max_residues": 4},
    ),
]
