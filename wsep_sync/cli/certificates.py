"""Certificates and keys that are named on the command line."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

__all__ = ["load_certificates"]


def load_certificates(context: ssl.SSLContext, arguments: argparse.Namespace) -> None:
    """Read ``--tls-cert`` and ``--tls-key``.

    Raises:
        ValueError: They cannot be read, or do not belong together; it says which, and why.
    """
    import ssl

    certificate, key = arguments.tls_cert, arguments.tls_key
    for name in filter(None, (certificate, key)):
        try:
            with open(name, "rb") as file:
                content = file.read()
        except OSError as error:
            raise ValueError(f"{name}: {error.strerror}") from error
        if name == certificate and key is None and b"PRIVATE KEY-" not in content:
            raise ValueError(f"{name}: no private key is in it: --tls-key names the file of one")
        if name == key and b"PRIVATE KEY-" not in content:
            raise ValueError(f"{name}: no private key is in it")
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        words = f"{certificate}: {error.strerror or error}"
        if error.reason == "KEY_VALUES_MISMATCH":
            words = f"{key or certificate}: this is not the private key of {certificate}"
        raise ValueError(words) from error
