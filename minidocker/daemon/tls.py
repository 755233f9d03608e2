"""TLS under a client's connection, whose input may end before its output.

Source  RFC 8446, 6.1 (close_notify ends one direction only); RFC 5246, 7.2.1.
Rules   - asyncio's own TLS closes both directions at the peer's close_notify, and `echo x | docker -H tcp://... run -i`
          would lose its output. Here close_notify is a half-close, as it is over TCP.
        - nothing of the client reaches HTTP before the handshake is over, its certificate checked.
        - a connection that ends without close_notify was cut: its end is no end of stdin, the connection is gone.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterable
from typing import Any, cast

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 30.0
_READ_BYTES = 65536


class TlsTransport(asyncio.Transport):
    """What the inner protocol writes to: plain bytes in, records out."""

    def __init__(self, front: "TlsFront", raw: asyncio.Transport) -> None:
        super().__init__()
        self._front, self._raw = front, raw

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`; buffered without a bound, as every transport's: see pause_writing."""
        self._front.send(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self._front.send(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        """Say close_notify, send what is left, close."""
        self._front.finish()

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def is_reading(self) -> bool:
        return not self._front.paused

    def pause_reading(self) -> None:
        self._front.paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._front.paused = False
        self._raw.resume_reading()
        asyncio.get_running_loop().call_soon(self._front.receive)  # what was decrypted by halves

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._front.context
        if name == "ssl_object":
            return self._front.tls
        return self._raw.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._front.inner

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._front.inner = cast(asyncio.Protocol, protocol)


class TlsFront(asyncio.Protocol):
    """The server's side of TLS between a TCP transport and `inner`, which sees a plain connection."""

    def __init__(self, context: ssl.SSLContext, inner: asyncio.Protocol) -> None:
        self.context, self.inner = context, inner
        self.paused = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._raw: asyncio.Transport | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._ready = False
        self._ended = False  # the peer said close_notify
        self._finished = False  # we did

    # -- what asyncio calls --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        self._patience = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self._raw.abort)

    def connection_lost(self, error: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        if self._ready:
            self.inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self.receive()

    def eof_received(self) -> bool:
        return self._ended and not self._finished  # False closes: without close_notify the peer is gone

    def pause_writing(self) -> None:
        if self._ready:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        if self._ready:
            self.inner.resume_writing()

    # -- records --

    def receive(self) -> None:
        """Hand on whatever can be decrypted; the handshake first."""
        assert self._raw is not None
        try:
            if not self._ready:
                self.tls.do_handshake()
                self._begin()
            while not (self.paused or self._ended or self._raw.is_closing()):
                data = self.tls.read(_READ_BYTES)
                if not data:
                    self._end()
                    break
                self.inner.data_received(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._end()
        except (ssl.SSLError, ssl.CertificateError) as error:
            log.info("a TLS client is refused", extra={"peer": self._peer(), "reason": str(error)})
            self._flush()  # the alert that tells the client why
            self._raw.close()
            return
        self._flush()

    def _begin(self) -> None:
        assert self._raw is not None and self._patience is not None
        self._patience.cancel()
        self._ready = True
        self.inner.connection_made(TlsTransport(self, self._raw))

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            if not self.inner.eof_received():
                self.finish()

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        view = memoryview(data).cast("B")
        while view and not self._finished:
            view = view[self.tls.write(view) :]
        self._flush()

    def finish(self) -> None:
        """Our direction ends: close_notify, then the connection closes once all is sent."""
        assert self._raw is not None
        if not self._finished:
            self._finished = True
            try:
                self.tls.unwrap()
            except ssl.SSLError:
                pass  # it wants the peer's answer, which nobody waits for
            self._flush()
        self._raw.close()

    def _flush(self) -> None:
        if self._outgoing.pending and self._raw is not None and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    def _peer(self) -> str:
        peer = self._raw.get_extra_info("peername") if self._raw is not None else None
        return f"{peer[0]}:{peer[1]}" if peer else ""
