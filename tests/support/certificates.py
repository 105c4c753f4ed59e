"""A certificate authority that lasts a day, and a certificate of its for this machine."""

from __future__ import annotations

import functools
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from parts import need

_EXTENSIONS = """
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Certificates:
    """Contexts for both ends.

    Attributes:
        server: Shows a certificate for ``localhost``, ``127.0.0.1`` and ``::1``.
        client: Trusts the authority that signed it, and nobody else.
        authority: The authority's own certificate, in PEM.
        certificate, key: What the server shows; it will do for a client, too.
    """

    server: ssl.SSLContext
    client: ssl.SSLContext
    authority: str
    certificate: str
    key: str


@functools.cache
def certificates() -> Certificates:
    """Make them with the openssl command, once in a run."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "extensions").write_text(_EXTENSIONS)
        key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        _openssl(
            f"req -x509 {key} -days 1 -subj /CN=tests -keyout ca.key -out ca.pem "
            "-addext keyUsage=critical,keyCertSign",
            directory,
        )
        _openssl(f"req {key} -subj /CN=localhost -keyout key.pem -out request.pem", directory)
        _openssl(
            "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 "
            "-extfile extensions -out cert.pem",
            directory,
        )
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(directory / "cert.pem", directory / "key.pem")
        authority = (directory / "ca.pem").read_text()
        return Certificates(
            server,
            ssl.create_default_context(cadata=authority),
            authority,
            (directory / "cert.pem").read_text(),
            (directory / "key.pem").read_text(),
        )


def _openssl(arguments: str, directory: Path) -> None:
    ran = subprocess.run(
        [need("openssl"), *arguments.split()],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"openssl {arguments}: {ran.stdout}")
