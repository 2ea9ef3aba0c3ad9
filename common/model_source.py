"""The parsing of a ``--model`` value: a name, a path, a bucket, or random weights."""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from common.adapters import is_adapter, read_adapter
from common.errors import UserError
from common.model_config import parse_config
from common.model_digest import model_digest
from common.model_files import FAIR_ESM, SINGLE_FILES, model_files
from common.model_revision import check_revision, queue_part
from common.model_specs import (
    FILE_NAMES,
    MODELS,
    NAMES,
    ModelSpec,
    read_hugging_face_config,
    spec_of,
)
from common.paths import user_path

RANDOM_PREFIX, S3_PREFIX, FILE_PREFIX = "random:", "s3://", "file://"

#: What separates a name from its revision.
AT = "@"


@dataclass(frozen=True)
class ModelSource:
    """The source of weights, as ``--model`` names it.

    It is ``NAME``, ``NAME@REVISION``, ``random:NAME``, ``s3://bucket/prefix``, or the path of a
    folder or of a ``.pt`` or ``.pth`` file. ``text`` is normalised: two sources of the same
    weights have equal texts.
    """

    text: str

    @classmethod
    def parse(cls, value: str | Path, revision: str | None = None) -> "ModelSource":
        """Read a ``--model`` value.

        Args:
            revision: a revision on the Hugging Face hub that the value does not name itself.

        Raises:
            UserError: the name is not in the table, a relative path does not exist, or only a name
                alone has revisions.
        """
        source = cls._parse(value)
        if revision is None or source.revision == revision:
            return source
        if source.revision is not None or source.is_random or source.text not in MODELS:
            raise UserError(
                f"--revision {revision}: only a model on the Hugging Face hub has revisions, and "
                f"{source.text} {'has one already' if source.revision else 'is none'}. Give "
                "--model one of the known names, or omit --revision."
            )
        return cls(f"{source.text}{AT}{check_revision(revision)}")

    @classmethod
    def _parse(cls, value: str | Path) -> "ModelSource":
        text = str(value)
        if isinstance(value, str) and text.lower().startswith(S3_PREFIX):
            from common.model_bucket import normal_url  # which knows S3

            return cls(normal_url(text))
        if isinstance(value, str) and text.startswith((f"{FILE_PREFIX}/", f"{FILE_PREFIX}~")):
            value = text = text.removeprefix(FILE_PREFIX)
        has_prefix = text.lower().startswith(RANDOM_PREFIX)
        prefix, bare = (RANDOM_PREFIX, text[len(RANDOM_PREFIX) :]) if has_prefix else ("", text)
        if isinstance(value, str) and bare.lower() in NAMES:
            return cls(prefix + NAMES[bare.lower()])
        name, at, revision = bare.partition(AT)
        if isinstance(value, str) and not prefix and at and name.lower() in NAMES:
            return cls(f"{NAMES[name.lower()]}{AT}{check_revision(revision)}")
        if not prefix and (isinstance(value, Path) or looks_like_path(text)):
            path = user_path(text)
            if path.is_absolute() or exists(path):
                return cls(os.path.abspath(path))
            if isinstance(value, Path) or text.startswith(".") or text.endswith(SINGLE_FILES):
                raise UserError(
                    f"{text}: no such folder or file with weights here. A path that only the "
                    "workers can see must be absolute."
                )
        raise UserError(unknown_model(text, bare))

    @property
    def is_random(self) -> bool:
        return self.text.startswith(RANDOM_PREFIX)

    @property
    def is_path(self) -> bool:
        return os.path.isabs(self.text)

    @property
    def is_stored(self) -> bool:
        """Whether the weights are objects in a bucket."""
        return self.text.startswith(S3_PREFIX)

    @property
    def revision(self) -> str | None:
        """The revision on the Hugging Face hub, if it was given."""
        name, at, revision = self.text.partition(AT)
        return revision if at and name in MODELS else None

    @property
    def name(self) -> str:
        """The name in the table, or the last part of a path or URL without its suffix."""
        if self.is_path or self.is_stored:
            last = Path(self.text).name
            return last.rpartition(".")[0] if last.endswith(SINGLE_FILES) else last
        name = self.text.removeprefix(RANDOM_PREFIX)
        return name if self.revision is None else name.partition(AT)[0]

    @property
    def queue(self) -> str:
        """The stem of this model's queue names, safe in Redis keys and on a dashboard."""
        if self.is_path or self.is_stored:
            kind = "path" if self.is_path else "s3"
            return f"{kind}-{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"
        if self.revision is not None:
            return f"{self.name}.{queue_part(self.revision)}"
        return self.text.replace(":", ".")

    def files(self) -> list[Path]:
        """Return the files that the model is loaded from; none if none are on this machine.

        Raises:
            UserError: a model cannot be loaded from this path.
        """
        return model_files(Path(self.text)) if self.is_path else []

    def digest(self) -> str | None:
        """Return what tells these weights from others that lie in the same place later.

        For a path it is of the files' content, for a bucket of its listing. None for a name, and
        for weights that this machine does not have or may not list.

        Raises:
            UserError: a model cannot be loaded from this place, or it cannot be read.
        """
        if not self.is_stored:
            return model_digest(self.files())
        from common.model_bucket import look_if_allowed

        listing = look_if_allowed(self.text)
        return None if listing is None else listing.digest

    def spec(self) -> ModelSpec | None:
        """Return the model's shape; None if it cannot be told on this machine.

        A producer may name a folder, or a bucket, that only its workers can see.
        """
        if self.is_stored:
            from common.model_bucket import config_of

            found = config_of(self.text)
            place = f"{self.text}/config.json"
            if found is not None:
                return spec_of(parse_config(found, place), place, self.name)
        if self.is_path and is_adapter(Path(self.text)):
            of_base = self.base().spec()
            return None if of_base is None else replace(of_base, name=self.name)
        config = Path(self.text) / "config.json"
        if self.is_path and exists(config):
            return read_hugging_face_config(config)
        published = MODELS.get(FILE_NAMES.get(self.name, self.name))
        return None if published is None else replace(published, name=self.name)

    @property
    def is_fair_esm(self) -> bool:
        """Whether it is a file of fair-esm, which has weights of a model of proteins."""
        return (self.is_path or self.is_stored) and self.text.endswith(FAIR_ESM)

    def base(self) -> "ModelSource":
        """Return the base of an adapter.

        Raises:
            UserError: the folder is no adapter that can be merged.
        """
        return ModelSource(read_adapter(Path(self.text)).base)


