"""Options of `run` and `create`, and the API document that they become.

Source  docker run's reference; Docker Engine API, "ContainerCreate".
Rules   - hot path: what few people use (mounts, ports, networks, health, devices) lies in modules of its own.
        - what a client can know is refused here, the rest by the daemon, in its words.
"""

from minidocker.cli.options import UsageError
from minidocker.cli.session import CommandFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minidocker.cli.options import Options
    from minidocker.cli.session import Session

Document = dict[str, object]

_CONFIG_TEXT = {"hostname": "Hostname", "domainname": "Domainname", "user": "User", "workdir": "WorkingDir",
                "stop-signal": "StopSignal"}
_HOST_TEXT = {"cidfile": "ContainerIDFile", "cgroup-parent": "CgroupParent", "cpuset-cpus": "CpusetCpus",
              "cpuset-mems": "CpusetMems", "ipc": "IpcMode", "pid": "PidMode", "uts": "UTSMode",
              "userns": "UsernsMode", "cgroupns": "CgroupnsMode", "runtime": "Runtime", "isolation": "Isolation",
              "volume-driver": "VolumeDriver"}
_HOST_NUMBER = {"blkio-weight": "BlkioWeight", "cpu-period": "CpuPeriod", "cpu-quota": "CpuQuota",
                "cpu-rt-period": "CpuRealtimePeriod", "cpu-rt-runtime": "CpuRealtimeRuntime",
                "cpu-shares": "CpuShares", "cpus": "NanoCpus", "memory": "Memory", "kernel-memory": "KernelMemory",
                "memory-reservation": "MemoryReservation", "memory-swap": "MemorySwap",
                "memory-swappiness": "MemorySwappiness", "oom-score-adj": "OomScoreAdj", "pids-limit": "PidsLimit",
                "shm-size": "ShmSize"}
_HOST_FLAG = {"init": "Init", "privileged": "Privileged", "publish-all": "PublishAllPorts",
              "read-only": "ReadonlyRootfs", "rm": "AutoRemove", "oom-kill-disable": "OomKillDisable"}
_HOST_LIST = {"cap-add": "CapAdd", "cap-drop": "CapDrop", "device-cgroup-rule": "DeviceCgroupRules", "dns": "Dns",
              "dns-search": "DnsSearch", "group-add": "GroupAdd", "volumes-from": "VolumesFrom", "link": "Links"}
_MORE = ("mount", "volume", "tmpfs", "publish", "expose", "network", "net", "network-alias", "net-alias", "ip", "ip6",
         "mac-address", "link-local-ip", "add-host", "device", "ulimit", "security-opt", "log-driver", "log-opt",
         "storage-opt", "sysctl", "annotation", "blkio-weight-device", "device-read-bps", "device-read-iops",
         "device-write-bps", "device-write-iops", "link", "dns-opt", "dns-option")
_HEALTH = ("health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period",
           "health-timeout", "no-healthcheck")


def create_body(session: "Session", options: "Options", image: str, command: list[str], *,
                detach: bool) -> Document:
    """The body of POST /containers/create. Raises CommandFailure (125) for what cannot be meant."""
    host: Document = {"NetworkMode": "default", "RestartPolicy": restart_policy(options.text("restart", "no")),
                      "ConsoleSize": [0, 0]}
    config = _config(session, options, image, command, detach=detach)
    for name, key in _CONFIG_TEXT.items():
        if options.given(name):
            config[key] = options.text(name)
    for name, key in _HOST_TEXT.items():
        if options.given(name):
            host[key] = options.text(name)
    for name, key in _HOST_NUMBER.items():
        if options.given(name):
            host[key] = options.number(name)
    for name, key in _HOST_FLAG.items():
        if options.given(name):
            host[key] = options.flag(name)
    for name, key in _HOST_LIST.items():
        if options.given(name):
            host[key] = _capabilities(options.items(name)) if key.startswith("Cap") else options.items(name)
    if host.get("AutoRemove") and options.text("restart", "no") != "no":
        raise CommandFailure("conflicting options: cannot specify both --restart and --rm", 125)
    document: Document = {**config, "HostConfig": host}
    if any(map(options.given, _MORE)):
        from minidocker.cli.host_config import add_more

        add_more(options, document, host)
    if any(map(options.given, _HEALTH)):
        from minidocker.cli.health import healthcheck

        document["Healthcheck"] = healthcheck(options)
    return document


