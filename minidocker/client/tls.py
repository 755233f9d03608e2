"""TLS to a daemon on TCP, with a certificate of our own.

Source  Docker's "Protect the Docker daemon socket"; RFC 8446, 6.1 (close_notify ends one direction only).
Rules   - imported only for tcp:// with TLS: `ssl` costs 20 ms.
        - over memory buffers, not ssl.SSLSocket: its `unwrap` reads, and loses output that follows our close_notify.
"""

import ssl
from _socket import SHUT_WR
from _socket import socket as RawSocket

from minidocker.client.transport import TlsFiles

_READ_BYTES = 65536


class TlsSocket:
    """The part of a socket that the client uses, under TLS."""

    def __init__(self, sock: RawSocket, host: str, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._ahead = b""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
        self._flush()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """As socket.recv. Raises ValueError for flags, which TLS cannot serve."""
        if flags:
            raise ValueError("a TLS socket takes no flags")
        if self._ahead:
            piece, self._ahead = self._ahead[:size], self._ahead[size:]
            return piece
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._flush()
                if not self._fill():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    def pending(self) -> int:
        """Bytes that can be had without waiting, though the descriptor may not say so."""
        return len(self._ahead) or self._tls.pending() or self._incoming.pending

    def send(self, payload: bytes | memoryview, flags: int = 0) -> int:
        """As socket.send; takes all of it. Raises ValueError for flags."""
        if flags:
            raise ValueError("a TLS socket takes no flags")
        self._tls.write(payload)
        self._flush()
        return len(payload)

    def sendall(self, payload: bytes) -> None:
        """As socket.sendall."""
        if payload:
            self.send(payload)

    def shutdown(self, how: int) -> None:
        """End our direction (SHUT_WR) with close_notify; the other side may go on."""
        assert how == SHUT_WR
        try:
            # What has come already is read first: the library would take it for a breach of the closing.
            while piece := self._tls.read(_READ_BYTES):
                self._ahead += piece
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass        # our part is written; theirs comes after the output
        self._flush()

    def fileno(self) -> int:
        """The descriptor, to wait on."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._sock.sendall(self._outgoing.read())

    def _fill(self) -> bool:
        piece = self._sock.recv(_READ_BYTES)
        if piece:
            self._incoming.write(piece)
        else:
            self._incoming.write_eof()
        return bool(piece)


def wrap(sock: RawSocket, host: str, files: TlsFiles) -> RawSocket:
    """`sock`, connected to `host`, under TLS. Raises OSError (ssl.SSLError) if the handshake fails."""
    context = ssl.create_default_context(cafile=files.ca)
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.certificate:
        context.load_cert_chain(files.certificate, files.key)
    try:
        return TlsSocket(sock, host, context)  # type: ignore[return-value]
    except OSError:
        sock.close()
        raise
