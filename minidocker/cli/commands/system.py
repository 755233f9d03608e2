"""`version`, `info` and `system df`.

Source  docker's reference of each.
"""

import platform
import time

from minidocker import __version__
from minidocker.cli.listing import FORMAT_OPTION, Field, Item, show
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session
from minidocker.cli.times import seconds
from minidocker.cli.values import binary_size, human_duration, human_size
from minidocker.client.resource import documents, member

_FORMAT = "-f, --format string   Format by a Go template, or 'json'\n"
DISK_OPTIONS = "-v, --verbose   Show each object\n" + FORMAT_OPTION


def formatted(value: dict[str, object], form: str, name: str = "") -> str:
    """`value` by a template. Raises CommandFailure."""
    from minidocker.cli.template import Template, TemplateError

    source = "{{json .}}" if form == "json" else form.replace("\\t", "\t").replace("\\n", "\n")
    try:
        return Template(source, name).render(value) + "\n"
    except TemplateError as error:
        raise CommandFailure(str(error) if name else f"template parsing error: {error}") from None


def _answer(session: Session, path: str) -> dict[str, object]:
    answer = session.transport.request("GET", path).json()
    assert isinstance(answer, dict)
    return answer


def _client_version(server: dict[str, object] | None) -> dict[str, object]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    api = str((server or {}).get("ApiVersion") or "")
    return {"Version": __version__, "ApiVersion": api, "DefaultAPIVersion": api, "GitCommit": "",
            "GoVersion": "", "PythonVersion": platform.python_version(), "Os": "linux", "Arch": machine,
            "BuildTime": "", "Context": "default"}


def version(session: Session, options: Options, operands: list[str]) -> int:
    """`version`: client and daemon; without a daemon the client alone, and status 1."""
    problem = None
    server: dict[str, object] | None = None
    try:
        server = _answer(session, "/version")
    except Exception as error:
        problem = error
    client = _client_version(server)
    if options.text("format"):
        session.out(formatted({"Client": client, "Server": server}, options.text("format"), "version"))
    else:
        session.out(_client_text(client) + (_server_text(server) if server else ""))
    if problem is not None:
        raise problem
    return 0


def _line(name: str, value: object, *, indent: str = " ") -> str:
    return f"{indent + name + ':':<{len(indent) + 18}}{value}\n"


def _client_text(client: dict[str, object]) -> str:
    rows = [("Version", client["Version"]), ("API version", client["ApiVersion"]),
            ("Python version", client["PythonVersion"]), ("OS/Arch", f"{client['Os']}/{client['Arch']}"),
            ("Context", client["Context"])]
    return "Client:\n" + "".join(_line(name, value) for name, value in rows)


def _server_text(server: dict[str, object]) -> str:
    name = member(server, "Platform", "Name")
    text = f"\nServer:{' ' + str(name) if name else ''}\n"
    components = server.get("Components")
    for component in components if isinstance(components, list) else []:
        details = component.get("Details") or {}
        text += f" {component['Name']}:\n" + _line("Version", component.get("Version", ""), indent="  ")
        if component["Name"] == "Engine":
            rows = [("API version", f"{details.get('ApiVersion')} (minimum version {details.get('MinAPIVersion')})"),
                    ("Go version", details.get("GoVersion", "")), ("Git commit", details.get("GitCommit", "")),
                    ("Built", details.get("BuildTime", "")),
                    ("OS/Arch", f"{details.get('Os')}/{details.get('Arch')}"),
                    ("Experimental", details.get("Experimental", "false"))]
        else:
            rows = [("GitCommit", details.get("GitCommit", ""))]
        text += "".join(_line(row, value, indent="  ") for row, value in rows)
    return text


def info(session: Session, options: Options, operands: list[str]) -> int:
    """`info`"""
    client: dict[str, object] = {"Version": __version__, "Context": "default", "Debug": False}
    if options.text("format"):
        answer = {**_answer(session, "/info"), "ClientInfo": client}
        session.out(formatted(answer, options.text("format")))
        return 0
    session.out(f"Client:\n Version:    {__version__}\n Context:    default\n Debug Mode: false\n\nServer:\n")
    answer = _answer(session, "/info")
    session.out(_info_text(answer) + "\n")
    for warning in answer.get("Warnings") or []:  # type: ignore[attr-defined]
        session.error(f"{warning}\n")
    return 0


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else ""


