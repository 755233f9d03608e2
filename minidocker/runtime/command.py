"""minidocker-runtime: the runtime behind an OCI command line, for podman, containerd, Docker and people.

Source  runc(8) and its pages; OCI runtime-tools command-line interface.
Rules   - errors go to standard error and, as JSON if asked, to --log, where the caller reads them.
        - exit status: 0, 1 for an error of ours, else the container's own (run, exec).
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from minidocker import __version__
from minidocker.errors import Conflict, InvalidArgument, MinidockerError
from minidocker.linux import cgroups, namespaces
from minidocker.linux.capabilities import NAMES
from minidocker.linux.mounts import OPTIONS
from minidocker.oci import codec, runtime_spec
from minidocker.runtime import relay
from minidocker.runtime.container import apply_resources
from minidocker.runtime.default_spec import default_spec
from minidocker.runtime.jsonlog import timestamp
from minidocker.runtime.standalone import Standalone

DEFAULT_ROOT = Path("/run/minidocker-runtime")
Verb = Callable[[Standalone, argparse.Namespace], int]


def create(runtime: Standalone, options: argparse.Namespace) -> int:
    """create [--bundle DIR] [--pid-file F] [--console-socket S] ID"""
    pid = runtime.create(options.id, options.bundle.absolute(), options.console_socket)
    _write_pid(options.pid_file, pid)
    return 0


def start(runtime: Standalone, options: argparse.Namespace) -> int:
    """start ID"""
    runtime.start(options.id)
    return 0


def run(runtime: Standalone, options: argparse.Namespace) -> int:
    """run [--bundle DIR] [--detach] ID: create, start, and unless detached wait and delete"""
    with relay.Console(options.console_socket, wanted=not options.detach) as console:
        pid = runtime.create(options.id, options.bundle.absolute(), console.path)
        _write_pid(options.pid_file, pid)
        try:
            runtime.start(options.id)
            status = 0 if options.detach else console.wait(pid)
        except MinidockerError:
            runtime.delete(options.id, force=True)
            raise
    if not options.detach and not options.keep:
        runtime.delete(options.id, force=True)
    return status


def exec_(runtime: Standalone, options: argparse.Namespace) -> int:
    """exec [--process F | --cwd --env --user --tty ...] [--detach] [--pid-file F] ID [COMMAND...]"""
    wanted = _process(options)
    user = options.user if options.process is None else None
    with relay.Console(options.console_socket, wanted=wanted.terminal and not options.detach) as console:
        pid = runtime.exec(options.id, wanted, console_socket=console.path, user=user)
        _write_pid(options.pid_file, pid)
        return 0 if options.detach else console.wait(pid)


def _process(options: argparse.Namespace) -> runtime_spec.Process:
    if options.process is not None:
        return codec.decode(options.process.read_bytes(), runtime_spec.Process, str(options.process))
    if not options.args:
        raise InvalidArgument("exec needs a command, or --process FILE")
    own = runtime_spec.Process(cwd=options.cwd or "", args=options.args, terminal=options.tty)
    return msgspec.structs.replace(own, env=options.env or [], no_new_privileges=options.no_new_privs)


def state(runtime: Standalone, options: argparse.Namespace) -> int:
    """state ID"""
    _print(runtime.find(options.id).document())
    return 0


def kill(runtime: Standalone, options: argparse.Namespace) -> int:
    """kill [--all] ID [SIGNAL]"""
    runtime.kill(options.id, signal_number(options.signal), everything=options.all)
    return 0


def delete(runtime: Standalone, options: argparse.Namespace) -> int:
    """delete [--force] ID"""
    runtime.delete(options.id, force=options.force)
    return 0


def list_(runtime: Standalone, options: argparse.Namespace) -> int:
    """list [--format json] [--quiet]"""
    documents = [standing.document() for standing in runtime.all()]
    if options.quiet:
        print("\n".join(document["id"] for document in documents))
    elif options.format == "json":
        _print(documents)
    else:
        print(f"{'ID':<24}{'PID':<10}{'STATUS':<12}{'BUNDLE':<40}CREATED")
        for document in documents:
            row = f"{document['id']:<24}{document['pid']:<10}{document['status']:<12}{document['bundle']:<40}"
            print(row + document["created"])
    return 0


def ps(runtime: Standalone, options: argparse.Namespace) -> int:
    """ps [--format json] ID"""
    pids = runtime.cgroup(runtime.find(options.id).state).pids()
    if options.format == "json":
        print(json.dumps(pids))
        return 0
    print(f"{'PID':<10}CMD")
    for pid in pids:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        print(f"{pid:<10}{command}")
    return 0


def pause(runtime: Standalone, options: argparse.Namespace) -> int:
    """pause ID"""
    standing = runtime.find(options.id)
    if standing.status not in ("created", "running"):
        raise Conflict(f"cannot pause a container that is {standing.status}")
    runtime.cgroup(standing.state).freeze(True)
    return 0


def resume(runtime: Standalone, options: argparse.Namespace) -> int:
    """resume ID"""
    standing = runtime.find(options.id)
    if standing.status != "paused":
        raise Conflict(f"cannot resume a container that is {standing.status}")
    runtime.cgroup(standing.state).freeze(False)
    return 0


def update(runtime: Standalone, options: argparse.Namespace) -> int:
    """update (--resources FILE|- | --memory N --pids-limit N --cpu-shares N ...) ID"""
    if options.resources is not None:
        content = sys.stdin.buffer.read() if options.resources == "-" else Path(options.resources).read_bytes()
        resources = codec.decode(content, runtime_spec.Resources, "resources")
    else:
        memory = runtime_spec.Memory(options.memory, options.memory_reservation, options.memory_swap)
        cpu = runtime_spec.Cpu(options.cpu_share, options.cpu_quota, options.cpu_period, cpus=options.cpuset_cpus or "")
        pids = None if options.pids_limit is None else runtime_spec.Pids(options.pids_limit)
        resources = runtime_spec.Resources(memory=memory, cpu=cpu, pids=pids)
    apply_resources(runtime.cgroup(runtime.find(options.id).state), resources, with_devices=False)
    return 0


def spec(_runtime: Standalone, options: argparse.Namespace) -> int:
    """spec [--bundle DIR]: write a config.json to start from"""
    target = options.bundle / "config.json"
    if target.exists():
        raise InvalidArgument(f"{target} exists: remove it first")
    target.write_bytes(codec.encode_pretty(default_spec()))
    return 0


def features(_runtime: Standalone, _options: argparse.Namespace) -> int:
    """features"""
    _print(
        {
            "ociVersionMin": "1.0.0",
            "ociVersionMax": runtime_spec.SPEC_VERSION,
            "hooks": ["prestart", "createRuntime", "poststart", "poststop"],
            "mountOptions": sorted(OPTIONS),
            "linux": {
                "namespaces": sorted(namespaces.KINDS),
                "capabilities": list(NAMES),
                "cgroup": {"v1": cgroups.version() != "v2", "v2": cgroups.version() != "v1", "systemd": False},
                "seccomp": {"enabled": True},
            },
        }
    )
    return 0


def signal_number(text: str) -> int:
    """A signal by number or name, with or without SIG. Raises InvalidArgument."""
    if text.isdigit():
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise InvalidArgument(f"unknown signal {text!r}") from None


def _print(document: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def _write_pid(path: Path | None, pid: int) -> None:
    if path is not None:
        aside = path.with_name(f".{path.name}")
        aside.write_text(str(pid))
        os.rename(aside, path)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser("minidocker-runtime", description="An OCI container runtime.")
    top.add_argument("--root", type=Path, default=DEFAULT_ROOT)
    top.add_argument("--log", type=Path)
    top.add_argument("--log-format", default="text", choices=("text", "json"))
    top.add_argument("--log-level", help="accepted; only errors are logged")
    top.add_argument("--debug", action="store_true", help="accepted; only errors are logged")
    top.add_argument("--systemd-cgroup", action="store_true")
    top.add_argument("--rootless", help="accepted")
    top.add_argument(
        "-v", "--version", action="version", version=f"minidocker-runtime version {__version__}\nspec: 1.0.2"
    )
    verbs = top.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: Verb, *, identified: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=function.__doc__)
        made.set_defaults(verb=function)
        if identified:
            made.add_argument("id")
        return made

    _add_create(verb("create", create))
    made = _add_create(verb("run", run))
    made.add_argument("-d", "--detach", action="store_true")
    made.add_argument("--keep", action="store_true")
    for name, function in (("start", start), ("state", state), ("pause", pause), ("resume", resume)):
        verb(name, function)
    _add_exec(verb("exec", exec_))
    killed = verb("kill", kill)
    killed.add_argument("signal", nargs="?", default="TERM")
    killed.add_argument("-a", "--all", action="store_true")
    verb("delete", delete).add_argument("-f", "--force", action="store_true")
    listed = verb("list", list_, identified=False)
    listed.add_argument("-q", "--quiet", action="store_true")
    listed.add_argument("-f", "--format", default="table")
    verb("ps", ps).add_argument("-f", "--format", default="table")
    _add_update(verb("update", update))
    verb("spec", spec, identified=False).add_argument("-b", "--bundle", type=Path, default=Path())
    verb("features", features, identified=False)
    return top


def _add_create(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
    made.add_argument("-b", "--bundle", type=Path, default=Path())
    made.add_argument("--pid-file", type=Path)
    made.add_argument("--console-socket", type=Path)
    made.add_argument(
        "--no-pivot", "--no-new-keyring", action="store_true", help="accepted; both are done nevertheless"
    )
    return made


def _add_exec(made: argparse.ArgumentParser) -> None:
    made.add_argument("args", nargs=argparse.REMAINDER)
    made.add_argument("-p", "--process", type=Path)
    made.add_argument("-d", "--detach", action="store_true")
    made.add_argument("-t", "--tty", action="store_true")
    made.add_argument("--pid-file", type=Path)
    made.add_argument("--console-socket", type=Path)
    made.add_argument("--cwd")
    made.add_argument("-e", "--env", action="append")
    made.add_argument("-u", "--user")
    made.add_argument("--no-new-privs", action="store_true")


def _add_update(made: argparse.ArgumentParser) -> None:
    made.add_argument("-r", "--resources")
    for flag in ("memory", "memory-reservation", "memory-swap", "cpu-share", "cpu-quota", "cpu-period", "pids-limit"):
        made.add_argument(f"--{flag}", type=int)
    made.add_argument("--cpuset-cpus")


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    options = parser().parse_args(arguments)
    verb: Verb = options.verb
    try:
        return verb(Standalone(options.root, systemd_cgroup=options.systemd_cgroup), options)
    except (MinidockerError, OSError) as error:
        _report(options, str(error))
        return 1


def _report(options: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr)
    if options.log is None:
        return
    now = timestamp(time.time_ns())
    line = json.dumps({"level": "error", "msg": text, "time": now}) if options.log_format == "json" else f"{now} {text}"
    with open(options.log, "a") as log:
        log.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
