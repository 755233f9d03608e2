"""What the course runs on: a local registry with the base image, the daemon, and JupyterLab.

Source  DESIGN: `./lab` calls this file after it has made .venv; each step says what it does and can be repeated.
Rules   - nothing here is reachable from another machine: every server listens on loopback or on a UNIX socket. One
          exception: the JupyterLab of a virtual machine, whose forwarded port ends at an outer address. It has a token.
        - a step that finds its work done changes nothing; a daemon of another checkout, or of older code, is replaced,
          and its containers live on.
        - `clean` removes all that any step ever made; it starts the daemon for that, which alone knows its containers.
"""

import hashlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from minidocker.client import connect
from minidocker.errors import MinidockerError
from minidocker.lab import sandbox, swap
from minidocker.lab.isolated import EXEC_ROOT as ISOLATED_ROOT
from minidocker.lab.setup import base_image, debian_image, registry
from minidocker.linux.cgroups import Cgroup
from minidocker.network.bridge import default_network

CHECKOUT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
DATA_ROOT = Path("/var/lib/minidocker")
EXEC_ROOT = Path("/run/minidocker")
LOGS = Path("/var/log/minidocker")
REGISTRY_ROOT = Path("/var/lib/minidocker-registry")
SOCKET = f"unix://{EXEC_ROOT}/minidocker.sock"
REGISTRY_PORT = 5050
JUPYTER_PORT = 8888
FIRST_LESSON = "notebooks/00_start_here.ipynb"
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 30
UNIT_DIRECTORY, UNIT = Path("/etc/systemd/system"), "minidocker.service"
TOKEN = DATA_ROOT / "lab.token"
CGROUP_PARENT = "/minidocker"


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
    package = CHECKOUT / "minidocker"
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] not in ("lab", "cli", "client"):
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
        # The file may be older than the process that has the number now.
        return pid if b"minidockerd" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
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
    try:
        pidfd = os.pidfd_open(pid)  # readable once it has ended; its pidfile goes a little earlier
    except ProcessLookupError:
        return
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    ended, _, _ = select.select([pidfd], [], [], STOP_TIMEOUT_SECONDS)
    os.close(pidfd)
    if not ended:
        raise MinidockerError(f"minidockerd did not end within {STOP_TIMEOUT_SECONDS} seconds")


def up(arguments: list[str]) -> None:
    """Registry, base image, daemon, and `busybox` in it.

    --full     `debian` with a C compiler and git, too.
    --service  by systemd, JupyterLab too, and at each boot.
    """
    if "--service" in arguments:
        install_unit()
    if registry.start(REGISTRY_ROOT, REGISTRY_PORT):
        say(f"local registry on 127.0.0.1:{REGISTRY_PORT}")
    if base_image.ensure(f"127.0.0.1:{REGISTRY_PORT}"):
        say("base image busybox made from Debian's busybox-static and pushed")
    start_daemon()
    _have("busybox")
    if "--full" in arguments:
        _full()
    if sandbox.install():
        say("kernel for exercises: minidocker sandbox")
    say("minidocker is ready: minidocker run -it busybox")


def _have(name: str, *, newest: bool = False) -> None:
    """An image of the registry in the daemon. newest: pull it even if there is one."""
    client = connect(SOCKET)
    if newest or not any(f"{name}:latest" in image.tags for image in client.images.list()):
        say(f"pulling {name}")
        client.images.pull(name)


def _full() -> None:
    """The base image `debian` in registry and daemon. The first time takes a minute, another time nothing is done."""
    if not shutil.which(debian_image.PROGRAM):
        raise MinidockerError(f"{debian_image.PROGRAM} is not installed; ./lab setup --full installs it")
    began = time.monotonic()
    made = debian_image.ensure(f"127.0.0.1:{REGISTRY_PORT}", REGISTRY_ROOT / "debian", say)
    if made:
        say(f"base image debian made and pushed in {time.monotonic() - began:.0f} s")
    _have("debian", newest=made)


