"""What a container can see and do, looked at from inside."""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from boxes import Box, eventually, make_rootfs, mount

from minidocker.linux import capabilities
from minidocker.oci import runtime_spec as oci
from minidocker.runtime.lifecycle import StartError

Make = Callable[..., Box]


def status(box: Box) -> dict[str, str]:
    lines = box.run().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_root_has_the_fourteen_capabilities_and_no_others(box: Make) -> None:
    seen = status(box("cat", "/proc/self/status"))
    expected = f"{capabilities.mask(capabilities.DEFAULT):016x}"
    assert expected == "00000000a80425fb"
    assert (seen["CapBnd"], seen["CapEff"], seen["CapPrm"]) == (expected,) * 3
    assert int(seen["CapInh"], 16) == int(seen["CapAmb"], 16) == 0


def test_another_user_has_no_effective_capability(box: Make) -> None:
    one = box("cat", "/proc/self/status")
    one.config["annotations"]["org.minidocker.user"] = "www-data"
    seen = status(one)
    assert int(seen["CapEff"], 16) == int(seen["CapPrm"], 16) == 0
    assert seen["CapBnd"] == "00000000a80425fb"
    assert seen["Uid"].split() == ["33"] * 4


def test_no_capability_is_left_when_none_is_given(box: Make) -> None:
    seen = status(box("cat", "/proc/self/status", capabilities={}))
    assert [int(seen[name], 16) for name in ("CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb")] == [0] * 5


