"""A real registry on loopback: Debian's docker-registry (CNCF distribution), for the course and the tests.

Source  distribution docs, "Configuring a registry"; docker-registry(1).
Rules   - it listens on 127.0.0.1 only.
        - everything it has lies below its root: config.yml, registry.log, registry.pid, data/.
        - a process is ended only if it still is the one that was started (pid and start time agree).
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from minidocker.errors import NotFound, Unavailable

PROGRAM = "docker-registry"
_TIMEOUT_SECONDS = 20.0
_LOOK_AGAIN_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Security:
    """Who may come in, and how; nothing set: anyone, by plain http.

    certificate, key  PEM files for TLS.
    htpasswd          file of users with bcrypt passwords (Basic).
    token             the settings of a token service: realm, service, issuer, rootcertbundle.
    """

    certificate: Path | None = None
    key: Path | None = None
    htpasswd: Path | None = None
    token: dict[str, str] | None = None


def configuration(root: Path, port: int, security: Security) -> dict[str, object]:
    """The registry's config.yml as data (JSON is YAML)."""
    http_part: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    if security.certificate is not None:
        http_part["tls"] = {"certificate": str(security.certificate), "key": str(security.key)}
    document: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
        "http": http_part,
    }
    if security.htpasswd is not None:
        document["auth"] = {"htpasswd": {"realm": "minidocker", "path": str(security.htpasswd)}}
    if security.token is not None:
        document["auth"] = {"token": security.token}
    return document


def start(root: Path, port: int, security: Security | None = None) -> bool:
    """Start a registry with its data below `root`, and wait until it answers.

    Returns  False: it ran already.
    Raises   NotFound: docker-registry is not installed. Unavailable: it does not answer (its log is quoted).
    """
    security = security or Security()
    if _running(root) is not None:
        return False
    program = shutil.which(PROGRAM, path=os.defpath + os.pathsep + "/usr/sbin:/usr/local/bin")
    if program is None:
        raise NotFound(f"{PROGRAM} is not installed; apt-get install docker-registry")
    (root / "data").mkdir(parents=True, exist_ok=True)
    config = root / "config.yml"
    config.write_text(json.dumps(configuration(root, port, security), indent=2))
    with (root / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=root,
            env={"PATH": os.defpath, "OTEL_TRACES_EXPORTER": "none"},
        )
    record = {"pid": process.pid, "start_time": _start_time(process.pid)}
    (root / "registry.pid").write_text(json.dumps(record))
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not _answers(port, tls=security.certificate is not None):
        if process.poll() is not None or time.monotonic() > deadline:
            text = (root / "registry.log").read_text(errors="replace")[-2000:]
            stop(root)
            raise Unavailable(f"{PROGRAM} on 127.0.0.1:{port} does not answer:\n{text}")
        time.sleep(_LOOK_AGAIN_SECONDS)
    return True


def stop(root: Path) -> None:
    """End the registry whose root this is; its data stays. One that does not run is fine."""
    pid = _running(root)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                if _running(root) == pid:
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
                    _wait_gone(pid)
            finally:
                os.close(pidfd)
    (root / "registry.pid").unlink(missing_ok=True)


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while _start_time(pid) is not None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # ours, if this process started it
        if time.monotonic() > deadline:
            raise Unavailable(f"{PROGRAM} (pid {pid}) does not end")
        time.sleep(_LOOK_AGAIN_SECONDS)


def _running(root: Path) -> int | None:
    try:
        record = json.loads((root / "registry.pid").read_text())
        pid, started = int(record["pid"]), record["start_time"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if started is not None and _start_time(pid) == started else None


def _start_time(pid: int) -> int | None:
    """Clock ticks since boot; None if no such process, or only its zombie, is there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _answers(port: int, *, tls: bool) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only whether someone is there
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    )
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in (200, 401)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
