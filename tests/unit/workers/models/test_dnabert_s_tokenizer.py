"""Tokenizing DNA: with the encoding for random weights, and with files of checkpoints."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from common.errors import UserError
from common.memory import is_out_of_memory
from workers.models.dnabert_s import tokenizer
from workers.models.dnabert_s.model import VOCABULARY
from workers.models.dnabert_s.tokenizer import DNATokenizer, own_tokenizer

OWN = DNATokenizer.own()

DNA = st.text("ACGT", max_size=120)


def words(tokenize: DNATokenizer, sequences: list[str]) -> list[list[str]]:
    """Return the tokens of every sequence as text."""
    tokens = tokenize(sequences)
    assert tokens.ids.dtype == np.int64
    assert tokens.cu_seqlens.dtype == np.int32
    parts = np.split(tokens.ids, tokens.cu_seqlens[1:-1])
    return [[tokenize.tokenizer.id_to_token(int(one)) for one in part] for part in parts]


# --- our own ----------------------------------------------------------------------------------


@given(st.lists(DNA, min_size=1, max_size=6))
def test_tokens_joined_give_the_sequence_back(sequences):
    for sequence, found in zip(sequences, words(OWN, sequences), strict=True):
        assert (found[0], found[-1]) == ("[CLS]", "[SEP]")
        assert "".join(found[1:-1]) == sequence


@given(st.text("ACGTN", max_size=60))
def test_a_letter_outside_acgt_is_one_unknown_token(sequence):
    (found,) = words(OWN, [sequence])
    assert "".join(found[1:-1]).replace("[UNK]", "N") == sequence


def test_tokens_are_all_of_up_to_five_bases_and_some_of_six():
    vocabulary = OWN.tokenizer.get_vocab()
    lengths = [len(token) for token in vocabulary if token.isalpha()]
    assert [lengths.count(n) for n in (1, 2, 3, 4, 5)] == [4, 16, 64, 256, 1024]
    assert set(lengths) == {1, 2, 3, 4, 5, 6}
    assert sorted(vocabulary.values()) == list(range(VOCABULARY))


def test_a_token_has_about_as_many_bases_as_batches_are_cut_for():
    draw = random.Random(0)
    tokens = OWN(["".join(draw.choices("ACGT", k=20_000))])
    assert 4.0 < 20_000 / len(tokens.ids) < 5.5


def test_long_tokens_are_used():
    (found,) = words(OWN, ["ACGTAA" * 20])
    assert max(map(len, found[1:-1])) == 6
    assert len(found) < 60


def test_no_sequences_have_no_tokens():
    tokens = OWN([])
    assert (tokens.ids.size, tokens.cu_seqlens.tolist()) == (0, [0])


def test_an_empty_sequence_is_its_special_tokens():
    assert words(OWN, ["", "A"]) == [["[CLS]", "[SEP]"], ["[CLS]", "A", "[SEP]"]]


def test_the_encoding_is_the_same_every_time():
    assert own_tokenizer().to_str() == own_tokenizer().to_str()


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "tokenizer.json"
    own_tokenizer().save(str(path))
    return path


def edit(file: Path, change) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_file_gives_the_same_tokens(file):
    sequences = ["ACGTTGCA" * 9, "GATTACANNT"]
    assert words(DNATokenizer.from_file(file), sequences) == words(OWN, sequences)


def test_special_tokens_are_found_by_name_whatever_their_ids(file):
    def swap(content):
        vocabulary = content["model"]["vocab"]
        for one, other in (("[CLS]", "CAGT"), ("[SEP]", "TTTT")):
            vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]

    edit(file, swap)
    odd = DNATokenizer.from_file(file)
    assert odd.cls > 4
    assert words(odd, ["GATTACA"]) == words(OWN, ["GATTACA"])


def test_template_truncation_and_padding_of_a_file_change_nothing(file):
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.add_special_tokens(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] [MASK] $A [SEP]",
        special_tokens=[("[CLS]", 1), ("[MASK]", 4), ("[SEP]", 2)],
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64, pad_id=3, pad_token="[PAD]")
    tokenizer.save(str(file))
    sequences = ["ACGTTGCA" * 9, "GATTACA"]
    assert words(DNATokenizer.from_file(file), sequences) == words(OWN, sequences)


def test_the_vocabulary_is_every_token_and_its_id(file):
    edit(file, lambda content: content["model"]["vocab"].update({"NNNN": 4095}))
    assert OWN.vocabulary["[UNK]"] == 0
    assert len(OWN.vocabulary) == VOCABULARY
    assert DNATokenizer.from_file(file).vocabulary == OWN.vocabulary | {"NNNN": 4095}


def refusal(file: Path) -> str:
    """Return the error's text, which must name the file."""
    with pytest.raises(UserError) as caught:
        DNATokenizer.from_file(file)
    assert str(file) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("token", ["[CLS]", "[SEP]"])
