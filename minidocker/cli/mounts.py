"""--volume, --mount and --tmpfs.

Source  docker run's reference, "--mount"; Docker Engine API, "Mount".
Rules   - a --volume with a source is a bind (the daemon tells a volume's name from a path), one without is anonymous.
        - a path that begins with "." is made absolute here: only the client knows its working directory.
"""

import os

from minidocker.cli.create_body import Document
from minidocker.cli.options import Options, UsageError
from minidocker.cli.values import read_bytes


def add_mounts(options: Options, document: Document, host: Document) -> None:
    """Volumes, Binds, Mounts and Tmpfs. Raises UsageError (125)."""
    anonymous: Document = {}
    binds: list[str] = []
    for text in options.items("volume"):
        source, colon, rest = text.partition(":")
        if not colon:
            anonymous[text] = {}
        else:
            binds.append(f"{_absolute(source)}:{rest}")
    if anonymous:
        document["Volumes"] = anonymous
    if binds:
        host["Binds"] = binds
    if options.given("mount"):
        host["Mounts"] = [mount(text) for text in options.items("mount")]
    if options.given("tmpfs"):
        host["Tmpfs"] = {path: words for path, _, words in (text.partition(":") for text in options.items("tmpfs"))}


def _absolute(source: str) -> str:
    if source in (".", "..") or source.startswith(("./", "../")):
        return os.path.abspath(source)
    if source == "~" or source.startswith("~/"):
        return os.path.expanduser(source)
    return source


_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_SWITCHES = ("readonly", "volume-nocopy", "bind-nonrecursive", "bind-create-src", "bind-recursive")


_BIND_SWITCHES = {"bind-nonrecursive": "NonRecursive", "bind-create-src": "CreateMountpoint"}
_RECURSIVE = {"disabled": {"NonRecursive": True}, "writable": {"ReadOnlyNonRecursive": True},
              "readonly": {"ReadOnlyForceRecursive": True}}


def mount(text: str) -> Document:
    """One --mount, such as `type=bind,src=/a,dst=/b,readonly`, as the API's Mount. Raises UsageError (125)."""
    import csv

    fields: dict[str, str] = {}
    labels: Document = {}
    driver_options: Document = {}
    for item in next(csv.reader([text]), []):
        name, equals, value = item.partition("=")
        name = _ALIASES.get(name.lower().strip(), name.lower().strip())
        if name in ("volume-label", "volume-opt"):
            key, _, word = value.partition("=")
            (labels if name == "volume-label" else driver_options)[key] = word
        elif not equals and name not in _SWITCHES:
            raise _wrong(text, f"invalid field '{item}' must be a key=value pair")
        else:
            fields[name] = value if equals else "true"
    return _mount(text, fields, labels, driver_options)


def _wrong(text: str, problem: str) -> UsageError:
    return UsageError(f'invalid argument "{text}" for "--mount" flag: {problem}')


def _mount(text: str, fields: dict[str, str], labels: Document, driver_options: Document) -> Document:
    kind = fields.pop("type", "volume").lower()
    found: Document = {"Type": kind}
    volume: Document = {"Labels": labels} if labels else {}
    bind: Document = {}
    tmpfs: Document = {}
    driver: Document = {"Options": driver_options} if driver_options else {}
    for name, value in fields.items():
        if name == "source":
            found["Source"] = _absolute(value)
        elif name == "target":
            found["Target"] = value
        elif name == "readonly":
            found["ReadOnly"] = _switch(text, name, value)
        elif name == "consistency":
            found["Consistency"] = value.lower()
        elif name in _BIND_SWITCHES:
            bind[_BIND_SWITCHES[name]] = _switch(text, name, value)
        elif name == "bind-propagation":
            bind["Propagation"] = value.lower()
        elif name == "bind-recursive":
            bind.update(_RECURSIVE.get(value, {}))
        elif name == "volume-nocopy":
            volume["NoCopy"] = _switch(text, name, value)
        elif name == "volume-subpath":
            volume["Subpath"] = value
        elif name == "volume-driver":
            driver["Name"] = value
        elif name == "tmpfs-size":
            tmpfs["SizeBytes"] = _size(text, value)
        elif name == "tmpfs-mode":
            tmpfs["Mode"] = int(value, 8)
        else:
            raise _wrong(text, f"unexpected key '{name}' in '{name}={value}'")
    if not found.get("Target"):
        raise _wrong(text, "target is required")
    if driver:
        volume["DriverConfig"] = driver
    return _only_own(text, found, {"volume": volume, "bind": bind, "tmpfs": tmpfs})


def _only_own(text: str, found: Document, sections: dict[str, Document]) -> Document:
    """`found` with the section of its own type; options of another type are an error."""
    keys = {"volume": "VolumeOptions", "bind": "BindOptions", "tmpfs": "TmpfsOptions"}
    for kind, section in sections.items():
        if not section:
            continue
        if found["Type"] != kind:
            raise _wrong(text, f"cannot mix '{kind}-*' options with mount type '{found['Type']}'")
        found[keys[kind]] = section
    return found


def _switch(text: str, name: str, value: str) -> bool:
    if value.lower() in ("1", "t", "true"):
        return True
    if value.lower() in ("0", "f", "false"):
        return False
    raise _wrong(text, f"invalid value for {name}: {value}")


def _size(text: str, value: str) -> int:
    try:
        return read_bytes(value)
    except ValueError:
        raise _wrong(text, f"invalid value for tmpfs-size: {value}") from None
