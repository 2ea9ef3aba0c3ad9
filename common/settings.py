"""Settings from the environment: ``VIRNUCPRO_BROKER_URL``, ``…_STORE`` and so on.

S3 is set by the variables that every S3 tool knows: ``AWS_ENDPOINT_URL_S3``,
``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE`` and so on. ``VIRNUCPRO_DISABLE_FP16`` is read in
``common.rungs`` alone.
"""

from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.errors import UserError
from common.wire.signing import MessageKeys

#: What is asked for where a setting is not a text.
NUMBERS = {"gpu_memory": "number of gigabytes", "high_water": "whole number"}


class Settings(BaseSettings):
    """Where the fleet meets, and what a worker may take. Command-line options go before these."""

    model_config = SettingsConfigDict(env_prefix="VIRNUCPRO_", frozen=True)

    broker_url: str = "redis://localhost:6379/0"
    store: str | None = None
    gpu_memory: PositiveFloat | None = None  # gigabytes of a GPU that a worker may take
    #: Messages that wait in the queues of the whole fleet, at most: what Redis has memory for
    #: (about 1 KB each), and enough for thousands of GPUs.
    high_water: PositiveInt = 20_000
    liveness_file: Path | None = None  # that a worker touches while it is well
    message_key: SecretStr | None = None  # several with commas between: the first signs

    @classmethod
    def read(
        cls,
        *,
        broker: str | None = None,
        store: str | None = None,
        gpu_memory: float | None = None,
        high_water: int | None = None,
        liveness_file: Path | None = None,
    ) -> "Settings":
        """Settings of the environment, with what was given on the command line before them."""
        given: dict[str, Any] = {
            "broker_url": broker,
            "store": store,
            "gpu_memory": gpu_memory,
            "high_water": high_water,
            "liveness_file": liveness_file,
        }
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            wrong = error.errors()[0]
            name = str(wrong["loc"][0])
            raise UserError(
                f"VIRNUCPRO_{name.upper()} or --{name.replace('_', '-')}: {wrong['input']} is no "
                f"{NUMBERS[name]} above 0."
            ) from None

    def message_keys(self) -> MessageKeys:
        """The keys of ``VIRNUCPRO_MESSAGE_KEY``; without it there are none.

        Raises:
            UserError: a key that could be guessed.
        """
        return MessageKeys.parse(self.message_key.get_secret_value() if self.message_key else "")

    def required_store(self) -> str:
        if not self.store:
            raise UserError(
                "No store is set: give --store or VIRNUCPRO_STORE, a folder that every machine "
                "of the fleet sees (file:///shared/embeddings) or a bucket (s3://bucket/prefix)."
            )
        return self.store