def test_a_file_without_a_special_token_is_refused(file, token):
    edit(file, lambda content: content["model"]["vocab"].pop(token))
    assert f"has no {token}" in refusal(file)


def test_a_file_with_more_tokens_than_the_model_is_refused(file):
    edit(file, lambda content: content["model"]["vocab"].update({"NNNN": VOCABULARY}))
    assert f"id {VOCABULARY}" in refusal(file)


@pytest.mark.parametrize("content", ["", "{}", "not JSON"])
def test_a_file_that_is_no_tokenizer_is_refused(file, content):
    file.write_text(content)
    assert "not a readable tokenizer" in refusal(file)


def test_a_missing_file_is_named(tmp_path):
    assert "not a readable tokenizer" in refusal(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("unknown", ["", "[NO]"])
def test_a_file_without_a_token_for_unknown_letters_is_refused(file, unknown):
    """The library would leave such letters out, or fail at the first sequence with one."""
    edit(file, lambda content: content["model"].update({"unk_token": unknown or None}))
    assert refusal(file)


def test_a_file_at_which_the_library_panics_is_refused(file):
    def add_a_split_without_pattern(content):
        content["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(?<=" + "(" * 500}}

    edit(file, add_a_split_without_pattern)
    assert refusal(file)


class PanicException(BaseException):
    """As the library raises it, which cannot be imported."""


def test_a_panic_of_the_library_is_an_error_that_names_the_file(file, monkeypatch):
    def panic(*_):
        raise PanicException("index out of bounds")

    monkeypatch.setattr("workers.models.dnabert_s.tokenizer.Tokenizer.from_file", panic)
    assert "index out of bounds" in refusal(file)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("8 bytes"),
        RuntimeError("can't start new thread"),
        PanicException('IOError(Os { code: 11, message: "Resource temporarily unavailable" })'),
    ],
)
def test_a_lack_of_memory_is_not_said_of_the_tokenizer(error):
    class Failing:
        def encode_batch_fast(self, *_, **__):
            raise error

    tokenizer = DNATokenizer.own()
    tokenizer.tokenizer = Failing()
    with pytest.raises(MemoryError, match=re.escape(str(error))) as caught:
        tokenizer(["ACGT"])
    assert is_out_of_memory(caught.value)


# --- which tokenizer it is --------------------------------------------------------------------


def no_change(_content) -> None:
    pass


def as_published(content) -> None:
    content["pre_tokenizer"] = {"type": "Whitespace"}
    content["added_tokens"] = [
        {
            **{"id": number, "content": token, "special": True, "normalized": False},
            **{"single_word": False, "lstrip": False, "rstrip": False},
        }
        for number, token in enumerate(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    ]


@pytest.mark.parametrize("change", [no_change, as_published])
def test_the_published_form_adds_nothing_to_the_fingerprint(file, change):
    """Jobs of versions that looked at the vocabulary alone are continued."""
    edit(file, change)
    assert DNATokenizer.from_file(file).deviations == ""


def other_merges(content) -> None:
    content["model"]["merges"].reverse()


def a_normalizer(content) -> None:
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "N"}, "content": "A"}


def a_pre_tokenizer(content) -> None:
    content["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": "A"},
        "behavior": "Isolated",
        "invert": False,
    }


def an_added_token(content) -> None:
    as_published(content)
    content["added_tokens"].append({**content["added_tokens"][0], "id": 9, "content": "AA"})


def fused_unknown_letters(content) -> None:
    content["model"]["fuse_unk"] = True


def test_a_tokenizer_of_the_same_vocabulary_that_makes_other_tokens_differs(file):
    original, found = file.read_text(), set()
    changes = [other_merges, a_normalizer, a_pre_tokenizer, an_added_token, fused_unknown_letters]
    for change in changes:
        file.write_text(original)
        edit(file, change)
        tokenizer = DNATokenizer.from_file(file)
        assert tokenizer.vocabulary == OWN.vocabulary
        found.add(tokenizer.deviations)
    assert len(found - {""}) == len(changes)


def test_tokens_do_not_depend_on_how_many_sequences_are_tokenised_together(monkeypatch):
    tokenize = DNATokenizer.own()
    sequences = ["ACGT" * n for n in range(40)]
    expected = tokenize(sequences)
    for count in (1, 7, 40):
        monkeypatch.setattr(tokenizer, "TOGETHER", count)
        found = tokenize(sequences)
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.cu_seqlens.tolist() == expected.cu_seqlens.tolist()