def unit() -> str:
    """The systemd unit of the course, for the virtual machine.

    One main process: it brings everything up and then becomes JupyterLab. (What ExecStartPre leaves running, systemd
    kills.) KillMode=process spares containers, which live on without a daemon.
    Source  systemd.service(5), systemd.kill(5).
    """
    python = f"{sys.executable} -m minidocker.lab.setup.services"
    return (
        "[Unit]\nDescription=minidocker: registry, daemon and course\nAfter=network.target\n\n"
        f"[Service]\nType=exec\nWorkingDirectory={CHECKOUT}\nEnvironment=HOME=/root\n"
        f"ExecStart={python} course\nExecStopPost={python} down\n"
        "KillMode=process\nTasksMax=infinity\nRestart=on-failure\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )


def install_unit() -> None:
    """Have systemd start the course, now and at each boot; return when JupyterLab answers."""
    (UNIT_DIRECTORY / UNIT).write_text(unit())
    say("starting registry, daemon and JupyterLab as a service")
    for arguments in (["daemon-reload"], ["enable", UNIT], ["restart", UNIT]):
        subprocess.run(["systemctl", *arguments], check=True)
    wait_until(_jupyter_answers, f"JupyterLab did not answer (journalctl -u {UNIT})", START_TIMEOUT_SECONDS)
    address([])


def _jupyter_answers() -> bool:
    try:
        with socket.create_connection(("127.0.0.1", JUPYTER_PORT), timeout=1):
            return True
    except OSError:
        return False


def course(_arguments: list[str]) -> None:
    """The service's main process: everything up, then JupyterLab where a forwarded port can reach it."""
    up([])
    write_jupyter_settings()
    command = jupyter_command("0.0.0.0", _token())
    os.execv(command[0], command)


def _token() -> str:
    """The service's password, made at its first start: JupyterLab gives whoever has it a root shell."""
    if not TOKEN.exists():
        TOKEN.parent.mkdir(parents=True, exist_ok=True)
        TOKEN.touch(mode=0o600)
        TOKEN.write_text(os.urandom(16).hex())
    return TOKEN.read_text()


def address(_arguments: list[str]) -> None:
    """Print where the service's JupyterLab is, as seen from the machine that forwards its port."""
    if not (UNIT_DIRECTORY / UNIT).exists():
        raise MinidockerError("there is no service here; `./lab` opens the course")
    say(f"the course: http://localhost:{JUPYTER_PORT}/lab?token={_token()}")


def down(_arguments: list[str]) -> None:
    """Stop the daemon and the registry; containers, images and data stay."""
    say("stopping minidockerd and the local registry")
    stop_daemon()
    registry.stop(REGISTRY_ROOT)


def clean(_arguments: list[str]) -> None:
    """Remove every container, image, network, file and process that `./lab` made."""
    if (UNIT_DIRECTORY / UNIT).exists():
        subprocess.run(["systemctl", "disable", "--now", UNIT], check=False)
        (UNIT_DIRECTORY / UNIT).unlink()
        subprocess.run(["systemctl", "daemon-reload"], check=False)
    if DATA_ROOT.exists():
        start_daemon()  # also after `stop`: containers live on without it, and it alone can remove them
        client = connect(SOCKET)
        for container in client.containers.list(all=True):
            container.remove(force=True)
        for made in client.networks.list(filters={"type": ["custom"]}):
            made.remove()
        stop_daemon()
        if network := default_network(EXEC_ROOT):
            network.remove()
        Cgroup.open(CGROUP_PARENT).prune()
    registry.stop(REGISTRY_ROOT)
    sandbox.uninstall()
    swap.remove_abandoned()
    for path in (DATA_ROOT, EXEC_ROOT, LOGS, REGISTRY_ROOT, ISOLATED_ROOT):
        shutil.rmtree(path, ignore_errors=True)


def jupyter_command(address: str, token: str, port: int = JUPYTER_PORT) -> list[str]:
    """JupyterLab on the notebooks, without news, update checks or an extension manager that wants the network."""
    return [
        str(BIN / "jupyter"),
        "lab",
        "--no-browser",
        "--allow-root",
        f"--ip={address}",
        f"--port={port}",
        "--ServerApp.port_retries=0",  # the address has been told
        "--log-level=WARN",
        f"--ServerApp.root_dir={CHECKOUT}",
        "--ServerApp.kernel_manager_class=minidocker.lab.setup.kernels.KernelsByPlace",
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


def free_port(first: int = JUPYTER_PORT) -> int:
    """The first port from `first` on that nobody on loopback listens on. Raises MinidockerError: twenty are taken."""
    for port in range(first, first + 20):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise MinidockerError(f"no free port for JupyterLab from {first} to {first + 19}")


def jupyter(arguments: list[str]) -> None:
    """Open JupyterLab in the foreground; Ctrl-C ends it, the daemon stays."""
    write_jupyter_settings()
    port, token = free_port(), os.urandom(16).hex()
    # Jupyter itself shows no token that it was given, so the whole address is told here.
    say("the course, in your browser (Ctrl-C here ends it):")
    print(f"\n    http://127.0.0.1:{port}/lab/tree/{FIRST_LESSON}?token={token}\n", flush=True)
    command = [*jupyter_command("127.0.0.1", token, port), *arguments]
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        command.remove("--no-browser")
    os.execv(command[0], command)


def main() -> int:
    """`python -m minidocker.lab.setup.services VERB [ARGUMENTS]`."""
    verbs = {"up": up, "down": down, "clean": clean, "jupyter": jupyter, "course": course, "address": address}
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
