"""What the course runs on: a local registry with the base image, the daemon, and JupyterLab.

Source  DESIGN: `./lab` calls this file after it has made .venv; each step says what it does and can be repeated.
Rules   - nothing here is reachable from another machine: every server listens on loopback or on a UNIX socket.
        - a step that finds its work done changes nothing; a daemon of another checkout, or of older code, is replaced,
          and its containers live on.
        - `clean` removes all that any step ever made.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from minidocker.client import connect
from minidocker.errors import MinidockerError
from minidocker.lab import base_image, registry

CHECKOUT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DATA_ROOT = Path("/var/lib/minidocker")
EXEC_ROOT = Path("/run/minidocker")
LOGS = Path("/var/log/minidocker")
REGISTRY_ROOT = Path("/var/lib/minidocker-registry")
SOCKET = f"unix://{EXEC_ROOT}/minidocker.sock"
REGISTRY_PORT = 5050
JUPYTER_PORT = 8888
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 30
UNIT_DIRECTORY = Path("/etc/systemd/system")


def say(text: str) -> None:
    """One line of progress, in the voice of `./lab`."""
    print(f"\033[1m==> {text}\033[0m" if sys.stdout.isatty() else f"==> {text}", flush=True)


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float) -> None:
    """Return as soon as `condition()` holds. Raises MinidockerError naming `what` when time is up."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise MinidockerError(f"{what} within {timeout_seconds:.0f} s; look into {LOGS}")
        time.sleep(0.05)


def fingerprint() -> str:
    """A digest of the engine's source: tells whether a running daemon is of this code."""
    digest = hashlib.sha256(str(CHECKOUT).encode())
    for path in sorted((CHECKOUT / "minidocker").rglob("*.py")):
        if path.parent.name not in ("lab", "cli", "client"):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def daemon_command() -> list[str]:
    """How the course's daemon is started. The local registry answers for Docker Hub, so nothing goes online."""
    return [str(BIN / "minidockerd"), f"--registry-mirror=http://127.0.0.1:{REGISTRY_PORT}"]


def daemon_answers() -> bool:
    """Whether a daemon serves the default socket."""
    try:
        return bool(connect(SOCKET).ping())
    except (OSError, MinidockerError):
        return False


def _daemon_pid() -> int | None:
    try:
        pid = int((EXEC_ROOT / "minidocker.pid").read_text())
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError):
        return None


def start_daemon() -> None:
    """Start minidockerd on its default socket, unless one of this very code answers there."""
    marker, code = EXEC_ROOT / "lab.fingerprint", fingerprint()
    if daemon_answers():
        if marker.exists() and marker.read_text() == code:
            return
        say("restarting the daemon: its code has changed (containers live on)")
        stop_daemon()
    else:
        say("starting minidockerd")
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / "minidockerd.log").open("ab") as log:
        process = subprocess.Popen(
            daemon_command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    wait_until(
        lambda: daemon_answers() or process.poll() is not None, "minidockerd did not answer", START_TIMEOUT_SECONDS
    )
    if process.poll() is not None:
        tail = (LOGS / "minidockerd.log").read_text(errors="replace").splitlines()[-5:]
        raise MinidockerError("minidockerd ended at once:\n  " + "\n  ".join(tail))
    marker.write_text(code)


def stop_daemon() -> None:
    """Ask the daemon to end and wait until it has. Its containers live on."""
    pid = _daemon_pid()
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: _daemon_pid() is None or _is_zombie(pid), "minidockerd did not end", STOP_TIMEOUT_SECONDS)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def up(arguments: list[str]) -> None:
    """Registry, base image, daemon, and `busybox` in it. `--service`: keep them over a reboot, with systemd."""
    if registry.start(REGISTRY_ROOT, REGISTRY_PORT):
        say(f"local registry on 127.0.0.1:{REGISTRY_PORT}")
    if base_image.ensure(f"127.0.0.1:{REGISTRY_PORT}"):
        say("base image busybox made from Debian's busybox-static and pushed")
    start_daemon()
    client = connect(SOCKET)
    if not any("busybox:latest" in image.tags for image in client.images.list()):
        say("pulling busybox")
        client.images.pull("busybox")
    if "--service" in arguments:
        install_units()
    say("minidocker is ready: minidocker run -it busybox")


