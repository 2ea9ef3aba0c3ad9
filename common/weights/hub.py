"""Weights on the Hugging Face hub, and those of its cache on this machine.

Only weights, configuration and tokenizer are downloaded, no code.
"""

import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from common.bounded_call import within
from common.errors import UnavailableError, UserError
from common.installing import how_to_install
from common.memory import is_out_of_memory
from common.model_files import model_files
from common.model_revision import is_commit
from common.model_source import ModelSource
from common.model_specs import DNABERT_S, MODELS
from common.paths import is_not_writable
from common.text import without_login
from common.unavailable import is_unavailable

log = logging.getLogger(__name__)

#: Seconds that the hub has to answer the first question, the look-up of its name included. Its
#: library alone would wait for as long as the resolver of names does.
ANSWER_SECONDS = 10.0

#: The branch that a model without a revision is taken from.
DEFAULT_REVISION = "main"

#: Files to download: with safetensors, and of the models that have none.
ALWAYS = ("config.json", "tokenizer.json")
SAFETENSORS = ("*.safetensors", "*.safetensors.index.json")
PICKLED = ("pytorch_model*.bin", "*.bin.index.json")


@dataclass(frozen=True)
class HubModel:
    """A model on the hub, at a revision."""

    source: ModelSource

    @property
    def repository(self) -> str:
        return MODELS[self.source.name].hub

    @property
    def revision(self) -> str:
        return self.source.revision or DEFAULT_REVISION

    @property
    def shown(self) -> str:
        """The model in messages."""
        return (
            self.repository
            if self.source.revision is None
            else f"{self.repository} at " + (f"revision {self.source.revision}")
        )

    def cached(self) -> Path | None:
        """Return the complete snapshot of this revision in the cache, if there is one."""
        commit = self.cached_commit()
        return None if commit is None else self.snapshot_of(commit)

    def cached_commit(self) -> str | None:
        """Return the commit that this revision was when the cache last learnt of it."""
        if is_commit(self.revision):
            return self.revision
        try:
            return self._ref.read_text().strip()
        except (OSError, ValueError):
            return None

    def note_commit(self, commit: str) -> None:
        """Note which commit this revision is, if the cache can be written.

        To be called once the snapshot is complete: processes that cannot reach the hub, or whose
        download breaks off, use the snapshot that is noted.
        """
        if not is_commit(commit) or commit in (self.revision, self.cached_commit()):
            return
        with suppress(OSError):
            self._ref.parent.mkdir(parents=True, exist_ok=True)
            new = self._folder / f".{self._ref.name}.{os.getpid()}.new"
            new.write_text(commit)
            new.replace(self._ref)

    def snapshot_of(self, commit: str) -> Path | None:
        """Return the snapshot of a commit in the cache; None unless it is complete."""
        folder = self._folder / "snapshots" / commit
        try:
            files = model_files(folder)
        except UserError:
            return None
        names = {file.name for file in files}
        needed = set(ALWAYS) if MODELS[self.source.name].family is DNABERT_S else {"config.json"}
        return folder if needed <= names else None

    @property
    def _ref(self) -> Path:
        return self._folder / "refs" / self.revision

    @property
    def _folder(self) -> Path:
        return cache() / f"models--{self.repository.replace('/', '--')}"

    def latest_commit(self) -> str:
        """Ask the hub which commit this revision is.

        Raises:
            UserError: the hub has no such revision.
            Exception: it does not answer, or refuses.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        def ask() -> str | None:
            found = HfApi().model_info(
                self.repository, revision=self.revision, timeout=ANSWER_SECONDS / 2
            )
            return found.sha

        try:
            commit = within(ANSWER_SECONDS, ask)
        except RevisionNotFoundError as error:
            raise UserError(
                f"{self.repository} has no revision {self.revision} on {endpoint()}: give a "
                "branch, a tag or a commit that its page there shows."
            ) from error
        return commit or self.revision

    def download(self, commit: str, to: Path | None = None) -> Path:
        """Download what is missing of a commit; return its folder.

        Of a branch, the hub's library would note the commit before it has the files.

        Args:
            to: an empty folder; None: the cache.
        """
        from huggingface_hub import snapshot_download

        def fetch(*patterns: str) -> Path:
            wanted = [*ALWAYS, *patterns]
            return Path(
                snapshot_download(
                    self.repository,
                    revision=commit,
                    allow_patterns=wanted,
                    local_dir=to,
                )
            )

        folder = fetch(*SAFETENSORS)
        if any(folder.glob("*.safetensors")):
            return folder
        return fetch(*PICKLED)  # some models on the hub have no safetensors


def find_or_download(source: ModelSource) -> Path:
    """Return the folder of a model of the hub: from the cache, or downloaded into it.

    A cache that has the whole of a revision is enough: it may be for reading only, and there need
    be no network. A branch that has moved is downloaded anew where there is one.

    Raises:
        UnavailableError: the model is not in the cache, and the hub does not answer.
        UserError: it cannot be downloaded for another reason.
    """
    require_hub()
    model = HubModel(source)
    cached = model.cached()
    if cached is not None and is_settled(model):
        return cached
    if is_offline():
        raise UserError(f"{not_here(model)}, and HF_HUB_OFFLINE is set. {how_to_get(source)}")
    return with_fallback(model, cached, lambda: up_to_date(model))


def up_to_date(model: HubModel) -> Path:
    """Return the snapshot of what a revision is now, downloaded if the cache does not have it."""
    commit = model.latest_commit()
    folder = model.snapshot_of(commit)
    if folder is None:
        check_cache_writable()
        log.info("Downloading %s, commit %s, to %s.", model.shown, commit, cache())
        folder = model.download(commit)
    model.note_commit(commit)
    return folder


def check_cache_writable() -> None:
    """Raise OSError if the cache cannot be written; the hub's library would go a long way first."""
    folder = cache()
    if not folder.is_absolute():
        raise OSError(errno.EACCES, "this user has no home folder", str(folder))
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(place, os.W_OK):
        number = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(number, os.strerror(number), str(place))


