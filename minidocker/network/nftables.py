"""nftables by its own library: text commands in, one transaction, JSON out.

Source  libnftables(3), libnftables-json(5), nft(8).
Rules   - the only ctypes outside linux/syscall: a call takes 0.3 ms, the nft program 3 ms.
        - all commands of one `run` take effect together, or none does.
        - a context belongs to the network namespace that it was opened in, and to one thread at a time (by a lock).
"""

import ctypes
import json
import struct
import threading
from typing import Any

from minidocker.errors import MinidockerError, Unsupported
from minidocker.linux.netlink_socket import Netlink, attributes

_LIBRARY = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4


_NETFILTER, _GET_GENERATION, _GENERATION_ID = 12, 0xA10, 1  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN


class NftablesError(MinidockerError):
    """nftables refused a transaction; the text is its own. Nothing of the transaction took effect."""


class Nftables:
    """A libnftables context of this network namespace.

    netfilter  a socket to netfilter, kept open: closing one waits for what earlier transactions deleted (15 ms).
    Raises     Unsupported: the library is not installed.
    """

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise Unsupported(f"{_LIBRARY} cannot be loaded ({error}); install Debian's package libnftables1") from None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library
        self._lock = threading.Lock()
        self.netfilter = Netlink(_NETFILTER, {_GET_GENERATION: "nftables generation"})
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise Unsupported("nftables cannot be opened: not enough memory or no netlink socket")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON)

    def close(self) -> None:
        """Free the context; it cannot be used any more."""
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None
            self.netfilter.close()

    def generation(self) -> int:
        """The number of the kernel's ruleset: it changes with every transaction of anybody (20 us to ask)."""
        with self._lock:
            answer = self.netfilter.ask(_GET_GENERATION, struct.pack("=BBH", 0, 0, 0), "ruleset")
        return int.from_bytes(attributes(answer[4:])[_GENERATION_ID], "big")

    def run(self, commands: str) -> str:
        """Run nft commands (a line each) as one transaction. Returns what they printed (JSON of a list command).

        Raises  NftablesError with nft's own words.
        """
        with self._lock:
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            output = self._library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
            problem = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        if failed:
            raise NftablesError(f"nftables: {problem.strip() or 'the transaction was refused'}")
        return str(output)

    def list(self, what: str) -> list[dict[str, Any]]:
        """The objects of a list command ("ruleset", "table ip filter", "chains"), as libnftables-json has them."""
        answer = self.run(f"list {what}")
        return [item for item in json.loads(answer)["nftables"] if "metainfo" not in item] if answer.strip() else []
