"""What a user asks for with ``producer submit``."""

import hashlib
import json
import re
from dataclasses import dataclass

from common.alphabet import Alphabet
from common.job.output_form import OutputForm
from common.ledger.progress import OnInstability
from common.model_specs import ModelSource
from common.rungs import Rung
from common.wire.messages import Priority
from producer.input.reader import Long, Unknown
from producer.input.source import Source


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for with ``producer submit``."""

    source: Source
    model: ModelSource
    alphabet: Alphabet
    rung: Rung
    priority: Priority = Priority.NORMAL
    on_instability: OnInstability
    form: OutputForm
    unknown: Unknown
    long: Long
    #: What makes this request another one than all before, if it is to be.
    nonce: str | None = None

    def fingerprint(self) -> str:
        """Names the input's bytes and every option that changes the output."""
        options = {
            "input": self.source.fingerprint(),
            "model": self.model.text,
            "alphabet": self.alphabet.name,
            "rung": self.rung,
            "form": self.form.model_dump(),
            "unknown": self.unknown,
            "long": self.long,
            **({} if self.nonce is None else {"nonce": self.nonce}),
        }
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def job_name(source: Source, fingerprint: str) -> str:
    """A readable name, safe in paths, keys and URLs, the same for the same work."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", source.stem)[:40].strip("-") or "job"
    return f"{stem}-{fingerprint[:12]}"
