"""Settings from the environment: ``VIRNUCPRO_BROKER_URL``, ``…_STORE`` and so on.

S3 is set by the variables that every S3 tool knows: ``AWS_ENDPOINT_URL_S3``,
``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE`` and so on. ``VIRNUCPRO_DISABLE_FP16`` is read in
``common.rungs`` alone.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.errors import UserError
from common.paths import user_path
from common.wire.signing import MessageKeys

#: The expected kind of value of each setting that is a number.
NUMBERS = {
    "gpu_memory": "number of gigabytes",
    "high_water": "whole number",
    "max_device_losses": "whole number",
    "tmp_bytes": "whole number",
}

#: A worker's name, such as that of a pod.
WORKER_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?"


class Settings(BaseSettings):
    """Addresses of Redis and the store, and limits. Command-line options take precedence."""

    model_config = SettingsConfigDict(env_prefix="VIRNUCPRO_", frozen=True)

    broker_url: str = Field("redis://localhost:6379/0", repr=False)  # may have a password
    store: str | None = None
    gpu_memory: PositiveFloat | None = None  # gigabytes of a GPU that a worker may take
    #: Largest number of messages waiting in the queues of the whole fleet. Each takes about 1 KB
    #: of Redis's memory; the default is enough for thousands of GPUs.
    high_water: PositiveInt = 20_000
    #: A worker touches it while it is alive.
    liveness_file: Annotated[Path, AfterValidator(user_path)] | None = None
    #: Address of the HTTP server of a keeper or worker; empty: none.
    metrics: str | None = None
    #: It exists while a worker is ready.
    ready_file: Annotated[Path, AfterValidator(user_path)] | None = None
    #: Takes the place of the host's name in those of workers.
    worker_name: Annotated[str, Field(pattern=f"^{WORKER_NAME}$")] | None = None
    max_device_losses: PositiveInt = 3  # within half an hour, after which a worker ends
    owner: str | None = None  # of the jobs that are submitted
    #: Bytes that files may take in the folder for temporary files, where its disk has more.
    tmp_bytes: PositiveInt | None = None
    pod_costs: bool = False  # whether a keeper marks the pods of busy workers
    message_key: SecretStr | None = None  # or several, separated by commas: the first signs

    @classmethod
    def read(
        cls,
        *,
        broker: str | None = None,
        store: str | None = None,
        gpu_memory: float | None = None,
        high_water: int | None = None,
        liveness_file: Path | None = None,
        ready_file: Path | None = None,
        max_device_losses: int | None = None,
    ) -> "Settings":
        """Read settings from the environment; arguments that are not None take precedence.

        Raises:
            UserError: a setting is not of the right kind, or is empty and would turn a protection
                off.
        """
        given: dict[str, Any] = {
            "broker_url": broker,
            "store": store,
            "gpu_memory": gpu_memory,
            "high_water": high_water,
            "liveness_file": liveness_file,
            "ready_file": ready_file,
            "max_device_losses": max_device_losses,
        }
        try:
            settings = cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            wrong = error.errors()[0]
            name = str(wrong["loc"][0])
            if name == "worker_name":
                raise UserError(
                    f"VIRNUCPRO_WORKER_NAME: {wrong['input'][:300]!r} is not 1 to 253 letters, "
                    "digits, dots, hyphens and underscores, with a letter or digit at both ends. "
                    "Give the pod's name, or unset it for the host's."
                ) from None
            if name == "pod_costs":
                raise UserError(
                    f"VIRNUCPRO_POD_COSTS: {wrong['input']!r} is neither yes nor no: give 1 or 0."
                ) from None
            expected = f"{NUMBERS[name]} above 0" if name in NUMBERS else "text"
            raise UserError(
                f"{name} (or VIRNUCPRO_{name.upper()}): {wrong['input']} is not a {expected}."
            ) from None
        settings.message_keys()  # every process refuses a key that is empty or too short
        return settings

    def message_keys(self) -> MessageKeys:
        """Return the keys of ``VIRNUCPRO_MESSAGE_KEY``; without it there are none.

        Raises:
            UserError: it is set and empty, or a key is so short that it could be guessed.
        """
        if self.message_key is None:
            return MessageKeys()
        return MessageKeys.parse(self.message_key.get_secret_value())

    def required_store(self) -> str:
        """Return the store's URL.

        Raises:
            UserError: no store is set.
        """
        if not self.store:
            raise UserError(
                "No store is set: name one, or set VIRNUCPRO_STORE, to a folder that all machines "
                "of the fleet share (file:///shared/embeddings) or a bucket (s3://bucket/prefix). "
                "For this machine alone none is needed: producer submit --local, or Fleet.local."
            )
        return self.store
