"""Options with several values take those, and no input that follows them."""

import pytest

from producer.cli.values import one_each


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--layers -1,20 in.fa", "--layers=-1 --layers=20 in.fa"),
        ("--layers -1 20 in.fa", "--layers=-1 --layers=20 in.fa"),
        ("--layers=-1,20 in.fa", "--layers=-1 --layers=20 in.fa"),
        ("--include mean bos in.fa -o x.h5", "--include=mean --include=bos in.fa -o x.h5"),
        ("--include mean,bos a b", "--include=mean --include=bos a b"),
        ("--include=mean bos a", "--include=mean --include=bos a"),
        ("--include median in.fa", "--include=median in.fa"),
        ("a.fa --include", "a.fa --include"),
        ("--include mean -- bos --layers 1", "--include=mean -- bos --layers 1"),
        ("--model m --ids a b", "--model m --ids a b"),
    ],
)
def test_each_value_becomes_an_option_and_the_rest_stays(given, expected):
    assert one_each(given.split()) == expected.split()
