"""Columns of a table to colour points by."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from producer.report.metadata import read_colours

IDS = ["sp|P1|HBA", "P2", "P3 with", "P4"]


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(
        'name,Id,host,gc\n"a, b",P1,human,0.5\nx,P2,mouse,\nx,P2,again,1\n'
        "y,P9,frog,9\nz,P4,mouse,2e1\n"
    )
    return path


def test_all_columns_but_the_ids_are_read(table):
    found = {colour.name: colour for colour in read_colours(table, (), IDS)}
    assert list(found) == ["name", "host", "gc"]
    host = found["host"]
    assert host.names == ("mouse", "(none)", "human")
    assert [host.names[k] for k in host.values] == ["human", "mouse", "(none)", "mouse"]
    np.testing.assert_array_equal(found["gc"].values, np.float32([0.5, np.nan, np.nan, 20]))
    assert found["gc"].names is None
    assert "a, b" in found["name"].names


def test_columns_are_read_in_the_order_in_which_they_are_named(table):
    assert [c.name for c in read_colours(table, ("gc", "host"), IDS)] == ["gc", "host"]


def test_without_a_column_of_that_name_the_first_has_the_ids(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("\ufeffprotein\tclass\nP2\t1\nP4\tone\n", encoding="utf-8")
    [colour] = read_colours(path, (), IDS)
    assert [colour.names[k] for k in colour.values] == ["(none)", "1", "(none)", "one"]


def test_labels_with_underscores_are_no_numbers_and_missing_values_are_none(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("id,cluster,ph\nP1,1_2,7.5\nP2,1_3,NA\nP4,2_1,6.1\n")
    cluster, ph = read_colours(path, (), IDS)
    assert set(cluster.names) == {"1_2", "1_3", "2_1", "(none)"}
    assert ph.names is None
    np.testing.assert_array_equal(ph.values, np.float32([7.5, np.nan, np.nan, 6.1]))


def test_a_column_without_any_value_is_no_number(table):
    [colour] = read_colours(table, ("gc",), ["P2"])
    assert colour.names == ("(none)",)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("id,host\nP2,x\n", ("hots",), "has no column 'hots'. Its columns are 'id', 'host'."),
        ("id\nP2\n", (), "has no column but the one of ids. Its columns are 'id'."),
        ("id,host\nQ,x\n", (), "no id in its column 'id' is one of these embeddings, such as 'sp"),
        ("", (), "has no column but the one of ids"),
        (b"id,host\n\xff\xfe,x\n", (), "cannot be read: not a table"),
        (">P2\nMKV\n", (), "is FASTA, not a table with a column of ids and others."),
    ],
    ids=["column", "ids-alone", "other-ids", "empty", "bytes", "FASTA"],
)
def test_a_table_of_no_use_is_an_error_that_says_why(tmp_path, text, columns, message):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        read_colours(path, columns, IDS)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_table_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"none.csv cannot be read: No such file"):
        read_colours(tmp_path / "none.csv", (), IDS)