def test_ambient_capabilities_reach_an_ordinary_user_when_asked(box: Make) -> None:
    sets = {name: ["CAP_NET_RAW"] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    seen = status(box("cat", "/proc/self/status", capabilities=sets, user={"uid": 33, "gid": 33}))
    assert {seen[name] for name in ("CapBnd", "CapEff", "CapInh", "CapAmb")} == {f"{1 << 13:016x}"}


def test_the_filter_is_in_force(box: Make) -> None:
    seen = status(box("cat", "/proc/self/status"))
    assert (seen["Seccomp"], seen["NoNewPrivs"]) == ("2", "0")


def test_the_filter_refuses_what_it_names(box: Make) -> None:
    one = box("sh", "-c", "mkdir /tmp/d; chmod 700 /tmp/d || echo refused")
    one.config["linux"]["seccomp"]["syscalls"] = [
        {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    ]
    assert "refused" in one.run()


def test_a_filter_may_forbid_everything_that_setting_it_up_needed(box: Make) -> None:
    one = box("true")
    one.config["linux"]["seccomp"]["syscalls"] = [
        {"names": ["capset", "seccomp", "setgroups", "unshare", "mount"], "action": "SCMP_ACT_KILL_PROCESS"}
    ]
    one.run()


def test_no_new_privileges_when_asked(box: Make) -> None:
    assert status(box("cat", "/proc/self/status", noNewPrivileges=True))["NoNewPrivs"] == "1"


def test_the_namespaces_are_its_own(box: Make) -> None:
    one = box("sh", "-c", "for kind in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$kind; done")
    inside = one.run().split()
    assert len(inside) == 6
    for kind, link in zip(("mnt", "pid", "net", "ipc", "uts", "cgroup"), inside, strict=True):
        assert link != os.readlink(f"/proc/self/ns/{kind}")


def test_the_mounts_are_exactly_these(box: Make) -> None:
    seen = {}
    for line in box("cat", "/proc/self/mounts").run().splitlines():
        _, point, fstype, options, *_ = line.split()
        seen[point] = (fstype, set(options.split(",")))
    for point, fstype, options in [
        ("/", "overlay", {"rw"}),
        ("/proc", "proc", {"rw", "nosuid", "nodev", "noexec"}),
        ("/dev", "tmpfs", {"rw", "nosuid", "size=65536k", "mode=755"}),
        ("/dev/pts", "devpts", {"rw", "nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"}),
        ("/dev/shm", "tmpfs", {"rw", "nosuid", "nodev", "noexec", "size=65536k"}),
        ("/dev/mqueue", "mqueue", {"rw", "nosuid", "nodev", "noexec"}),
        ("/sys", "sysfs", {"ro", "nosuid", "nodev", "noexec"}),
        ("/sys/fs/cgroup", None, {"ro", "nosuid", "nodev", "noexec"}),
        *((path, "proc", {"ro", "nosuid"}) for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")),
    ]:
        assert point in seen, point
        assert fstype in (None, seen[point][0]), point
        assert options <= seen[point][1], point
    expected_below = ("/proc/", "/sys/", "/dev/")
    assert [point for point in seen if not point.startswith(expected_below)] == ["/", "/proc", "/dev", "/sys"]


def test_masked_files_are_empty_and_masked_directories_too(box: Make) -> None:
    one = box(
        "sh",
        "-c",
        "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware | wc -l",
    )
    assert one.run().split() == ["0", "0"]


def test_the_mode_of_a_mask_cannot_be_changed(box: Make) -> None:
    before = os.stat("/dev/null").st_mode
    one = box("sh", "-c", "chmod 0700 /proc/interrupts || echo refused")
    assert "refused" in one.run()
    assert os.stat("/dev/null").st_mode == before


def test_read_only_paths_refuse_writes(box: Make) -> None:
    one = box(
        "sh",
        "-c",
        "for f in /proc/sys/kernel/domainname /proc/irq/default_smp_affinity /sys/kernel/x; do echo 1 > $f; done; true",
    )
    assert one.run().count("Read-only file system") == 3


def test_only_the_allowed_devices_can_be_opened(box: Make) -> None:
    one = box(
        "sh", "-c", "cat /dev/null && head -c 1 /dev/zero | wc -c; mknod /tmp/mem c 1 1 && cat /tmp/mem || echo refused"
    )
    assert one.run().split("\n")[0] == "1"
    assert "Operation not permitted" in one.logged("stderr")
    assert "refused" in one.logged()


def test_no_descriptor_of_ours_reaches_the_command(box: Make) -> None:
    listed = box("sh", "-c", "exec ls /proc/self/fd").run().split()
    assert listed == ["0", "1", "2", "3"]  # 3 is the directory that ls reads


def test_it_is_pid_1_and_sees_no_other(box: Make) -> None:
    assert box("sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]*$'").run().split()[0] == "1"


def test_it_is_in_its_cgroup_in_every_hierarchy(box: Make) -> None:
    one = box("sleep", "1000").start()
    assert one.created is not None
    lines = Path(f"/proc/{one.created.pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(one.id) for line in lines), lines


def test_it_sees_its_own_group_as_the_root(box: Make) -> None:
    assert {line.split(":", 2)[2] for line in box("cat", "/proc/self/cgroup").run().splitlines()} == {"/"}


def test_a_read_only_root_refuses_writes_but_tmpfs_takes_them(box: Make) -> None:
    one = box("sh", "-c", "touch /x 2>/dev/null || echo ro; touch /dev/shm/x && echo rw")
    one.config["root"]["readonly"] = True
    assert one.run().split()[-2:] == ["ro", "rw"]


def test_a_missing_working_directory_is_made_even_on_a_read_only_root(box: Make) -> None:
    one = box("pwd", cwd="/some/where")
    one.config["root"]["readonly"] = True
    assert one.run() == "/some/where\n"


def test_limits_of_memory_and_pids_stand_in_the_kernel(box: Make) -> None:
    one = box("sleep", "1000")
    one.config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 7}}
    one.start()
    found = one.runtime.statistics(one.id)
    assert (found.memory.limit_bytes, found.pids.limit) == (64 << 20, 7)


def test_an_oom_kill_is_recorded(box: Make) -> None:
    one = box("sh", "-c", "x=$(head -c 200m /dev/zero | tr '\\0' x); echo $x | wc -c")
    one.config["linux"]["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    ended = one.start().wait()
    assert ended.oom_killed


def test_rlimits_are_set_and_an_unreachable_hard_limit_is_only_a_warning(box: Make) -> None:
    one = box("sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c")
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    one.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]
    one.process["rlimits"] += [{"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1}]
    assert one.run().split() == ["77", "88", "0"]
    assert one.created is not None
    assert bool(one.created.warnings) == (
        hard != resource.RLIM_INFINITY and "CAP_SYS_RESOURCE" not in capabilities.available()
    )


def test_a_soft_limit_above_the_hard_one_is_refused(box: Make) -> None:
    with pytest.raises(StartError, match="RLIMIT_NOFILE"):
        box("true", rlimits=[{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 8}]).start()


def test_hostname_and_sysctls_are_set(box: Make) -> None:
    one = box("sh", "-c", "hostname; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax")
    one.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "12345"}
    assert one.run().split() == ["box", "1", "12345"]


def test_a_sysctl_of_the_host_is_refused(box: Make) -> None:
    one = box("true")
    one.config["linux"]["sysctl"] = {"kernel.panic": "1"}
    with pytest.raises(Exception, match="separate kernel namespace"):
        one.create()


def test_loopback_is_up(box: Make) -> None:
    assert "127.0.0.1" in box("ip", "addr").run()


def test_a_bind_mount_is_seen_and_read_only_when_asked(box: Make, tmp_path: Path) -> None:
    source = tmp_path / "shared"
    source.mkdir()
    (source / "file").write_text("hello\n")
    one = box("sh", "-c", "cat /mnt/deep/file; touch /mnt/deep/new || echo refused")
    one.config["mounts"].append(mount("/mnt/deep", "bind", "rbind", "ro", "rprivate", source=str(source)))
    assert one.run().splitlines()[0] == "hello"
    assert "refused" in one.logged() and not (source / "new").exists()


def test_a_directory_is_not_bound_on_a_file(box: Make, tmp_path: Path) -> None:
    one = box("true")
    one.config["mounts"].append(mount("/etc/passwd", "bind", "rbind", source=str(tmp_path)))
    with pytest.raises(StartError, match=r"Not a directory.*vice-versa"):
        one.start()


def test_a_file_can_be_bound_on_a_path_that_does_not_exist(box: Make, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 me\n")
    one = box("cat", "/etc/hosts")
    one.config["mounts"].append(mount("/etc/hosts", "bind", "rbind", source=str(tmp_path / "hosts")))
    assert one.run() == "127.0.0.1 me\n"


def test_a_source_that_must_not_lead_out_of_a_directory_does_not(box: Make, tmp_path: Path) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    (volume / "real").mkdir(parents=True)
    outside.mkdir()
    for directory, text in ((volume / "real", "inside\n"), (outside, "of the host\n")):
        (directory / "file").write_text(text)
    (volume / "inner").symlink_to("real")
    (volume / "outer").symlink_to("../outside")
    for part, seen in (("inner", "inside\n"), ("outer", "")):
        one = box("cat", "/part/file")
        one.config["mounts"].append(mount("/part", "bind", "rbind", source=str(volume / part)))
        one.config.setdefault("annotations", {})[oci.MOUNT_ROOTS] = msgspec.json.encode({"/part": str(volume)}).decode()
        if seen:
            assert one.run() == seen
            continue
        with pytest.raises(StartError, match="the path leaves its root"):
            one.start()


def test_a_tmpfs_starts_with_the_content_of_the_image_when_asked(box: Make) -> None:
    one = box("sh", "-c", "grep -c . /etc/group; stat -f -c %T /etc; ls -ld /bin/sh; ls -l /bin | grep -c busybox$")
    one.config["mounts"] += [mount("/etc", "tmpfs", "tmpcopyup"), mount("/bin", "tmpfs", "tmpcopyup", "exec")]
    words = one.run().split()
    assert words[:2] == ["5", "tmpfs"] and int(words[-1]) > 100


def test_a_mount_through_a_symlink_of_the_image_stays_inside(box: Make, tmp_path: Path) -> None:
    tree, outside, source = make_rootfs(tmp_path / "tree"), tmp_path / "outside", tmp_path / "source"
    outside.mkdir()
    source.mkdir()
    (source / "file").write_text("hello\n")
    (tree / "link").symlink_to(outside)
    one = box("sh", "-c", f"cat {outside}/below/file", tree=tree)
    one.config["mounts"].append(mount("/link/below", "bind", "rbind", source=str(source)))
    assert one.run() == "hello\n"
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_proc_sys_and_dev_that_are_symlinks_are_refused(box: Make, tmp_path: Path, name: str) -> None:
    tree = make_rootfs(tmp_path / "tree")
    (tree / name).symlink_to("/tmp")
    one = box("true", tree=tree)
    with pytest.raises(StartError, match="ordinary directory") as caught:
        one.start()
    assert caught.value.step == f"mount /{name}"
    assert not one.directory.exists()


def test_device_nodes_of_the_image_are_of_no_use(box: Make, tmp_path: Path) -> None:
    tree = make_rootfs(tmp_path / "tree")
    os.mknod(tree / "kmsg", 0o020666, os.makedev(1, 11))
    one = box("sh", "-c", "head -c 1 /kmsg || echo refused", tree=tree)
    assert "refused" in one.run()


@pytest.mark.parametrize("cwd", ["/proc/self/fd/7", "/proc/self/fd/8", "/proc/1/fd/9"])
def test_the_working_directory_cannot_be_a_descriptor_of_the_host(box: Make, cwd: str) -> None:
    one = box("sh", "-c", "echo never", cwd=cwd)
    with pytest.raises(StartError):
        one.start()
    assert not one.log.exists() or one.logged() == ""


def test_a_working_directory_that_is_a_file_is_refused(box: Make) -> None:
    with pytest.raises(StartError, match="not a directory"):
        box("true", cwd="/etc/passwd").start()


def test_the_old_root_is_gone(box: Make) -> None:
    ours = Path(__file__).parent
    one = box("sh", "-c", f"ls -d /proc/1/root{ours} {ours} /../..{ours} 2>/dev/null; cat /proc/self/mountinfo | wc -l")
    assert len(one.run().split()) == 1


def test_an_unreadable_device_filter_request_stops_the_container(box: Make) -> None:
    one = box("true")
    one.config["linux"]["resources"] = {
        "devices": [{"allow": True, "type": "c", "major": 1, "minor": 1, "access": "q"}]
    }
    with pytest.raises(StartError, match="access"):
        one.start()


def test_nothing_is_left_of_a_container(box: Make) -> None:
    one = box("true")
    one.run()
    one.runtime.forget(one.id)
    assert not one.directory.exists()
    for tree in Path("/sys/fs/cgroup").iterdir():
        assert not list(tree.glob(f"**/{one.id}")), tree
    assert one.id not in Path("/proc/self/mountinfo").read_text()


def test_nothing_is_left_of_a_failed_start(box: Make) -> None:
    one = box("no-such-command")
    with pytest.raises(StartError):
        one.start()
    assert not one.directory.exists()
    assert eventually(lambda: not any(list(tree.glob(f"*/{one.id}")) for tree in Path("/sys/fs/cgroup").iterdir()))


def test_pid_1_dies_with_its_monitor(box: Make) -> None:
    one = box("sleep", "1000").start()
    assert one.created is not None
    os.kill(one.created.monitor_pid, 9)
    assert eventually(lambda: not Path(f"/proc/{one.created.pid if one.created else 0}/exe").exists())
    adopted = [found for found in one.runtime.adopt() if found.id == one.id]
    assert [(found.monitor_pidfd, found.exit) for found in adopted] == [(None, None)]
    one.runtime.forget(one.id)


def test_pid_1_of_another_user_dies_with_its_monitor(box: Make) -> None:
    one = box("sleep", "1000", user={"uid": 33, "gid": 33}).start()
    assert one.created is not None
    pid = one.created.pid
    os.kill(one.created.monitor_pid, 9)
    assert eventually(lambda: not Path(f"/proc/{pid}/exe").exists())
    one.runtime.forget(one.id)


def test_pid_1_in_a_user_namespace_is_root_there_and_nobody_outside(box: Make) -> None:
    one = box("sh", "-c", "id -u; cat /proc/self/uid_map; touch /mine; sleep 1000")
    linux = one.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    one.start()  # although none of its directories is that id's, or could be reached by it
    assert one.created is not None
    assert Path(f"/proc/{one.created.pid}").stat().st_uid == 200000
    assert eventually(lambda: one.logged().split()[:4] == ["0", "0", "200000", "65536"])
    assert eventually((one.bundle / "upper/mine").exists)
    assert (one.bundle / "upper/mine").stat().st_uid == 0  # on disk it is root's: the mount shifts ids


def test_the_plan_can_be_printed_without_privilege(tmp_path: Path, rootfs: Path) -> None:
    from boxes import default_config

    from minidocker.oci import runtime_spec
    from minidocker.runtime.plan import plan
    from minidocker.runtime.step import describe

    config = default_config(rootfs, "/x", ["true"]) | {"hostname": "", "linux": {"namespaces": [{"type": "mount"}]}}
    spec = msgspec.convert(config, runtime_spec.Spec)
    names = describe(plan(spec, tmp_path)).splitlines()
    order = [
        "make namespaces",
        "bind root",
        "mount /proc",
        "make devices",
        "pivot_root",
        "await start",
        "become user",
        "exec",
    ]
    positions = [next(number for number, name in enumerate(names) if wanted in name) for wanted in order]
    assert positions == sorted(positions)
