"""The benchmark of the producer."""

import pytest

from benchmarks.producer import measure


@pytest.mark.parametrize("processes", [1, 2])
def test_an_input_is_staged_anew_each_time(tmp_path, processes):
    (tmp_path / "proteins.fasta").write_text(">a\nMKTAYIAK\n>b\nGAVL\n")
    for _ in range(2):
        found = measure("on", tmp_path, "esm2_t6_8M_UR50D", processes)
        assert min(found.values()) > 0
    assert len(list(tmp_path.glob("*/*/manifest.json"))) == 2