def with_fallback(model: HubModel, cached: Path | None, find: Callable[[], Path]) -> Path:
    """Return what is found on the hub, or the cached snapshot if the hub does not answer.

    Raises:
        UnavailableError: neither is to be had, and the hub does not answer.
        UserError: neither is to be had for another reason.
    """
    try:
        return find()
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        why = describe(error)
        if cached is not None:
            log.warning(
                "What %s is now could not be had from %s (%s): what is in %s is used.",
                *(model.shown, endpoint(), why, cached),
            )
            return cached
        if is_not_writable(error):
            raise UserError(
                f"{not_here(model)}, which cannot be written ({why}). Give HF_HOME a folder that "
                "this user may write, with enough space, or one that has them: on any machine, "
                f"HF_HOME=FOLDER worker download --model {model.source.text}"
            ) from error
        kind = UnavailableError if is_unavailable(error) else UserError
        raise kind(
            f"{not_here(model)}, and could not be downloaded from {endpoint()} ({why}). "
            f"{how_to_get(model.source)}"
        ) from error


def not_here(model: HubModel) -> str:
    return f"The weights of {model.shown} are not in the local cache {cache()}"


def how_to_get(source: ModelSource) -> str:
    """Return what to do where the hub cannot be reached, and what to look at where it can."""
    return (
        f"Where there is a network, run: worker download --model {source.text} --to FOLDER, bring "
        "FOLDER here, and give --model /path/of/FOLDER. HF_HOME names another cache, HF_ENDPOINT a "
        "mirror of the hub, and HF_TOKEN lets you in."
    )


def describe(error: Exception) -> str:
    """Return an error of the hub's library in one line."""
    if isinstance(error, OSError) and is_not_writable(error):
        return f"{error.filename}: {error.strerror}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return without_login(f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}")


def require_hub() -> None:
    if find_spec("huggingface_hub") is None:
        raise UserError(f"The Hugging Face hub needs its package: {how_to_install('worker')}")


def cache() -> Path:
    """Return the folder of the hub's cache on this machine."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def endpoint() -> str:
    from huggingface_hub import constants

    return without_login(constants.ENDPOINT)


def is_settled(model: HubModel) -> bool:
    """Return whether the hub need not be asked what a revision is now."""
    return is_commit(model.revision) or is_offline()


def is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
