"""TLS to a daemon on TCP, with a certificate of our own.

Source  Docker's "Protect the Docker daemon socket"; ssl(3).
Rules   - imported only for tcp:// with TLS: `ssl` costs 20 ms.
        - TLS has no half-close that both sides keep: `unwrap` sends close_notify, which ends stdin.
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
