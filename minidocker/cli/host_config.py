"""The less usual options of `run` and `create`: devices, limits, security, logging; mounts and ports by their modules.

Source  docker run's reference; Docker Engine API, "HostConfig".
"""

from minidocker.cli.create_body import Document, split_pairs
from minidocker.cli.options import Options, UsageError
from minidocker.cli.session import CommandFailure
from minidocker.cli.values import read_bytes


def add_more(options: Options, document: Document, host: Document) -> None:
    """Add what the options say to the whole `document` and its HostConfig `host`. Raises CommandFailure (125)."""
    if any(map(options.given, ("mount", "volume", "tmpfs"))):
        from minidocker.cli.mounts import add_mounts

        add_mounts(options, document, host)
    if options.given("publish") or options.given("expose"):
        from minidocker.cli.ports import add_ports

        add_ports(options, document, host)
    from minidocker.cli.endpoints import add_networks

    add_networks(options, document, host)
    if options.given("add-host"):
        host["ExtraHosts"] = [_extra_host(text) for text in options.items("add-host")]
    if options.given("dns-opt") or options.given("dns-option"):
        host["DnsOptions"] = options.items("dns-opt") + options.items("dns-option")
    if options.given("device"):
        host["Devices"] = [_device(text) for text in options.items("device")]
    if options.given("ulimit"):
        host["Ulimits"] = sorted((_ulimit(text) for text in options.items("ulimit")), key=lambda u: str(u["Name"]))
    if options.given("security-opt"):
        _security(options.items("security-opt"), host)
    if options.given("log-driver") or options.given("log-opt"):
        _logging(options, host)
    for name, key in (("storage-opt", "StorageOpt"), ("sysctl", "Sysctls"), ("annotation", "Annotations")):
        if options.given(name):
            host[key] = split_pairs(options.items(name))
    _throttles(options, host)


def _extra_host(text: str) -> str:
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    if not found or not name or not address:
        raise UsageError(f'invalid argument "{text}" for "--add-host" flag: bad format for add-host: "{text}"')
    return f"{name}:{address.strip('[]')}"


def _device(text: str) -> Document:
    parts = text.split(":")
    source, target, access = parts[0], parts[0], "rwm"
    if len(parts) > 3:
        raise CommandFailure(f"bad format for path: {text}", 125)
    if len(parts) == 3:
        target, access = parts[1], parts[2]
    elif len(parts) == 2:
        if parts[1] and set(parts[1]) <= set("rwm"):
            access = parts[1]
        else:
            target = parts[1]
    if not target.startswith("/"):
        raise UsageError(f'invalid argument "{text}" for "--device" flag: {target} is not an absolute path')
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": access}


_ULIMITS = frozenset(("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
                      "rtprio", "rttime", "sigpending", "stack"))


def _ulimit(text: str) -> Document:
    name, _, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    if name not in _ULIMITS:
        raise UsageError(f'invalid argument "{text}" for "--ulimit" flag: invalid ulimit type: {name}')
    try:
        low = int(soft)
        high = int(hard) if colon else low
    except ValueError:
        wrong = hard if soft.lstrip("-").isdigit() else soft
        raise UsageError(f'invalid argument "{text}" for "--ulimit" flag: strconv.ParseInt: parsing "{wrong}": '
                         "invalid syntax") from None
    if high != -1 and (low == -1 or low > high):
        raise UsageError(f'invalid argument "{text}" for "--ulimit" flag: '
                             f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}")
    return {"Name": name, "Soft": low, "Hard": high}


def _security(words: list[str], host: Document) -> None:
    kept = []
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            name, separator, value = word.partition(":")
        if not separator and name != "no-new-privileges":
            raise CommandFailure(f'Invalid --security-opt: "{word}"', 125)
        if name == "systempaths" and value == "unconfined":
            host["MaskedPaths"], host["ReadonlyPaths"] = [], []
            continue
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            word = "seccomp=" + _compact_json(value)
        kept.append(word)
    host["SecurityOpt"] = kept or None


def _compact_json(path: str) -> str:
    from minidocker.client.documents import dumps, loads

    try:
        with open(path, "rb") as file:
            return dumps(loads(file.read()))
    except OSError as error:
        raise CommandFailure(f"opening seccomp profile ({path}) failed: open {path}: "
                             f"{(error.strerror or str(error)).lower()}", 125) from None
    except ValueError:
        raise CommandFailure(f"compacting json for seccomp profile ({path}) failed: not valid JSON", 125) from None


def _logging(options: Options, host: Document) -> None:
    driver = options.text("log-driver")
    given = split_pairs(options.items("log-opt"))
    if driver == "none" and given:
        raise CommandFailure("invalid logging opts for driver none", 125)
    host["LogConfig"] = {"Type": driver, "Config": given}


def _throttles(options: Options, host: Document) -> None:
    keys = {"device-read-bps": "BlkioDeviceReadBps", "device-write-bps": "BlkioDeviceWriteBps",
            "device-read-iops": "BlkioDeviceReadIOps", "device-write-iops": "BlkioDeviceWriteIOps",
            "blkio-weight-device": "BlkioWeightDevice"}
    for name, key in keys.items():
        if not options.given(name):
            continue
        entries = []
        for text in options.items(name):
            path, _, amount = text.rpartition(":")
            try:
                value = read_bytes(amount) if name.endswith("bps") else int(amount)
            except ValueError:
                value = -1
            if not path.startswith("/dev/") or value < 0:
                raise UsageError(f'invalid argument "{text}" for "--{name}" flag: bad format: {text}')
            entries.append({"Path": path, "Weight" if name == "blkio-weight-device" else "Rate": value})
        host[key] = entries
