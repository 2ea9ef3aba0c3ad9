"""TLS in front of a server: certificates, and a port that speaks TLS with one."""

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    """The files of a certificate for ``HOST``, valid for a day."""

    file: Path
    key_file: Path


def make_certificate(folder: Path) -> Certificate:
    """Make a certificate that signs itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), named("a Redis")
    return save(folder, "certificate", key, signed(key, name, key, name))


def make_signed_certificate(folder: Path) -> tuple[Path, Certificate]:
    """Make an authority, and a certificate that it signs; return the file of the authority, too."""
    key, name = ec.generate_private_key(ec.SECP256R1()), named("an authority")
    server_key = ec.generate_private_key(ec.SECP256R1())
    authority = save(folder, "authority", key, signed(key, name, key, name, is_authority=True))
    certificate = signed(server_key, named("a Redis"), key, name)
    return authority.file, save(folder, "certificate", server_key, certificate)


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def signed(
    key: ec.EllipticCurvePrivateKey,
    name: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    *,
    is_authority: bool = False,
) -> x509.Certificate:
    """Return a certificate of ``key`` for ``HOST``, signed by the issuer."""
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address(HOST))
    return (
        x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def save(
    folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> Certificate:
    made = Certificate(folder / f"{name}.pem", folder / f"{name}-key.pem")
    made.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


@contextmanager
def tls_port(target: int, certificate: Certificate) -> Iterator[int]:
    """Run a loopback port that speaks TLS, in front of a plain one; yield its number."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.file, certificate.key_file)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(HOST, target)
        try:
            await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))
        finally:
            for end in (writer, upstream_writer):
                end.transport.abort()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(relay, HOST, 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()  # before the others: a client that connects again would be one more
        while tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    loop.run_until_complete(task)
        loop.run_until_complete(asyncio.sleep(0.1))  # sockets are closed by the loop's next turns
        loop.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