def with_revision(model: str, revision: str | None) -> str:
    """Return a ``--model`` value that names a revision, if one was given beside it.

    Raises:
        UserError: the value is no model, or has no such revision.
    """
    return model if revision is None else ModelSource.parse(model, revision).text


def looks_like_path(value: str) -> bool:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", value):  # a URL
        return False
    is_file = value.endswith(SINGLE_FILES)
    return is_file or "/" in value or value in {".", ".."} or value.startswith("~")


def exists(path: str | Path) -> bool:
    return os.path.exists(path)  # noqa: PTH110 (Path.exists raises for a name that is too long)


def unknown_model(text: str, bare: str) -> str:
    """Return a message about a value that is not a model, with the nearest names.

    Args:
        text: the value as it was given.
        bare: the same without ``random:``.
    """
    word = bare.lower().rstrip("/").rpartition("/")[2]
    near = [word] if word in NAMES else get_close_matches(word, NAMES, cutoff=0.75)
    nearest = " or ".join(dict.fromkeys(NAMES[name] for name in near))
    meant = f" Did you mean {nearest}?" if nearest else ""
    if text == bare and exists(bare):
        meant = f" For the folder or file of this name, give ./{bare}."
    known = "\n  ".join(MODELS)
    return (
        f"Unknown model {text!r}.{meant} Only models of ESM-2, ESM-1b, ESM-1v, ESM C, DNABERT-S "
        f"and DNABERT-2 can be served: by name (each also as {RANDOM_PREFIX}NAME, for trials "
        f"without weights),\n  {known}\n"
        "or by the path of a folder with safetensors, of a fair-esm .pt file, or of ESM C's .pth. "
        "The path contains a '/', and is absolute or exists here: what only the workers can see "
        "needs its whole path. Each may be in a bucket too: s3://bucket/folder."
    )
