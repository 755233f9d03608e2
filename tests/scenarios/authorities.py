"""Certificate authorities made with openssl, for tests of TLS."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A CA of its own in a directory."""

    def __init__(self, folder: Path, name: str) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs openssl to make certificates")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.certificate = folder, folder / "ca.pem"
        self._openssl("-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", f"/CN={name}", "-addext",
                      "keyUsage=critical,keyCertSign")  # fmt: skip

    def _openssl(self, *arguments: str, key: Sequence[str] = _KEY) -> None:
        command = ["openssl", "req", "-x509", "-nodes", "-days", "30", *key, *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)

    def issue(self, name: str, *names: str, rsa: bool = False) -> Pair:
        """A certificate for localhost, 127.0.0.1 and more `names` ("IP:10.0.0.1"), for servers and clients alike."""
        known = ",".join(["DNS:localhost", "IP:127.0.0.1", *names])
        self._openssl("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-keyout", f"{name}-key.pem", "-out", f"{name}.pem",
                      "-subj", f"/CN={name}", "-addext", f"subjectAltName={known}",
                      "-addext", "basicConstraints=critical,CA:FALSE",
                      key=("-newkey", "rsa:2048") if rsa else _KEY)  # fmt: skip
        return Pair(self.folder / f"{name}.pem", self.folder / f"{name}-key.pem")
