"""TLS to a daemon on TCP, with a certificate of our own.

Source  Docker's "Protect the Docker daemon socket"; ssl(3).
Rules   - imported only for tcp:// with TLS: `ssl` costs 20 ms.
        - the half-close of TLS is close_notify: sent without waiting for the other side's, whose output goes on.
"""

import socket
import ssl
from _socket import socket as RawSocket

from minidocker.client.transport import TlsFiles


def wrap(sock: RawSocket, host: str, files: TlsFiles) -> RawSocket:
    """`sock`, connected to `host`, under TLS. Raises OSError (ssl.SSLError) if the handshake fails."""
    context = ssl.create_default_context(cafile=files.ca)
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.certificate:
        context.load_cert_chain(files.certificate, files.key)
    return context.wrap_socket(socket.socket(fileno=sock.detach()), server_hostname=host)


def half_close(sock: RawSocket) -> None:
    """Send close_notify: the other side reads our end of input, and may go on writing."""
    assert isinstance(sock, ssl.SSLSocket)
    sock.setblocking(False)
    try:
        sock.unwrap()
    except ssl.SSLWantReadError:
        pass        # our part is sent; the answer comes after the output
    finally:
        sock.setblocking(True)