def _info_text(answer: dict[str, object]) -> str:
    lines = [f" Containers: {answer.get('Containers', 0)}"]
    lines += [f"  {state}: {answer.get('Containers' + state, 0)}" for state in ("Running", "Paused", "Stopped")]
    lines += [f" Images: {answer.get('Images', 0)}", f" Server Version: {answer.get('ServerVersion', '')}",
              f" Storage Driver: {answer.get('Driver', '')}"]
    status = answer.get("DriverStatus")
    lines += [f"  {name}: {value}" for name, value in (status if isinstance(status, list) else [])]
    lines += [f" Logging Driver: {answer.get('LoggingDriver', '')}",
              f" Cgroup Driver: {answer.get('CgroupDriver', '')}",
              f" Cgroup Version: {answer.get('CgroupVersion', '')}", " Plugins:"]
    kinds = ["Volume", "Network", "Log"] + ["Authorization"] * bool(member(answer, "Plugins", "Authorization"))
    lines += [f"  {kind}: {_words(member(answer, 'Plugins', kind))}" for kind in kinds]
    lines.append(f" Swarm: {member(answer, 'Swarm', 'LocalNodeState') or 'inactive'}")
    runtimes = answer.get("Runtimes")
    lines.append(f" Runtimes: {' '.join(sorted(runtimes)) if isinstance(runtimes, dict) else ''}")
    lines.append(f" Default Runtime: {answer.get('DefaultRuntime', '')}")
    lines.append(f" Init Binary: {answer.get('InitBinary', '')}")
    lines += [f" {name} version: {member(answer, key, 'ID') or ''}" for name, key in
              (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit"))
              if isinstance(answer.get(key), dict)]
    lines += _security(answer.get("SecurityOptions")) + _machine(answer)
    return "\n".join(lines) + "\n"


def _security(options: object) -> list[str]:
    lines = [" Security Options:"]
    for option in options if isinstance(options, list) else []:
        pairs = dict(pair.partition("=")[::2] for pair in str(option).split(","))
        lines.append(f"  {pairs.pop('name', option)}")
        lines += [f"   {name.title()}: {value}" for name, value in pairs.items()]
    return lines


def _machine(answer: dict[str, object]) -> list[str]:
    total = answer.get("MemTotal")
    lines = [f" Kernel Version: {answer.get('KernelVersion', '')}",
             f" Operating System: {answer.get('OperatingSystem', '')}", f" OSType: {answer.get('OSType', '')}",
             f" Architecture: {answer.get('Architecture', '')}", f" CPUs: {answer.get('NCPU', 0)}",
             f" Total Memory: {binary_size(total if isinstance(total, int) else 0)}",
             f" Name: {answer.get('Name', '')}",
             f" ID: {answer.get('ID', '')}", f" Docker Root Dir: {answer.get('DockerRootDir', '')}",
             f" Debug Mode: {str(bool(answer.get('Debug'))).lower()}",
             f" Experimental: {str(bool(answer.get('ExperimentalBuild'))).lower()}"]
    indexes = member(answer, "RegistryConfig", "IndexConfigs")
    ranges = member(answer, "RegistryConfig", "InsecureRegistryCIDRs")
    insecure = [name for name, index in (indexes.items() if isinstance(indexes, dict) else [])
                if not index.get("Secure")] + (ranges if isinstance(ranges, list) else [])
    if insecure:
        lines += [" Insecure Registries:", *[f"  {name}" for name in insecure]]
    mirrors = member(answer, "RegistryConfig", "Mirrors")
    if isinstance(mirrors, list) and mirrors:
        lines += [" Registry Mirrors:", *[f"  {name}" for name in mirrors]]
    lines.append(f" Live Restore Enabled: {str(bool(answer.get('LiveRestoreEnabled'))).lower()}")
    return lines


def _whole(item: dict[str, object], *path: str) -> int:
    value = member(item, *path)
    return value if isinstance(value, int) else 0


def _summary(answer: dict[str, object]) -> list[Item]:
    images, containers = documents(answer.get("Images")), documents(answer.get("Containers"))
    volumes, cache = documents(answer.get("Volumes")), documents(answer.get("BuildCache"))
    layers = _whole(answer, "LayersSize")
    used = sum(_whole(image, "Size") - max(_whole(image, "SharedSize"), 0) for image in images
               if _whole(image, "Containers") > 0)
    running = [container for container in containers if container.get("State") in ("running", "paused", "restarting")]
    size = sum(_whole(container, "SizeRw") for container in containers)
    idle = size - sum(_whole(container, "SizeRw") for container in running)
    volume_size = sum(max(_whole(volume, "UsageData", "Size"), 0) for volume in volumes)
    linked = [volume for volume in volumes if _whole(volume, "UsageData", "RefCount") > 0]
    unlinked = volume_size - sum(max(_whole(volume, "UsageData", "Size"), 0) for volume in linked)
    cached = sum(_whole(entry, "Size") for entry in cache)
    rows = [("Images", len(images), sum(1 for image in images if _whole(image, "Containers") > 0), layers,
             max(layers - used, 0)),
            ("Containers", len(containers), len(running), size, idle),
            ("Local Volumes", len(volumes), len(linked), volume_size, unlinked),
            ("Build Cache", len(cache), sum(1 for entry in cache if entry.get("InUse")), cached, cached)]
    return [{"Type": kind, "TotalCount": total, "Active": active, "Size": human_size(amount),
             "Reclaimable": _share(free, amount, kind)} for kind, total, active, amount, free in rows]


def _share(free: int, amount: int, kind: str) -> str:
    if not amount or kind == "Build Cache":
        return human_size(free)
    return f"{human_size(free)} ({free * 100 // amount}%)"


def disk(session: Session, options: Options, operands: list[str]) -> int:
    """`system df`"""
    answer = _answer(session, "/system/df")
    if options.flag("verbose"):
        _disk_verbose(session, answer)
        return 0
    fields = {"Type": Field("TYPE", lambda item: str(item["Type"])),
              "TotalCount": Field("TOTAL", lambda item: str(item["TotalCount"])),
              "Active": Field("ACTIVE", lambda item: str(item["Active"])),
              "Size": Field("SIZE", lambda item: str(item["Size"])),
              "Reclaimable": Field("RECLAIMABLE", lambda item: str(item["Reclaimable"]))}
    show(session, fields, list(fields), _summary(answer), options.text("format"))
    return 0


def _disk_verbose(session: Session, answer: dict[str, object]) -> None:
    from minidocker.cli.commands.images import image_fields, lines_of
    from minidocker.cli.commands.ps import fields as container_fields
    from minidocker.cli.commands.volumes import FIELDS

    now = time.time()
    session.out("Images space usage:\n\n")
    images = image_fields(full=False, now=now)
    images["UniqueSize"] = Field("UNIQUE SIZE", lambda item: human_size(
        _whole(item, "Size") - max(_whole(item, "SharedSize"), 0)))
    lines = [line for image in documents(answer.get("Images")) for line in lines_of(image, digests=False)]
    show(session, images, ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize",
                           "Containers"], lines)
    session.out("\nContainers space usage:\n\n")
    show(session, container_fields(full=False, now=now),
         ["ID", "Image", "Command", "LocalVolumes", "OwnSize", "RunningFor", "Status", "Names"],
         documents(answer.get("Containers")))
    session.out("\nLocal Volumes space usage:\n\n")
    show(session, FIELDS, ["Name", "Links", "Size"], documents(answer.get("Volumes")))
    _cache(session, documents(answer.get("BuildCache")))


def _cache(session: Session, entries: list[Item]) -> None:
    session.out(f"\nBuild cache usage: {human_size(sum(_whole(entry, 'Size') for entry in entries))}\n\n")
    fields = {
        "ID": Field("CACHE ID", lambda item: str(item.get("ID"))[:12]),
        "Type": Field("CACHE TYPE", lambda item: str(item.get("Type") or "")),
        "Size": Field("SIZE", lambda item: human_size(_whole(item, "Size"), 3)),
        "Created": Field("CREATED", lambda item: _ago(item, "CreatedAt")),
        "Used": Field("LAST USED", lambda item: _ago(item, "LastUsedAt")),
        "Usage": Field("USAGE", lambda item: str(item.get("UsageCount") or 0)),
        "Shared": Field("SHARED", lambda item: str(bool(item.get("Shared"))).lower()),
    }
    show(session, fields, list(fields), entries)


def _ago(item: Item, name: str) -> str:
    moment = seconds(str(item.get(name) or ""))
    return human_duration(time.time() - moment) + " ago" if moment else ""


VERSION = Command(version, "[OPTIONS]", _FORMAT)
INFO = Command(info, "[OPTIONS]", _FORMAT)
DISK = Command(disk, "[OPTIONS]", DISK_OPTIONS)