def _config(session: "Session", options: "Options", image: str, command: list[str], *, detach: bool) -> Document:
    attached = [word.lower() for word in options.items("attach")]
    for word in attached:
        if word not in ("stdin", "stdout", "stderr"):
            raise UsageError(f'invalid argument "{word}" for "-a, --attach" flag: '
                                 "valid streams are STDIN, STDOUT and STDERR")
    interactive = options.flag("interactive")
    if not attached and not detach:
        attached = ["stdout", "stderr"] + (["stdin"] if interactive else [])
    stdin = "stdin" in attached
    config: Document = {
        "AttachStdin": stdin, "AttachStdout": "stdout" in attached, "AttachStderr": "stderr" in attached,
        "Tty": options.flag("tty"), "OpenStdin": interactive, "StdinOnce": interactive and stdin,
        "Image": image, "Cmd": command or None, "Env": environment(session, options),
        "Labels": labels(options),
    }
    if options.given("entrypoint"):
        # An empty word takes the image's entrypoint away.
        config["Entrypoint"] = [options.text("entrypoint")]
    if options.given("stop-timeout"):
        config["StopTimeout"] = options.number("stop-timeout")
    return config


def _capabilities(names: list[str]) -> list[str]:
    words = {name.upper() for name in names}
    if "ALL" in words:
        return ["ALL"]
    return sorted({word if word.startswith("CAP_") else f"CAP_{word}" for word in words})


def environment(session: "Session", options: "Options") -> list[str]:
    """--env-file's lines and then --env's; a name without a value takes the value that it has here."""
    lines = []
    for path in options.items("env-file"):
        lines += read_lines(path)
    found = []
    for line in lines + options.items("env"):
        name, equals, _ = line.partition("=")
        if not name:
            raise UsageError(f'invalid argument "{line}" for "-e, --env" flag: invalid environment variable: '
                                 f"{line}")
        if equals:
            found.append(line)
        elif name in session.environment:
            found.append(f"{name}={session.environment[name]}")
    return found


def read_lines(path: str) -> list[str]:
    """The lines of an --env-file or --label-file, without comments and empty ones. Raises CommandFailure."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.rstrip("\n").lstrip() for line in file]
    except OSError as error:
        raise CommandFailure(f"open {path}: {(error.strerror or str(error)).lower()}", 125) from None
    kept = [line for line in lines if line and not line.startswith("#")]
    for line in kept:
        name = line.partition("=")[0]
        if not name or " " in name or "\t" in name:
            raise CommandFailure(f"invalid env file ({path}): variable '{name}' contains whitespaces" if name
                                 else f"invalid env file ({path}): no variable name on line '{line}'", 125)
    return kept


def labels(options: "Options") -> dict[str, str]:
    """--label-file's and --label's, by name."""
    found = {}
    for path in options.items("label-file"):
        found.update(split_pairs(read_lines(path)))
    found.update(split_pairs(options.items("label")))
    return found


def split_pairs(lines: list[str]) -> dict[str, str]:
    """`name=value` lines by name; a line without `=` has the empty value."""
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def restart_policy(text: str) -> Document:
    """`on-failure:3` as the API's document. Raises CommandFailure."""
    name, colon, count = text.partition(":")
    if not name and colon:
        raise CommandFailure("invalid restart policy format: no policy provided before colon", 125)
    if colon and not count.lstrip("-").isdigit():
        raise CommandFailure("invalid restart policy format: maximum retry count must be an integer", 125)
    return {"Name": name, "MaximumRetryCount": int(count) if colon else 0}
