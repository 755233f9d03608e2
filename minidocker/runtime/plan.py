"""From config.json to the steps of pid 1. Pure: nothing here touches the kernel, so a notebook can print a plan.

Source  OCI runtime-spec: config.md, config-linux.md.
Rules   - what config.json asks for is in the plan or refused here with the reason; nothing is dropped.
        - the mount namespace is always new: without one, pivot_root would move the host.
"""

import os
from pathlib import Path

from minidocker.errors import InvalidArgument, Unsupported
from minidocker.linux.mounts import MountFlag, parse_options
from minidocker.linux.namespaces import KINDS
from minidocker.oci import codec, runtime_spec
from minidocker.runtime import binds, controls, dev, identity, init, masks, program, rootfs
from minidocker.runtime.step import Step

INIT_PATH = "/sbin/docker-init"
_BEFORE_FORK = ("pid", "time", "user")  # made by the parent: pid and time act on children only, user must come first
_DEFAULT_DEVICES = tuple(
    runtime_spec.Device("c", f"/dev/{name}", major, minor, 0o666)
    for name, major, minor in [
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)
    ]
)  # fmt: skip
# Sysctls that a namespace has a copy of; all others are the host's.
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"]
)


def plan(
    spec: runtime_spec.Spec, bundle: Path, *, await_start: Step | None = None, die_with_monitor: bool = True
) -> tuple[Step, ...]:
    """All steps of pid 1, in order.

    bundle            where config.json is: relative paths in it start here.
    await_start       another way to wait for the start than by the channel.
    die_with_monitor  False: whoever calls us is the monitor, and its end is not ours.
    Raises  InvalidArgument: config.json contradicts itself. Unsupported: it asks for what minidocker has not.
    """
    check(spec)
    return (
        *_namespace_steps(spec),
        *_rootfs_steps(spec, bundle),
        await_start or init.AwaitStart(),
        *_process_steps(spec, die_with_monitor=die_with_monitor),
    )


def new_namespaces(spec: runtime_spec.Spec) -> tuple[str, ...]:
    """The kinds of namespace that are made, not joined."""
    return tuple(namespace.type for namespace in spec.linux.namespaces if not namespace.path)


def process_of(spec: runtime_spec.Spec) -> runtime_spec.Process:
    """`process`, which a container that is to be started must have."""
    if spec.process is None:
        raise InvalidArgument("config.json has no process to start")
    return spec.process


def check(spec: runtime_spec.Spec) -> None:
    """Raises  InvalidArgument, Unsupported: as `plan`."""
    process = process_of(spec)
    kinds = [namespace.type for namespace in spec.linux.namespaces]
    for kind in kinds:
        if kind not in KINDS:
            raise InvalidArgument(f"unknown kind of namespace {kind!r} in config.json")
    if len(set(kinds)) != len(kinds):
        raise InvalidArgument("config.json lists a kind of namespace twice")
    if "mount" not in new_namespaces(spec):
        raise InvalidArgument("config.json must list a new mount namespace")
    if not process.cwd.startswith("/"):
        raise InvalidArgument(f"the working directory {process.cwd!r} is not an absolute path")
    if spec.hooks is not None and (spec.hooks.create_container or spec.hooks.start_container):
        raise Unsupported("hooks that run inside the container (createContainer, startContainer) are not supported")
    for mount in spec.mounts:
        if not mount.destination.startswith("/"):
            raise InvalidArgument(f"the mount destination {mount.destination!r} is not an absolute path")
    if (spec.hostname or spec.domainname) and "uts" not in kinds:
        raise InvalidArgument("a hostname needs a uts namespace")
    for key in spec.linux.sysctl:
        check_sysctl(key, kinds)


def check_sysctl(key: str, kinds: list[str]) -> None:
    """Raises  InvalidArgument: the sysctl is the host's, not one of a namespace that the container has."""
    dotted = init.sysctl_path(key).replace("/", ".")
    needed = {"net": "network", "fs": "ipc"}.get(dotted.split(".")[0], "ipc")
    namespaced = dotted.startswith(("net.", "fs.mqueue.")) or dotted in _IPC_SYSCTLS
    if dotted == "kernel.domainname":
        namespaced, needed = True, "uts"
    if not namespaced or ".." in dotted:
        raise InvalidArgument(f"sysctl {key} is not in a separate kernel namespace")
    if needed not in kinds:
        raise InvalidArgument(f"sysctl {key} is not allowed without a {needed} namespace of the container's own")


def _namespace_steps(spec: runtime_spec.Spec) -> list[Step]:
    steps: list[Step] = []
    made = new_namespaces(spec)
    if spec.linux.cgroups_path and "user" not in made:
        steps.append(init.JoinCgroup(spec.linux.cgroups_path))
    for namespace in spec.linux.namespaces:
        if namespace.path and namespace.type not in ("pid", "time"):
            steps.append(init.JoinNamespace(namespace.type, namespace.path))
    steps.append(init.MakeNamespaces(tuple(kind for kind in made if kind not in _BEFORE_FORK)))
    steps.append(init.Report("namespaces"))
    return steps


