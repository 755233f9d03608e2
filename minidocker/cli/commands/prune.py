"""`container prune`, `image prune`, `network prune`, `volume prune`, `system prune`.

Source  docker's reference of each.
Rules   - asks first, unless --force is given.
"""

from minidocker.cli.listing import filters
from minidocker.cli.options import Options
from minidocker.cli.session import Command, CommandFailure, Session
from minidocker.cli.values import human_size

_COMMON = """
    --filter filter   Only those for which this holds
-f, --force           Do not ask
"""
_ALL = "-a, --all             All unused ones, not only dangling or anonymous ones"

_CONTAINERS = "This will remove all stopped containers."
_DANGLING = "This will remove all dangling images."
_UNUSED = "This will remove all images without at least one container associated to them."
_NETWORKS = "This will remove all custom networks not used by at least one container."
_VOLUMES = "This will remove anonymous local volumes not used by at least one container."
_ALL_VOLUMES = "This will remove all local volumes not used by at least one container."


def _confirmed(session: Session, options: Options, warning: str) -> bool:
    if options.flag("force"):
        return True
    session.out(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    try:
        answer = input()
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandFailure("", 1) if not answer else CommandFailure("")
    return True


def _post(session: Session, kind: str, wanted: dict[str, list[str]]) -> dict[str, object]:
    answer = session.transport.request("POST", f"/{kind}/prune", query={"filters": wanted}).json()
    assert isinstance(answer, dict)
    return answer


def _section(answer: dict[str, object], key: str, title: str) -> str:
    found = answer.get(key)
    if not isinstance(found, list) or not found:
        return ""
    lines = []
    for entry in found:
        if isinstance(entry, dict):
            lines += [f"{name.lower()}: {entry[name]}" for name in ("Untagged", "Deleted") if entry.get(name)]
        else:
            lines.append(str(entry))
    return f"{title}:\n" + "".join(line + "\n" for line in lines) + "\n"


def _total(*answers: dict[str, object]) -> str:
    amounts = [answer.get("SpaceReclaimed") for answer in answers]
    return f"Total reclaimed space: {human_size(sum(a for a in amounts if isinstance(a, int)))}\n"


def containers(session: Session, options: Options, operands: list[str]) -> int:
    """`container prune`"""
    _confirmed(session, options, _CONTAINERS)
    answer = _post(session, "containers", filters(options.items("filter")))
    session.out(_section(answer, "ContainersDeleted", "Deleted Containers") + _total(answer))
    return 0


def images(session: Session, options: Options, operands: list[str]) -> int:
    """`image prune`"""
    everything = options.flag("all")
    _confirmed(session, options, _UNUSED if everything else _DANGLING)
    wanted = filters(options.items("filter"))
    wanted["dangling"] = ["false" if everything else "true"]
    answer = _post(session, "images", wanted)
    session.out(_section(answer, "ImagesDeleted", "Deleted Images") + _total(answer))
    return 0


def networks(session: Session, options: Options, operands: list[str]) -> int:
    """`network prune`"""
    _confirmed(session, options, _NETWORKS)
    answer = _post(session, "networks", filters(options.items("filter")))
    session.out(_section(answer, "NetworksDeleted", "Deleted Networks"))
    return 0


def volumes(session: Session, options: Options, operands: list[str]) -> int:
    """`volume prune`"""
    everything = options.flag("all")
    _confirmed(session, options, _ALL_VOLUMES if everything else _VOLUMES)
    wanted = filters(options.items("filter"))
    if everything:
        wanted["all"] = ["true"]
    answer = _post(session, "volumes", wanted)
    session.out(_section(answer, "VolumesDeleted", "Deleted Volumes") + _total(answer))
    return 0


def system(session: Session, options: Options, operands: list[str]) -> int:
    """`system prune`"""
    everything, with_volumes = options.flag("all"), options.flag("volumes")
    parts = ["all stopped containers", "all networks not used by at least one container"]
    parts += ["all anonymous volumes not used by at least one container"] * with_volumes
    parts += ["all images without at least one container associated to them" if everything else "all dangling images"]
    _confirmed(session, options, "This will remove:\n" + "".join(f"  - {part}\n" for part in parts))
    wanted = filters(options.items("filter"))
    answers = [_post(session, "containers", wanted), _post(session, "networks", wanted)]
    if with_volumes:
        answers.append(_post(session, "volumes", wanted))
    answers.append(_post(session, "images", {**wanted, "dangling": ["false" if everything else "true"]}))
    titles = {"ContainersDeleted": "Deleted Containers", "NetworksDeleted": "Deleted Networks",
              "VolumesDeleted": "Deleted Volumes", "ImagesDeleted": "Deleted Images"}
    text = "".join(_section(answer, key, title) for answer in answers for key, title in titles.items())
    session.out(text + _total(*answers))
    return 0


CONTAINER_PRUNE = Command(containers, "[OPTIONS]", _COMMON)
IMAGE_PRUNE = Command(images, "[OPTIONS]", _COMMON + _ALL)
NETWORK_PRUNE = Command(networks, "[OPTIONS]", _COMMON)
VOLUME_PRUNE = Command(volumes, "[OPTIONS]", _COMMON + _ALL)
SYSTEM_PRUNE = Command(system, "[OPTIONS]", _COMMON + _ALL + """
    --volumes         Anonymous volumes too
""")
