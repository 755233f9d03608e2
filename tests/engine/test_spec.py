"""From a record to config.json."""

from pathlib import Path

import msgspec

from minidocker.engine.containers import defaults, mounts, spec
from minidocker.engine.containers.config_reader import read_create
from minidocker.engine.containers.container import Record
from minidocker.oci import runtime_spec as oci


def record(host: dict[str, object] | None = None, **config: object) -> Record:
    request = read_create({"Image": "x", "Cmd": ["run"], **config, "HostConfig": host or {}})
    path, args = spec.exec_arguments_of(request.config)
    filled = defaults.fill_host(request.host)
    points = mounts.plan(request.config, filled, lambda name: [])
    return Record(
        id="c" * 64, name="n", created="", image="x", image_id="i", config=request.config, host=filled,
        lowerdir="l/A:l/B", path=path, args=args, mounts=points,
    )  # fmt: skip


def build(made: Record, **facts: object) -> oci.Spec:
    return spec.build(made, spec.Facts(Path("/c"), Path("/layers"), "/minidocker/c", **facts))  # type: ignore[arg-type]


def test_default_namespaces_are_all_new() -> None:
    made = build(record())
    assert [(n.type, n.path) for n in made.linux.namespaces] == [(name, "") for name in spec.NAMESPACES]


def test_host_modes_leave_a_namespace_out_and_joins_name_a_path() -> None:
    made = build(
        record({"NetworkMode": "container:o", "PidMode": "host", "UTSMode": "host"}, Hostname=""),
        joined={"network": "/proc/7/ns/net"},
    )
    kinds = {n.type: n.path for n in made.linux.namespaces}
    assert kinds["network"] == "/proc/7/ns/net"
    assert "pid" not in kinds and "uts" not in kinds
    assert made.hostname == ""


def test_the_default_capabilities_are_dockers_mask() -> None:
    caps = build(record()).process.capabilities  # type: ignore[union-attr]
    assert caps is not None
    assert len(caps.bounding) == 14
    assert caps.bounding == caps.permitted == caps.effective
    assert caps.inheritable == caps.ambient == []


def test_privileged_has_everything_and_no_masks() -> None:
    made = build(record({"Privileged": True}))
    assert made.linux.masked_paths == [] and made.linux.readonly_paths == []
    assert made.linux.resources is not None and made.linux.resources.devices == [oci.DeviceRule(True)]
    assert "CAP_SYS_ADMIN" in made.process.capabilities.bounding  # type: ignore[union-attr]
    assert {m.destination: m.options for m in made.mounts}["/sys"][-1] == "rw"


def test_devices_are_denied_first() -> None:
    resources = build(record()).linux.resources
    assert resources is not None
    assert resources.devices[0] == oci.DeviceRule(False)
    assert not any(rule.allow and rule.type == "b" and "r" in rule.access for rule in resources.devices)


def test_limits_are_in_the_kernels_units() -> None:
    host = {"Memory": 64 << 20, "NanoCpus": 1_500_000_000, "PidsLimit": 5, "CpuShares": 7, "CpusetCpus": "0"}
    resources = build(record(host)).linux.resources
    assert resources is not None and resources.memory is not None and resources.cpu is not None
    assert (resources.memory.limit, resources.memory.swap) == (64 << 20, 128 << 20)
    assert (resources.cpu.quota, resources.cpu.period, resources.cpu.shares, resources.cpu.cpus) == (
        150_000,
        100_000,
        7,
        "0",
    )
    assert resources.pids == oci.Pids(5)
    assert build(record({"PidsLimit": -1})).linux.resources.pids is None  # type: ignore[union-attr]


def test_environment_defaults_can_be_replaced_and_removed() -> None:
    assert spec.environment(record(Hostname="h", Tty=True)) == [spec.DEFAULT_PATH, "HOSTNAME=h", "TERM=xterm"]
    found = spec.environment(record(Hostname="h", Env=["PATH=/mine", "HOSTNAME", "X=1"]))
    assert found == ["PATH=/mine", "X=1"]


def test_a_users_mount_replaces_a_default_one() -> None:
    made = build(record({"Binds": ["/s:/dev/shm", "/h:/etc/hosts"], "ReadonlyRootfs": True}))
    by_destination = {m.destination: m.source for m in made.mounts}
    assert by_destination["/dev/shm"] == "/s" and by_destination["/etc/hosts"] == "/h"
    assert len(by_destination) == len(made.mounts)
    assert made.root.readonly


def test_the_overlay_and_the_user_travel_as_annotations() -> None:
    made = build(record({"GroupAdd": ["wheel"], "Init": True}, User="student"), init="/init")
    overlay = msgspec.json.decode(made.annotations[oci.OVERLAY], type=dict[str, str])
    assert overlay == {"directory": "/layers", "lowerdir": "l/A:l/B", "upperdir": "/c/upper", "workdir": "/c/work"}
    assert made.annotations[oci.USER] == "student"
    assert made.annotations[oci.GROUP_ADD] == '["wheel"]'
    assert made.annotations[oci.INIT] == "/init"


def test_a_part_of_a_volume_is_bound_to_the_volume_and_a_writable_mount_keeps_the_hosts_flags() -> None:
    volume = {"Type": "volume", "Source": "vv", "Target": "/x", "VolumeOptions": {"Subpath": "a//b/"}}
    made = record({"Mounts": [volume], "Binds": ["/s:/y", "/s:/z:ro"]})
    for point in made.mounts:
        point.source = "/volumes/vv/_data" if point.type == "volume" else point.source
    by_destination = {mount.destination: mount for mount in build(made).mounts}
    assert by_destination["/x"].source == "/volumes/vv/_data/a/b"
    assert msgspec.json.decode(build(made).annotations[oci.MOUNT_ROOTS]) == {"/x": "/volumes/vv/_data"}
    assert by_destination["/y"].options == ["rbind", "rprivate"]
    assert by_destination["/z"].options == ["rbind", "rro", "rprivate"]


def test_a_network_namespace_of_its_own_lets_any_user_ping_and_bind_low_ports() -> None:
    known = frozenset(spec.NETWORK_SYSCTLS)
    assert build(record(), sysctls=known).linux.sysctl == spec.NETWORK_SYSCTLS
    assert build(record(), sysctls=frozenset()).linux.sysctl == {}
    assert build(record({"NetworkMode": "host"}), sysctls=known).linux.sysctl == {}
    name = "net.ipv4.ip_unprivileged_port_start"
    assert build(record({"Sysctls": {name: "7"}}), sysctls=known).linux.sysctl[name] == "7"
    assert list(build(record({"UsernsMode": "auto"}), sysctls=known).linux.sysctl) == [name]
