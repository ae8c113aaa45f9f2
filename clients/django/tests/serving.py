"""The test project under uvicorn: a process of its own, HTTPS, on the test database.

HTTPS because the cookie is Secure outside DEBUG: clients then treat it as browsers do.  As a
program it serves on a free port, and tells it:

    python -m tests.serving CERTIFICATE KEY
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ADDRESS = "127.0.0.1"


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for the loopback address that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ADDRESS)])
    now = datetime.datetime.now(datetime.timezone.utc)
    hour = datetime.timedelta(hours=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - hour)
        .not_valid_after(now + 24 * hour)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(ADDRESS))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "certificate.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file


class Served:
    """A running server.  ``name`` is what its database connections are called."""

    def __init__(
        self,
        directory: Path,
        database: str,
        session_manager: dict[str, Any],
        pool_timeout: float | None = None,
        application: str = "tests.asgi:application",
    ) -> None:
        """pool_timeout: use Django's pool; seconds that a request waits for a connection."""
        self.name = f"served-{secrets.token_hex(4)}"
        self.certificate, self.key = make_certificate(directory)
        self.log = directory / "server.log"
        self._environment = {
            **os.environ,
            "SM_TEST_DBNAME": database,
            "SM_TEST_SESSION_MANAGER": json.dumps(session_manager),
            "PGAPPNAME": self.name,
            "SM_TEST_APPLICATION": application,
        }
        if pool_timeout is not None:
            self._environment["SM_TEST_POOL"] = str(pool_timeout)

    def __enter__(self) -> Served:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.serving", str(self.certificate), str(self.key)],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        port = self.process.stdout.readline().strip()
        assert port, self.log.read_text()
        self.url = f"https://{ADDRESS}:{port}"
        try:
            # The application is imported and its URLs are loaded by now.  This asks no database.
            urllib.request.urlopen(
                f"{self.url}/plain/", context=self.context(), timeout=300
            ).close()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: Any) -> None:
        self.process.terminate()
        try:
            self.process.wait(180)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)


def main() -> None:
    import uvicorn

    listener = socket.create_server((ADDRESS, 0), backlog=256)
    # Accepted sockets inherit it.  asyncio does not set it on sockets that it did not make, and
    # each answer's body would wait for the acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    certificate, key = sys.argv[1:]
    server = uvicorn.Server(
        uvicorn.Config(
            os.environ["SM_TEST_APPLICATION"],
            lifespan="off",
            access_log=False,
            log_level="warning",
            # No connection is closed at the moment when a client uses it again.
            timeout_keep_alive=300,
            # What a test that has failed left open.
            timeout_graceful_shutdown=5,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
    )
    # Connections that come before it runs wait in the backlog.
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
