"""TLS to a daemon on TCP: who may speak, and the end of the input."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidocker import errors
from minidocker.client.transport import TlsFiles, Transport, half_close


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """ca.pem, and cert.pem with key.pem for 127.0.0.1 that it signed."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    _openssl(tmp_path, "req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca")
    _openssl(tmp_path, "req", "-x509", "-CA", "ca.pem", "-CAkey", "ca-key.pem", *key, "-keyout", "key.pem", "-out",
             "cert.pem", "-subj", "/CN=daemon", "-addext", "subjectAltName=IP:127.0.0.1")
    return tmp_path


@pytest.fixture
def echo(files: Path) -> Iterator[str]:
    """Upgrades the connection, reads to the end of the input, and only then sends it back; wants a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files / "ca.pem"))
    context.load_cert_chain(files / "cert.pem", files / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = server.accept()
                with context.wrap_socket(raw, server_side=True) as connection:
                    while b"\r\n\r\n" not in connection.recv(65536):
                        pass
                    connection.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
                    seen = b""
                    while piece := connection.recv(65536):
                        seen += piece
                    connection.sendall(seen[::-1])
            except ssl.SSLError:
                continue
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def test_the_end_of_the_input_leaves_the_output_open(echo: str, files: Path) -> None:
    tls = TlsFiles(str(files / "ca.pem"), str(files / "cert.pem"), str(files / "key.pem"))
    connection = Transport(echo, tls).request("POST", "/x", hijack=True).take_connection()
    sent = bytes(range(256)) * 4000
    connection.sock.sendall(sent)
    half_close(connection)
    seen = connection.buffer
    while piece := connection.fill():
        seen += piece
    assert seen == sent[::-1]
    connection.close()


def test_a_daemon_that_nobody_trusts_is_refused(echo: str, files: Path) -> None:
    with pytest.raises(errors.Unavailable, match="certificate verify failed"):
        Transport(echo, TlsFiles()).request("GET", "/x")


def test_a_client_without_a_certificate_is_turned_away(echo: str, files: Path) -> None:
    with pytest.raises((errors.Unavailable, OSError)):
        Transport(echo, TlsFiles(str(files / "ca.pem"))).request("GET", "/x").read()
