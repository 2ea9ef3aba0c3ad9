"""A worker's way to Redis through kombu, with one client instead of one for each command."""

from typing import Any

from kombu.transport import redis as kombu_redis


class OneClientChannel(kombu_redis.Channel):
    """Kombu makes a client, without a connection of its own, to take a message, to acknowledge it
    and to send its events: a quarter of what a batch costs around the model.
    """

    _one_client: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[no-untyped-call]
        # After a disconnection the channel has another pool of connections.
        if self._one_client is None or self._one_client.connection_pool is not self.pool:
            self._one_client = super()._create_client()  # type: ignore[no-untyped-call]
        return self._one_client
