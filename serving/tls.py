"""The certificate of an endpoint, as HAProxy wants it."""

from __future__ import annotations

import ssl
from pathlib import Path

from raymill.errors import UsageError

from .order import write_private
from .spec import TlsSpec


def check_tls(tls: TlsSpec) -> None:
    """Raises UsageError when the files are no certificate with its key."""
    for name, path in (("cert", tls.cert), ("key", tls.key)):
        if not Path(path).is_file():
            raise UsageError(f"serving.tls.{name} must be a PEM file, but {path} is none")
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError):
        raise UsageError("serving.tls: the key must be that of the certificate, both PEM and "
                         f"without a passphrase, but got {tls.cert} and {tls.key}") from None


def join(tls: TlsSpec, folder: Path) -> Path:
    """Certificate and key in one private file."""
    path = folder / "tls.pem"
    texts = [Path(each).read_text(encoding="ascii").rstrip() for each in (tls.cert, tls.key)]
    write_private(path, "\n".join(texts) + "\n")
    return path
