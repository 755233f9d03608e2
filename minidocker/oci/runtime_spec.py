"""config.json: all that a runtime needs to know to start a container.

Source  OCI runtime-spec 1.2: config.md, config-linux.md.
Rules   - the engine writes it, the runtime reads only it: nothing else says how a container is made.
        - `None` or an empty list means "not set" and is left out of the file.
        - unknown fields are ignored, as the specification requires; other engines write more than we read.
        - annotations under `org.minidocker.` carry what the specification has no field for (those below).
"""

import msgspec

SPEC_VERSION = "1.0.2"

# What the engine tells the runtime beyond the specification; each is a string, as annotations are.
OVERLAY = "org.minidocker.overlay"  # JSON of Overlay: mount these layers as the rootfs
USER = "org.minidocker.user"  # "name", "uid", "name:group", ...: looked up in the rootfs's own /etc/passwd and group
GROUP_ADD = "org.minidocker.group_add"  # JSON list of further groups by name or gid
INIT = "org.minidocker.init"  # path of a static init on the host, run as pid 1 in front of the command
# JSON object, destination of a bind mount -> directory that its source must not lead out of, whatever links are in it
MOUNT_ROOTS = "org.minidocker.mount-roots"


NO_RAW = msgspec.Raw(b"")


class _Spec(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Common shape: immutable, camelCase names, defaults left out."""


class Overlay(_Spec, frozen=True):
    """Layers to mount as the rootfs.

    directory   where the relative `lowerdir` paths start (data-root/layers).
    lowerdir    colon-separated, TOP layer first, as mount(2) takes it.
    """

    directory: str
    lowerdir: str
    upperdir: str
    workdir: str


class ConsoleSize(_Spec, frozen=True):
    """Rows and columns."""

    height: int
    width: int


class User(_Spec, frozen=True):
    """Numeric identity inside the container. `umask` None: left as it is."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: list[int] = []


class Capabilities(_Spec, frozen=True):
    """Five sets, by name ("CAP_CHOWN")."""

    bounding: list[str] = []
    effective: list[str] = []
    inheritable: list[str] = []
    permitted: list[str] = []
    ambient: list[str] = []


class Rlimit(_Spec, frozen=True):
    """One setrlimit(2): type "RLIMIT_NOFILE", hard and soft values."""

    type: str
    hard: int
    soft: int


class Process(_Spec, frozen=True):
    """The command and who it is."""

    cwd: str
    args: list[str] = []
    env: list[str] = []
    terminal: bool = False
    console_size: ConsoleSize | None = None
    user: User = User()
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = []
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor_profile: str = ""
    selinux_label: str = ""


class Root(_Spec, frozen=True):
    """The directory that becomes `/`."""

    path: str
    readonly: bool = False


class Mount(_Spec, frozen=True):
    """One mount, in order. `options` are fstab words; the rest is data for the filesystem."""

    destination: str
    type: str = ""
    source: str = ""
    options: list[str] = []


class Hook(_Spec, frozen=True):
    """A program run at one point of the lifecycle. `timeout` in seconds."""

    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class Hooks(_Spec, frozen=True):
    """Programs of others, by lifecycle point."""

    prestart: list[Hook] = []
    create_runtime: list[Hook] = []
    create_container: list[Hook] = []
    start_container: list[Hook] = []
    poststart: list[Hook] = []
    poststop: list[Hook] = []


class Namespace(_Spec, frozen=True):
    """A namespace to make, or with `path` to join. Types: mount pid network ipc uts user cgroup time."""

    type: str
    path: str = ""


class IdMapping(_Spec, frozen=True, rename={"container_id": "containerID", "host_id": "hostID"}):
    """`size` IDs from `container_id` inside are those from `host_id` outside."""

    container_id: int
    host_id: int
    size: int


class Device(_Spec, frozen=True):
    """A device node to make. `file_mode` permission bits; type c, b, u or p."""

    type: str
    path: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceRule(_Spec, frozen=True):
    """One line of the device allow list. None means any number; `access` of r, w, m."""

    allow: bool
    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class Memory(_Spec, frozen=True):
    """Bytes; -1 means unlimited. `swap` is memory plus swap, as in cgroup v1."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(default=None, name="disableOOMKiller")


class Cpu(_Spec, frozen=True):
    """Shares are relative weights (1024 is one share), quota and period are microseconds."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""


class Pids(_Spec, frozen=True):
    """Most processes and threads at once; 0 or less means unlimited."""

    limit: int


class ThrottleDevice(_Spec, frozen=True):
    """Bytes or operations a second on one block device."""

    major: int
    minor: int
    rate: int


class WeightDevice(_Spec, frozen=True):
    """Relative share on one block device."""

    major: int
    minor: int
    weight: int | None = None


def _iops(name: str) -> list[ThrottleDevice]:
    """A list field whose JSON name is not plain camelCase."""
    field: list[ThrottleDevice] = msgspec.field(default_factory=list, name=name)
    return field


class BlockIO(_Spec, frozen=True):
    """Disk shares and ceilings."""

    weight: int | None = None
    weight_device: list[WeightDevice] = []
    throttle_read_bps_device: list[ThrottleDevice] = []
    throttle_write_bps_device: list[ThrottleDevice] = []
    throttle_read_iops_device: list[ThrottleDevice] = _iops("throttleReadIOPSDevice")
    throttle_write_iops_device: list[ThrottleDevice] = _iops("throttleWriteIOPSDevice")


class Resources(_Spec, frozen=True):
    """Limits of one container."""

    devices: list[DeviceRule] = []
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIO | None = msgspec.field(default=None, name="blockIO")
    unified: dict[str, str] = {}


class Linux(_Spec, frozen=True):
    """The Linux part. `seccomp` stays raw JSON: its bytes are the key under which its
    compiled filter is cached; NO_RAW means no filter.
    """

    namespaces: list[Namespace] = []
    uid_mappings: list[IdMapping] = []
    gid_mappings: list[IdMapping] = []
    devices: list[Device] = []
    cgroups_path: str = ""
    resources: Resources | None = None
    rootfs_propagation: str = ""
    masked_paths: list[str] = []
    readonly_paths: list[str] = []
    sysctl: dict[str, str] = {}
    seccomp: msgspec.Raw = NO_RAW
    mount_label: str = ""


class Spec(_Spec, frozen=True):
    """The whole document."""

    oci_version: str
    root: Root
    process: Process | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: list[Mount] = []
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux = Linux()