def install_units() -> None:
    """Let systemd start the registry, the daemon and JupyterLab at boot (the Vagrant machine)."""
    jupyter = " ".join(jupyter_command("0.0.0.0", "minidocker"))
    unit = (
        "[Unit]\nDescription=minidocker: registry, daemon and course\nAfter=network.target\n"
        f"[Service]\nType=simple\nKillMode=process\nWorkingDirectory={CHECKOUT}\n"
        f"ExecStartPre={sys.executable} -m minidocker.lab.services up\nExecStart={jupyter}\nRestart=on-failure\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    (UNIT_DIRECTORY / "minidocker.service").write_text(unit)
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "enable", "--now", "minidocker.service"], check=True)


def down(_arguments: list[str]) -> None:
    """Stop the daemon and the registry; containers, images and data stay."""
    say("stopping minidockerd and the local registry")
    stop_daemon()
    registry.stop(REGISTRY_ROOT)


def clean(_arguments: list[str]) -> None:
    """Remove every container, image, network, file and process that `./lab` made."""
    if daemon_answers():
        client = connect(SOCKET)
        for container in client.containers.list(all=True):
            container.remove(force=True)
    if _daemon_pid() is not None:
        stop_daemon()
        subprocess.run([str(BIN / "minidockerd"), "--remove-networks"], check=False)
    registry.stop(REGISTRY_ROOT)
    if (UNIT_DIRECTORY / "minidocker.service").exists():
        subprocess.run(["systemctl", "disable", "--now", "minidocker.service"], check=False)
        (UNIT_DIRECTORY / "minidocker.service").unlink()
    for path in (DATA_ROOT, EXEC_ROOT, LOGS, REGISTRY_ROOT):
        shutil.rmtree(path, ignore_errors=True)


def jupyter_command(address: str, token: str) -> list[str]:
    """JupyterLab on the notebooks, without news, update checks or an extension manager that wants the network."""
    return [
        str(BIN / "jupyter"),
        "lab",
        "--no-browser",
        "--allow-root",
        f"--ip={address}",
        f"--port={JUPYTER_PORT}",
        f"--ServerApp.root_dir={CHECKOUT}",
        "--ServerApp.default_url=/lab/tree/notebooks",
        f"--LabApp.app_settings_dir={CHECKOUT / '.lab' / 'jupyter'}",
        "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        f"--IdentityProvider.token={token}",
    ]


def write_jupyter_settings() -> None:
    """No news toast, no update check: the course works without a network."""
    settings = CHECKOUT / ".lab" / "jupyter" / "overrides.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    settings.write_text(json.dumps(quiet))


def jupyter(arguments: list[str]) -> None:
    """Open JupyterLab in the foreground; Ctrl-C ends it, the daemon stays."""
    write_jupyter_settings()
    say("opening JupyterLab; the address with its token is printed below, Ctrl-C ends it")
    command = [*jupyter_command("127.0.0.1", os.urandom(16).hex()), *arguments]
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        command.remove("--no-browser")
    os.execv(command[0], command)


def main() -> int:
    """`python -m minidocker.lab.services VERB [ARGUMENTS]`."""
    verbs = {"up": up, "down": down, "clean": clean, "jupyter": jupyter}
    verb = verbs.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if verb is None:
        print(f"usage: services {{{','.join(verbs)}}}", file=sys.stderr)
        return 64
    try:
        verb(sys.argv[2:])
    except (MinidockerError, OSError, subprocess.SubprocessError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
