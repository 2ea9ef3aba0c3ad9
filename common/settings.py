"""Settings from the environment: ``VIRNUCPRO_BROKER_URL`` and ``VIRNUCPRO_STORE``.

S3 is set by the variables that every S3 tool knows: ``AWS_ENDPOINT_URL_S3``,
``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE`` and so on. ``VIRNUCPRO_DISABLE_FP16`` is read in
``common.rungs`` alone.
"""

from pydantic_settings import BaseSettings, SettingsConfigDict

from common.errors import UserError


class Settings(BaseSettings):
    """Where the fleet meets: one Redis and one store. Command-line options go before these."""

    model_config = SettingsConfigDict(env_prefix="VIRNUCPRO_", frozen=True)

    broker_url: str = "redis://localhost:6379/0"
    store: str | None = None

    @classmethod
    def read(cls, *, broker: str | None = None, store: str | None = None) -> "Settings":
        """Settings of the environment, with what was given on the command line before them."""
        given = {"broker_url": broker, "store": store}
        return cls(**{name: value for name, value in given.items() if value is not None})

    def required_store(self) -> str:
        if not self.store:
            raise UserError(
                "No store is set: give --store or VIRNUCPRO_STORE, a folder that every machine "
                "of the fleet sees (file:///shared/embeddings) or a bucket (s3://bucket/prefix)."
            )
        return self.store
