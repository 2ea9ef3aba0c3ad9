"""Protein and DNA embeddings, in this process or by a fleet of GPU workers.

    import virnucpro_fleet as vf

    vf.embed(["MKTAYIAKQR", "MVLSPADKTN"], model="esm2_t6_8M_UR50D")  # in this process
    vf.load("embeddings.h5")["P03265"]  # from a file
    vf.Fleet().submit("proteins.fasta").wait(progress=True)  # by the fleet of VIRNUCPRO_BROKER_URL

Each name is imported when it is first used: ``Fleet`` and ``load`` need no PyTorch.
"""

from typing import TYPE_CHECKING

__all__ = [
    "EmbeddedSequences",
    "Embedder",
    "EmbeddingFile",
    "EmbeddingFileError",
    "Fetched",
    "Fleet",
    "InputCheck",
    "InputError",
    "Instability",
    "Job",
    "JobEmbeddings",
    "JobEndedError",
    "JobRunningError",
    "JobState",
    "NotReadyError",
    "Priority",
    "Progress",
    "Rung",
    "StoreError",
    "UnknownIdError",
    "UnknownJobError",
    "UserError",
    "VirnucproError",
    "WaitTimeoutError",
    "__version__",
    "check",
    "embed",
    "export",
    "load",
    "report",
]

if TYPE_CHECKING:
    from common import __version__ as __version__
    from common.embeddings.file import EmbeddingFile, EmbeddingFileError, load
    from common.embeddings.lookup import UnknownIdError
    from common.errors import (
        InputError,
        JobEndedError,
        JobRunningError,
        NotReadyError,
        UnknownJobError,
        UserError,
        VirnucproError,
        WaitTimeoutError,
    )
    from common.ledger.progress import JobState, Progress
    from common.rungs import Rung
    from common.store import StoreError
    from common.wire.messages import Instability, Priority
    from producer.fleet.export import export
    from producer.fleet.fleet import Fleet
    from producer.fleet.job import Job
    from producer.fleet.report import report
    from producer.output.fetch import Fetched
    from producer.output.job_embeddings import JobEmbeddings
    from producer.submission.check import check
    from producer.submission.input_check import InputCheck
    from workers.embedder import EmbeddedSequences, Embedder, embed
else:
    from importlib import import_module
    from importlib.util import find_spec

    #: The module of each public name.
    MODULES = {
        "__version__": "common",
        "EmbeddedSequences": "workers.embedder",
        "Embedder": "workers.embedder",
        "EmbeddingFile": "common.embeddings.file",
        "EmbeddingFileError": "common.embeddings.file",
        "Fetched": "producer.output.fetch",
        "Fleet": "producer.fleet.fleet",
        "InputCheck": "producer.submission.input_check",
        "InputError": "common.errors",
        "Instability": "common.wire.messages",
        "Job": "producer.fleet.job",
        "JobEmbeddings": "producer.output.job_embeddings",
        "JobEndedError": "common.errors",
        "JobRunningError": "common.errors",
        "JobState": "common.ledger.progress",
        "NotReadyError": "common.errors",
        "Priority": "common.wire.messages",
        "Progress": "common.ledger.progress",
        "Rung": "common.rungs",
        "StoreError": "common.store",
        "UnknownIdError": "common.embeddings.lookup",
        "UnknownJobError": "common.errors",
        "UserError": "common.errors",
        "VirnucproError": "common.errors",
        "WaitTimeoutError": "common.errors",
        "check": "producer.submission.check",
        "embed": "workers.embedder",
        "export": "producer.fleet.export",
        "load": "common.embeddings.file",
        "report": "producer.fleet.report",
    }

    def __getattr__(name: str) -> object:
        if name not in MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = getattr(import_module(MODULES[name]), name)
        except ModuleNotFoundError as error:
            how_to_install = import_module("common.installing").how_to_install
            raise ImportError(
                f"{__name__}.{name} needs {error.name}: {how_to_install('worker')}"
            ) from error
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return __all__

    if find_spec("torch") is None:  # import * has the names that need none
        __all__ = [name for name in __all__ if MODULES[name] != "workers.embedder"]
