"""Files, folders, patterns and lists: what is found, in which order, and what is refused."""

from pathlib import Path

import pytest

from common.errors import InputError
from producer.input.expand import Found, names_in

FASTA = ">a\nMKT\n"


def found_in(*names: str) -> Found:
    found = Found()
    found.add(names)
    found.check_once()
    return found


def names_of(*names: str) -> list[str]:
    return [source.name for source in found_in(*names).sources]


def refusal(*names: str) -> str:
    with pytest.raises(InputError) as caught:
        found_in(*names)
    return str(caught.value)


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.fa", "a.fasta.gz", "d/z.faa", "d/y.FA", "d/.x.fa", "d/readme.md", "d/e/w.fa"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FASTA)
    (tmp_path / "empty").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "notes.txt").write_text("x")
    return tmp_path


def test_files_keep_the_order_in_which_they_are_named(files):
    assert names_of("b.fa", "a.fasta.gz") == ["b.fa", "a.fasta.gz"]


def test_a_folder_is_its_files_sorted_without_hidden_ones_and_other_suffixes(files):
    found = found_in("d")
    assert [source.name for source in found.sources] == ["d/y.FA", "d/z.faa"]
    assert found.left_out == ["d/readme.md"]
    assert names_of("d/", "b.fa") == ["d/y.FA", "d/z.faa", "b.fa"]


def test_a_pattern_finds_files_of_any_suffix_and_in_deeper_folders(files):
    assert names_of("d/*") == ["d/readme.md", "d/y.FA", "d/z.faa"]
    assert names_of("**/*.fa") == ["b.fa", "d/e/w.fa"]
    assert names_of("./*.fa") == ["./b.fa"]


def test_a_file_whose_name_has_signs_of_a_pattern_is_that_file(files):
    (files / "a[1].fa").write_text(FASTA)
    assert names_of("a[1].fa") == ["a[1].fa"]


@pytest.mark.parametrize(
    ("names", "messages"),
    [
        (["no.fa"], ["no.fa: no such file (looked in "]),
        (["*.gbk"], ["*.gbk: no file matches this pattern (looked in "]),
        (["empty"], ["empty: the folder has no file to read. Looked for .fasta, .fa, "]),
        (["others/"], ["only 1 other", "'others/**/*.fa'"]),
        (["b.fa", "./b.fa"], ["./b.fa is given twice"]),
        (["-", "-"], ["standard input is given twice"]),
        (["d/*.faa", "d"], ["d/z.faa is given twice"]),
        (["s3://b/x.fa", "s3://b/x.fa"], ["s3://b/x.fa is given twice"]),
    ],
    ids=["file", "pattern", "empty", "others", "twice", "stdin", "folder", "object"],
)
def test_what_is_not_there_or_twice_is_refused_with_what_was_looked_for(files, names, messages):
    text = refusal(*names)
    for message in messages:
        assert message in text


def test_a_link_to_a_file_that_is_named_too_is_that_file(files):
    Path("c.fa").symlink_to("b.fa")
    assert "c.fa is given twice" in refusal("b.fa", "c.fa")


def test_a_list_has_a_name_in_each_line_and_comments(files):
    Path("list.txt").write_text("\ufeffb.fa\r\n\n# a comment\n  d/*.faa  \n")
    assert list(names_in("list.txt")) == [(1, "b.fa"), (4, "d/*.faa")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--from list.txt: cannot be read (No such file or directory)"),
        (b"# none\n", "--from list.txt: it names no file"),
        (b"\xff\xfe\x00", "--from list.txt: cannot be read (not a text in UTF-8)"),
    ],
    ids=["no such", "empty", "binary"],
)
def test_a_list_that_names_nothing_is_refused(files, content, message):
    if content is not None:
        Path("list.txt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        list(names_in("list.txt"))
    assert message in str(caught.value)
