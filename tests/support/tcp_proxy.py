"""A network between a client and a server that can be slow, cut or silent."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HOST = "127.0.0.1"
CHUNK = 65_536


@dataclass(eq=False)
class Link:
    """A client's connection, and the proxy's connection to the server."""

    client: socket.socket
    server: socket.socket
    #: Cleared while nothing is read from either end; both stay open.
    passing: threading.Event = field(default_factory=threading.Event)

    def end(self) -> None:
        for end in (self.client, self.server):
            # A shutdown wakes threads that wait for data of this socket; a close does not.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.passing.set()


class TcpProxy:
    """A proxy on a loopback port that passes everything on, until a test disturbs it."""

    def __init__(self, port: int) -> None:
        #: The port of the server for new connections.
        self.target = port
        #: Seconds of delay of every chunk, in each direction.
        self.delay = 0.0
        self._silent = False
        self._links: set[Link] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections; new ones are passed on."""
        with self._lock:
            links, self._links = self._links, set()
        for link in links:
            link.end()

    def blackhole(self) -> None:
        """Drop everything on all connections, and on those opened until ``heal``."""
        with self._lock:
            self._silent = True
            for link in self._links:
                link.passing.clear()

    def heal(self) -> None:
        """Pass new connections on. Silenced ones stay silent."""
        with self._lock:
            self._silent = False

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((HOST, self.target))
        except OSError:
            client.close()
            return
        link = Link(client, server)
        with self._lock:
            if not self._silent:
                link.passing.set()
            self._links.add(link)
        for ends in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(link, *ends), daemon=True).start()

    def _pump(self, link: Link, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            link.passing.wait()
            while data := source.recv(CHUNK):
                time.sleep(self.delay)
                link.passing.wait()
                sink.sendall(data)
        # A silenced end gets nothing, not even the end of the connection.
        link.passing.wait()
        link.end()
        with self._lock:
            self._links.discard(link)


@contextmanager
def tcp_proxy(port: int) -> Iterator[TcpProxy]:
    """Run a proxy in front of a server on a loopback port."""
    proxy = TcpProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
