"""Settings from the environment: ``VIRNUCPRO_BROKER_URL``, ``…_STORE``, ``…_GPU_MEMORY`` and
``…_MESSAGE_KEY``.

S3 is set by the variables that every S3 tool knows: ``AWS_ENDPOINT_URL_S3``,
``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE`` and so on. ``VIRNUCPRO_DISABLE_FP16`` is read in
``common.rungs`` alone.
"""

from typing import Any

from pydantic import PositiveFloat, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.errors import UserError
from common.signing import MessageKeys


class Settings(BaseSettings):
    """Where the fleet meets, and what a worker may take. Command-line options go before these."""

    model_config = SettingsConfigDict(env_prefix="VIRNUCPRO_", frozen=True)

    broker_url: str = "redis://localhost:6379/0"
    store: str | None = None
    gpu_memory: PositiveFloat | None = None  # gigabytes of a GPU that a worker may take
    message_key: SecretStr | None = None  # several with commas between: the first signs

    @classmethod
    def read(
        cls,
        *,
        broker: str | None = None,
        store: str | None = None,
        gpu_memory: float | None = None,
    ) -> "Settings":
        """Settings of the environment, with what was given on the command line before them."""
        given: dict[str, Any] = {"broker_url": broker, "store": store, "gpu_memory": gpu_memory}
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            # The only setting that may not be any text.
            raise UserError(
                f"VIRNUCPRO_GPU_MEMORY or --gpu-memory: {error.errors()[0]['input']} is no number "
                "of gigabytes above 0."
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
