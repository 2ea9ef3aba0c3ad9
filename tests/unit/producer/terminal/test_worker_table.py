"""The table of workers: below a line for each kind, what each does."""

import re

import pytest
from rich.console import Console

from common.ledger.workers import CurrentBatch, WorkerInfo
from common.model_source import ModelSource
from common.rungs import Rung, served_steps
from common.wire.queues import queue_name
from producer.terminal.worker_table import other_rungs, print_workers, uptime

NOW = 1_000_000.0


def worker(name: str = "cuda0-4121@gpu-node-17", **more: object) -> WorkerInfo:
    fields = {
        "name": name,
        "model": "esm2_t33_650M_UR50D",
        "weights": "0123456789abcdef",
        "device": "NVIDIA H200",
        "precision": Rung.FP16,
        "queues": ("esm2_t33_650M_UR50D.fp16",),
        "attention": "hopper",
        "started": NOW - 11_520,
        "tokens_per_second": 412_345.4,
        "busy": 0.984,
        "memory_used": 12_300_000_000,
        "memory_total": 150_100_000_000,
        "current": tuple(
            CurrentBatch(job="proteins-1a2b3c", batch=n, rung=Rung.FP16, tokens=5, seconds=1)
            for n in (17, 18, 19)
        ),
    }
    return WorkerInfo(**(fields | more))


def printed(*workers: WorkerInfo, width: int = 80, silence: dict[str, float] | None = None) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        print_workers(console, workers, now=NOW, silence=silence or {})
    return capture.get()


def rows(text: str) -> list[list[str]]:
    """Return the cells of all rows, which are two spaces apart or more."""
    lines = [line.strip() for line in text.splitlines() if "@" in line]
    return [re.split(" {2,}", line) for line in lines]


@pytest.mark.parametrize("width", [80, 100])
def test_at_80_columns_a_worker_is_one_row(width):
    text = printed(worker(), worker("cuda1-4122@gpu-node-17"), width=width)
    assert max(map(len, text.splitlines())) <= width
    first, second = rows(text)
    assert first == [
        *("cuda0-4121@gpu-node-17", "412,345", "98 %", "12/150 GB"),
        *("proteins-1a2b3c 17 +2", "3h12m"),
    ]
    assert second[0] == "cuda1-4122@gpu-node-17"
    assert " ".join(text.split()).startswith(
        "esm2_t33_650M_UR50D in fp16 on NVIDIA H200, weights 0123456789abcdef, attention hopper: "
        "worker tokens/s busy memory batch up cuda0-4121@gpu-node-17 "
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (11_520, "3h12m"), (450_000, "5d05h")],
)
def test_uptimes_are_one_word(seconds, text):
    assert uptime(seconds) == text


def test_workers_of_another_kind_have_a_table_of_their_own():
    text = printed(worker(), worker("cpu-1@host", device="CPU", precision=Rung.FP32), width=100)
    assert [line.split(", ")[0] for line in text.splitlines() if line.startswith("esm2")] == [
        "esm2_t33_650M_UR50D in fp16 on NVIDIA H200",
        "esm2_t33_650M_UR50D in fp32 on CPU",
    ]


@pytest.mark.parametrize(
    ("more", "silent", "state"),
    [
        ({"current": ()}, 3.0, "-"),
        ({}, 24.2, "silent for 24 s"),
        ({"weights": None, "stage": "warming up"}, 3.0, "warming up the device"),
        ({"weights": None, "stage": None}, 3.0, "loading the model"),
        ({"weights": None, "stage": "of a newer version"}, 3.0, "of a newer version"),
        ({"takes": False}, 3.0, "takes no batches"),
    ],
)
def test_a_worker_that_computes_nothing_says_why(more, silent, state):
    (row,) = rows(printed(worker(**more), width=200, silence={worker().name: silent}))
    assert row[4] == state


def test_a_worker_of_an_earlier_version_has_no_numbers():
    old = WorkerInfo(
        name="cpu-1@host", model="m", weights="w", device="CPU", precision=Rung.FP32, queues=()
    )
    text = printed(old)
    assert text.startswith("m in fp32 on CPU, weights w:\n")
    assert rows(text) == [["cpu-1@host", "-", "-", "-", "-", "-"]]


def test_a_fleet_without_workers_says_so():
    assert printed() == "No worker is listed.\n"


@pytest.mark.parametrize(
    ("precision", "others"),
    [(Rung.FP16, []), (Rung.BF16, []), (Rung.FP32, ["fp16", "bf16"])],
)
@pytest.mark.parametrize("model", ["esm2_t6_8M_UR50D", "random:esm2_t6_8M_UR50D", "/a.b/c.fp16"])
def test_a_worker_that_takes_jobs_of_other_precisions_says_so(model, precision, others):
    source = ModelSource.parse(model)
    queues = tuple(queue_name(source, *step) for step in served_steps(precision))
    found = worker(model=model, precision=precision, queues=queues)
    assert other_rungs(found) == others
    told = " ".join(printed(found, width=200).splitlines()[0].split())
    assert told.endswith("takes jobs in fp16 and bf16 too:" if others else "attention hopper:")
