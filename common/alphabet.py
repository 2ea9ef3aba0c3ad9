"""The letters that a FASTA record may use, and the tokens that a model makes of them.

Source: ``Alphabet.from_architecture("ESM-1b")`` of fair-esm 2.0.0, which ESM-2 shares.
"""

#: ESM-2's vocabulary; a token's id is its place in this tuple.
ESM2_TOKENS: tuple[str, ...] = (
    *("<cls>", "<pad>", "<eos>", "<unk>"),
    *"LAGVSERTIDPKQNFYMHWCXBUZO.-",
    *("<null_1>", "<mask>"),
)

#: The letters a protein record may use: amino acids, ambiguity codes and the two gap signs.
ESM2_LETTERS: frozenset[str] = frozenset(token for token in ESM2_TOKENS if len(token) == 1)

#: Tokens that every ESM-2 segment has besides its residues: ``<cls>`` and ``<eos>``.
SPECIAL_TOKENS = 2