def _rootfs_steps(spec: runtime_spec.Spec, bundle: Path) -> list[Step]:
    in_user_namespace = "user" in new_namespaces(spec)
    propagation = spec.linux.rootfs_propagation
    flags = parse_options([propagation]).propagation if propagation else ()
    flag = flags[0] & ~MountFlag.REC if flags else MountFlag.PRIVATE
    mount_steps = [_mount_step(mount, spec, bundle) for mount in spec.mounts]
    shared = tuple(s for s in mount_steps if isinstance(s, binds.BindMount) and s.propagation == MountFlag.SHARED)
    steps: list[Step] = [binds.TakeShared(shared)] if shared and not in_user_namespace else []
    # A shared root would show our mounts to the host, and pivot_root refuses it: a slave still learns of the host's.
    steps.append(rootfs.PrivateMounts(int(MountFlag.SLAVE if flag == MountFlag.SHARED else flag)))
    steps.append(_root_step(spec, bundle, in_user_namespace=in_user_namespace))
    steps += mount_steps
    if runtime_spec.INIT in spec.annotations:
        source = runtime_spec.Mount(INIT_PATH, "bind", spec.annotations[runtime_spec.INIT], ["bind", "ro"])
        steps.append(binds.bind_step(source, bundle))
    steps += _dev_steps(spec, in_user_namespace=in_user_namespace)
    steps.append(rootfs.WorkingDirectory(process_of(spec).cwd))
    if spec.linux.readonly_paths:
        steps.append(masks.ReadonlyPaths(tuple(spec.linux.readonly_paths)))
    if spec.linux.masked_paths:
        steps.append(masks.MaskPaths(tuple(spec.linux.masked_paths)))
    if spec.root.readonly:
        steps.append(rootfs.ReadonlyRoot())
    steps.append(rootfs.PivotRoot())
    return steps


def _root_step(spec: runtime_spec.Spec, bundle: Path, *, in_user_namespace: bool) -> Step:
    target = os.path.join(bundle, spec.root.path)
    if runtime_spec.OVERLAY not in spec.annotations:
        return rootfs.BindRoot(target)
    overlay = codec.decode(spec.annotations[runtime_spec.OVERLAY], runtime_spec.Overlay, "overlay annotation")
    return rootfs.MountOverlay(target, overlay, in_user_namespace)


def _mount_step(mount: runtime_spec.Mount, spec: runtime_spec.Spec, bundle: Path) -> Step:
    if mount.type in ("cgroup", "cgroup2"):
        has_namespace = any(namespace.type == "cgroup" for namespace in spec.linux.namespaces)
        return controls.cgroup_step(mount, namespace=has_namespace)
    if mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options:
        return binds.bind_step(mount, bundle, _mount_roots(spec).get(mount.destination, ""))
    return rootfs.filesystem_step(mount)


def _mount_roots(spec: runtime_spec.Spec) -> dict[str, str]:
    text = spec.annotations.get(runtime_spec.MOUNT_ROOTS)
    return codec.decode(text, dict[str, str], "mount roots annotation") if text else {}


def _dev_steps(spec: runtime_spec.Spec, *, in_user_namespace: bool) -> list[Step]:
    process, steps = process_of(spec), list[Step]()
    dev_mounts = [mount for mount in spec.mounts if mount.destination.rstrip("/") == "/dev"]
    fresh = not any(mount.type == "bind" or {"bind", "rbind"} & set(mount.options) for mount in dev_mounts)
    if fresh:
        given = tuple(spec.linux.devices)
        default = tuple(device for device in _DEFAULT_DEVICES if device.path not in {entry.path for entry in given})
        steps += [dev.MakeDevices((*default, *given), bind=in_user_namespace), dev.LinkDevices()]
    if process.terminal:
        size = process.console_size or runtime_spec.ConsoleSize(0, 0)
        steps.append(dev.MakeConsole(size.height, size.width, device=fresh))
    return steps


def _process_steps(spec: runtime_spec.Spec, *, die_with_monitor: bool) -> list[Step]:
    process, made = process_of(spec), new_namespaces(spec)
    steps: list[Step] = []
    if "network" in made:
        steps.append(init.ConfigureNetwork())
    if spec.hostname or spec.domainname:
        steps.append(init.SetHostname(spec.hostname, spec.domainname))
    steps += [init.SetSysctl(key, value) for key, value in spec.linux.sysctl.items()]
    args = list(process.args)
    if runtime_spec.INIT in spec.annotations:
        args = [INIT_PATH, "--", *args]
    return steps + command_steps(process, args, spec.annotations, die_with_monitor=die_with_monitor)


def command_steps(
    process: runtime_spec.Process, args: list[str], annotations: dict[str, str], *, die_with_monitor: bool = True
) -> list[Step]:
    """The last steps, the same for pid 1 and for exec: from limits to execve."""
    umask = 0o022 if process.user.umask is None else process.user.umask
    capabilities = process.capabilities or runtime_spec.Capabilities()
    steps: list[Step] = [
        init.SetLimits(tuple(process.rlimits), process.oom_score_adj),
        identity.SessionKeyring(),
        init.TakeStdio(process.cwd, process.terminal, umask),
        identity.user_step(process, annotations),
        init.OwnStdio(),
        identity.BecomeUser(capabilities, process.no_new_privileges, die_with_monitor),
        program.Execute(tuple(args)),
    ]
    if process.apparmor_profile not in ("", "unconfined"):
        steps.insert(1, init.SecurityLabel("attr/apparmor/exec", f"exec {process.apparmor_profile}"))
    if process.selinux_label:
        steps.insert(1, init.SecurityLabel("attr/exec", process.selinux_label))
    return steps
