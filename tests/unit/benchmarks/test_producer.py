"""The benchmark of the producer."""

from benchmarks.producer import measure, stage_file


def test_an_input_is_staged_anew_each_time(tmp_path):
    (tmp_path / "proteins.fasta").write_text(">a\nMKTAYIAK\n>b\nGAVL\n")
    for _ in range(2):
        measure("on", tmp_path, "esm2_t6_8M_UR50D")
    assert len(list(tmp_path.glob("*/*/manifest.json"))) == 2


def test_a_staged_input_has_a_manifest(tmp_path):
    (tmp_path / "p.fasta").write_text(">a\nMKTAYIAK\n")
    stage_file(tmp_path / "p.fasta", tmp_path / "store", "esm2_t6_8M_UR50D", dedup=True)
    assert list(tmp_path.glob("store/*/manifest.json"))
