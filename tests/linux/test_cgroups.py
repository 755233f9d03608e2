"""Control groups: the plans (pure), then the kernel's own files and processes, on whatever kind of host this is.

On a hybrid host every kernel test runs three times: as it is, seeing only its version 1 trees, and seeing only its
version 2 tree (which has no controllers there, so limits are skipped).
"""

import errno
import os
import select
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.errors import Conflict, InvalidArgument, KernelError, Unsupported
from minidocker.linux import cgroup_files, cgroup_limits
from minidocker.linux.cgroup_statistics import IoEntry, gather
from minidocker.linux.cgroups import (
    Cgroup,
    Hierarchies,
    IoMax,
    IoWeight,
    Limits,
    _bfq,
    controllers,
    plan,
    swap_limit,
    version,
)

HOST = Hierarchies.detect()
PARENT = f"/minidocker-test-{os.getpid()}"
MIB = 1 << 20

VIEWS = {"host": HOST}
if HOST.version == "hybrid":
    VIEWS["v1"] = Hierarchies(None, frozenset(), HOST.v1)
    VIEWS["v2 tree alone"] = Hierarchies(HOST.unified, HOST.unified_controllers, {})

writable = pytest.mark.skipif(not HOST.trees, reason="no control group tree is writable here")


def kernel(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that makes groups."""
    marked: Callable[..., None] = pytest.mark.needs_root(writable(test))
    return marked



@pytest.fixture(params=VIEWS.values(), ids=list(VIEWS))
def trees(request: pytest.FixtureRequest) -> Iterator[Hierarchies]:
    view: Hierarchies = request.param
    yield view
    assert Cgroup.open(PARENT, HOST).prune(), "the test has left groups behind"


@pytest.fixture
def group(trees: Hierarchies) -> Iterator[Cgroup]:
    with Cgroup.create(f"{PARENT}/one", trees) as made:
        yield made
    assert not made.exists()


def needs(group: Cgroup, controller: str) -> None:
    if group.hierarchies.tree(controller) is None:
        pytest.skip(f"this view of the host has no {controller} controller")


class Inside:
    """A child process that has joined a group before it does `work`; ended and reaped at the end."""

    def __init__(self, group: Cgroup, work: Callable[[], Any] | None = None, *, then_hold: bool = True) -> None:
        joined, child_joined = os.pipe()
        self.output, child_output = os.pipe()
        child_input, self.input = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                group.join()
                os.write(child_joined, b"1")
                if work is not None:
                    work()
                while then_hold and (word := os.read(child_input, 1)):
                    os.write(child_output, word)
                status = 0
            finally:
                os._exit(status)
        for fd in (child_joined, child_output, child_input):
            os.close(fd)
        self.status: int | None = None
        assert os.read(joined, 1) == b"1"
        os.close(joined)

    def wait(self) -> int:
        """Exit code, or minus the signal's number."""
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def answers(self, timeout_ms: int) -> bool:
        poller = select.poll()
        poller.register(self.output, select.POLLIN)
        return bool(poller.poll(timeout_ms)) and os.read(self.output, 1) == b"x"

    def __enter__(self) -> "Inside":
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self.input)
        os.close(self.output)


def membership(pid: int) -> set[str]:
    return {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}


# Plans


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 0), (2, 1), (512, 20), (1024, 39), (262144, 10000), (1, 1), (10**9, 10000)]
)
def test_cpu_shares_become_the_weight_that_runc_gives(shares: int, weight: int) -> None:
    assert cgroup_limits.weight_from_shares(shares) == weight


@pytest.mark.parametrize(("blkio", "weight"), [(10, 1), (500, 4950), (1000, 10000)])
def test_a_block_io_weight_becomes_the_weight_that_runc_gives(blkio: int, weight: int) -> None:
    assert cgroup_limits.io_weight_from_blkio(blkio) == weight


@pytest.mark.parametrize(
    ("limits", "writes"),
    [
        (Limits(), []),
        (Limits(memory_bytes=64 * MIB), ["memory.max=67108864"]),
        (Limits(memory_bytes=8 * MIB, memory_swap_bytes=9 * MIB), ["memory.swap.max=1048576", "memory.max=8388608"]),
        (Limits(memory_bytes=64 * MIB, memory_swap_bytes=64 * MIB), ["memory.swap.max=0", "memory.max=67108864"]),
        (Limits(memory_bytes=64 * MIB, memory_swap_bytes=-1), ["memory.swap.max=max", "memory.max=67108864"]),
        (Limits(memory_bytes=-1), ["memory.max=max"]),
        (Limits(memory_reservation_bytes=MIB), ["memory.low=1048576"]),
        (Limits(cpu_shares=1024), ["cpu.weight=39"]),
        (Limits(cpu_quota_us=50_000), ["cpu.max=50000 100000"]),
        (Limits(cpu_quota_us=50_000, cpu_period_us=20_000), ["cpu.max=50000 20000"]),
        (Limits(cpu_quota_us=-1), ["cpu.max=max 100000"]),
        (Limits(cpu_period_us=20_000), ["cpu.max=max 20000"]),
        (Limits(cpuset_cpus="0-1", cpuset_mems="0"), ["cpuset.mems=0", "cpuset.cpus=0-1"]),
        (Limits(pids=7), ["pids.max=7"]),
        (Limits(pids=0), ["pids.max=max"]),
        (Limits(pids=-1), ["pids.max=max"]),
        (Limits(io_weight=1000), ["io.weight=default 10000"]),
        (Limits(io_weight_devices=(IoWeight(8, 0, 10),)), ["io.weight=8:0 1"]),
        (Limits(io_max=(IoMax(8, 16, read_bps=MIB, write_iops=0),)), ["io.max=8:16 rbps=1048576 wiops=max"]),
        (Limits(unified=(("memory.high", "1M"),)), ["memory.high=1M"]),
        (Limits(oom_kill_disable=False), []),
    ],
)
def test_a_version_2_plan_names_file_and_value(limits: Limits, writes: list[str]) -> None:
    assert [f"{write.file}={write.value}" for write in plan(limits, "v2")] == writes
    assert all(write.file.startswith(write.controller + ".") for write in plan(limits, "v2"))


def test_a_version_1_plan_keeps_the_values_and_goes_to_one_controller_each() -> None:
    limits = Limits(
        memory_bytes=64 * MIB,
        memory_swap_bytes=-1,
        swappiness=0,
        oom_kill_disable=True,
        cpu_shares=512,
        cpu_quota_us=50_000,
        cpu_period_us=20_000,
        cpuset_cpus="0",
        pids=-1,
        io_weight=300,
        io_max=(IoMax(8, 16, read_bps=MIB, write_iops=0),),
    )
    assert [f"{write.controller} {write.file}={write.value}" for write in plan(limits, "v1")] == [
        "memory memory.limit_in_bytes=67108864",
        "memory memory.memsw.limit_in_bytes=-1",
        "memory memory.swappiness=0",
        "memory memory.oom_control=1",
        "cpu cpu.shares=512",
        "cpu cpu.cfs_period_us=20000",
        "cpu cpu.cfs_quota_us=50000",
        "cpuset cpuset.cpus=0",
        "pids pids.max=max",
        "blkio blkio.weight=300",
        "blkio blkio.throttle.read_bps_device=8:16 1048576",
        "blkio blkio.throttle.write_iops_device=8:16 0",
    ]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(memory_bytes=64 * MIB, memory_swap_bytes=32 * MIB),
        Limits(io_weight=5),
        Limits(io_weight_devices=(IoWeight(8, 0, 1001),)),
    ],
)
@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_limits_that_contradict_themselves_are_refused(limits: Limits, kind: str) -> None:
    with pytest.raises(InvalidArgument):
        plan(limits, kind)


def test_version_2_cannot_limit_swap_without_memory() -> None:
    with pytest.raises(InvalidArgument, match="set the memory limit as well"):
        plan(Limits(memory_swap_bytes=64 * MIB), "v2")


@pytest.mark.parametrize(
    ("limits", "kind", "what"),
    [
        (Limits(swappiness=10), "v2", "swappiness"),
        (Limits(oom_kill_disable=True), "v2", "OOM killer"),
        (Limits(cpu_rt_runtime_us=10), "v2", "real-time"),
        (Limits(unified=(("memory.high", "1M"),)), "v1", "memory.high"),
    ],
)
def test_what_a_version_cannot_express_is_refused_by_name(limits: Limits, kind: str, what: str) -> None:
    with pytest.raises(Unsupported, match=what):
        plan(limits, kind)


@pytest.mark.parametrize("file", ["../x.y", "nodot"])
def test_a_unified_entry_must_be_a_file_name(file: str) -> None:
    with pytest.raises(InvalidArgument):
        plan(Limits(unified=((file, "1"),)), "v2")


def test_the_limits_of_some_controllers_can_be_taken_out() -> None:
    limits = Limits(memory_bytes=1, swappiness=1, cpu_shares=5, pids=3, io_weight=10, unified=(("memory.high", "1"),))
    assert cgroup_limits.without(limits, frozenset({"memory", "io"})) == Limits(cpu_shares=5, pids=3)


# Detection


def mounts(tmp_path: Path, *lines: str) -> Path:
    text = "".join(f"none {tmp_path}/{line} 0 0\n" for line in lines)
    for line in lines:
        (tmp_path / line.split()[0]).mkdir(exist_ok=True)
        (tmp_path / line.split()[0] / "cgroup.procs").touch()
    (tmp_path / "mounts").write_text(text)
    return tmp_path / "mounts"


def test_a_version_2_mount_alone_is_version_2(tmp_path: Path) -> None:
    table = mounts(tmp_path, "cg cgroup2 rw,nosuid")
    (tmp_path / "cg/cgroup.controllers").write_text("cpu memory\n")
    found = Hierarchies.detect(table)
    assert (found.version, found.trees, found.tree("memory")) == ("v2", (f"{tmp_path}/cg",), f"{tmp_path}/cg")
    assert found.tree("pids") is None
    assert set(controllers(found)) == {"cpu", "memory"}


def test_version_1_controllers_mounted_together_are_one_tree(tmp_path: Path) -> None:
    found = Hierarchies.detect(mounts(tmp_path, "both cgroup rw,cpu,cpuacct", "sys cgroup rw,xattr,name=systemd"))
    assert found.version == "v1"
    assert found.trees == (f"{tmp_path}/both", f"{tmp_path}/sys")
    assert found.tree("cpu") == found.tree("cpuacct") == f"{tmp_path}/both"
    assert set(controllers(found)) == {"cpu", "cpuacct"}


def test_both_kinds_are_hybrid_and_the_version_2_tree_comes_last(tmp_path: Path) -> None:
    found = Hierarchies.detect(mounts(tmp_path, "u cgroup2 rw", "mem cgroup rw,memory"))
    assert (found.version, found.trees[-1]) == ("hybrid", f"{tmp_path}/u")


def test_what_cannot_be_written_does_not_count(tmp_path: Path) -> None:
    table = mounts(tmp_path, "u cgroup2 rw")
    shutil.rmtree(tmp_path / "u")
    assert Hierarchies.detect(table).version == "none"


def test_a_tree_below_another_mount_does_not_count(tmp_path: Path) -> None:
    table = mounts(tmp_path, "u cgroup2 rw", "mem cgroup rw,memory")
    (tmp_path / "u/cgroup.procs").unlink()  # the directory that is seen there is of something else
    assert Hierarchies.detect(table).version == "v1"


def test_without_any_tree_a_group_is_refused_with_the_reason() -> None:
    with pytest.raises(Unsupported, match="mount cgroup2"):
        Cgroup.create("/x", Hierarchies(None, frozenset(), {}))


def test_a_limit_whose_controller_is_missing_is_refused_by_name() -> None:
    group = Cgroup.open("/x", Hierarchies("/nowhere", frozenset({"cpu"}), {}))
    with pytest.raises(Unsupported, match=r"pids.max: no pids controller"):
        group.apply(Limits(pids=3))


@pytest.mark.parametrize("path", ["", "x", "/", "/x/", "/x/../y", "/./x", "/a b", "/a\nb", "//x"])
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgument):
        Cgroup.open(path, HOST)


@pytest.mark.parametrize(
    ("file", "value", "expected"),
    [
        ("io.weight", "default 10000", ("io.bfq.weight", "default 1000")),
        ("io.weight", "8:0 1", ("io.bfq.weight", "8:0 10")),
        ("io.weight", "default 4950", ("io.bfq.weight", "default 500")),
        ("blkio.weight", "300", ("blkio.bfq.weight", "300")),
    ],
)
def test_a_weight_survives_the_way_to_the_bfq_scheduler(file: str, value: str, expected: tuple[str, str]) -> None:
    assert _bfq(file, value) == expected


def pretend(directory: Path, *names: str) -> None:
    (directory / "g").mkdir(parents=True)
    for name in names:
        (directory / "g" / name).touch()


def test_a_hybrid_host_gets_each_limit_in_the_tree_that_has_its_controller(tmp_path: Path) -> None:
    pretend(tmp_path / "cpu", "cpu.shares")
    pretend(tmp_path / "u", "memory.max", "cpu.weight")
    group = Cgroup.open("/g", Hierarchies(f"{tmp_path}/u", frozenset({"memory"}), {"cpu": f"{tmp_path}/cpu"}))
    group.apply(Limits(memory_bytes=MIB, cpu_shares=512))
    assert (tmp_path / "u/g/memory.max").read_text() == str(MIB)
    assert (tmp_path / "cpu/g/cpu.shares").read_text() == "512"
    assert (tmp_path / "u/g/cpu.weight").read_text() == ""
    with pytest.raises(Unsupported, match=r"pids\.max"):
        group.apply(Limits(pids=3))


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("io.weight", "default 2930"),
        ("io.bfq.weight", "default 300"),
        ("blkio.weight", "300"),
        ("blkio.bfq.weight", "300"),
    ],
)
def test_a_weight_goes_to_the_file_that_this_kernel_has(tmp_path: Path, present: str, expected: str) -> None:
    pretend(tmp_path / "t", present)
    on_v1 = present.startswith("blkio")
    trees = Hierarchies(None, frozenset(), {"blkio": f"{tmp_path}/t"}) if on_v1 else None
    group = Cgroup.open("/g", trees or Hierarchies(f"{tmp_path}/t", frozenset({"io"}), {}))
    group.apply(Limits(io_weight=300))
    assert (tmp_path / "t/g" / present).read_text() == expected


def test_swap_can_be_limited_where_a_group_shows_the_file(tmp_path: Path) -> None:
    pretend(tmp_path / "without", "memory.max")
    pretend(tmp_path / "with", "memory.max", "memory.swap.max")
    assert swap_limit(Hierarchies(f"{tmp_path}/with", frozenset({"memory"}), {}))
    assert not swap_limit(Hierarchies(f"{tmp_path}/without", frozenset({"memory"}), {}))
    assert not swap_limit(Hierarchies(f"{tmp_path}/with", frozenset(), {}))
    assert not swap_limit(Hierarchies(None, frozenset(), {"memory": f"{tmp_path}"}))


# Statistics, from files as kernels write them


def reader(texts: dict[str, str]) -> Callable[[str, str], str]:
    return lambda controller, file: texts.get(file, "")


def test_version_1_statistics_are_read_into_nanoseconds_and_bytes() -> None:
    texts = {
        "cpuacct.usage": "700\n",
        "cpuacct.usage_user": "500\n",
        "cpuacct.usage_sys": "200\n",
        "cpuacct.usage_percpu": "300 400 \n",
        "cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 99\n",
        "memory.usage_in_bytes": "4096\n",
        "memory.max_usage_in_bytes": "8192\n",
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.failcnt": "3\n",
        "memory.stat": "cache 1\ntotal_inactive_file 2\n",
        "pids.current": "2\n",
        "pids.max": "max\n",
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
    }
    found = gather(reader(texts), unified=frozenset(), v1=frozenset({"cpuacct", "memory", "blkio"}))
    cpu = found.cpu
    assert (cpu.total_ns, cpu.user_ns, cpu.kernel_ns, cpu.percpu_ns) == (700, 500, 200, (300, 400))
    assert (cpu.periods, cpu.throttled_periods, cpu.throttled_ns) == (5, 2, 99)
    assert (found.memory.usage_bytes, found.memory.max_usage_bytes, found.memory.failcnt) == (4096, 8192, 3)
    assert (found.memory.limit_bytes, found.memory.stats["total_inactive_file"]) == (None, 2)
    assert (found.pids.current, found.pids.limit) == (2, None)
    assert found.io_service_bytes[:2] == (IoEntry(8, 0, "Read", 10), IoEntry(8, 0, "Write", 20))
    assert len(found.io_service_bytes) == 3


def test_version_2_statistics_are_read_into_the_same_units() -> None:
    texts = {
        "cpu.stat": "usage_usec 7\nuser_usec 5\nsystem_usec 2\nnr_periods 5\nnr_throttled 2\nthrottled_usec 9\n",
        "memory.current": "4096\n",
        "memory.max": "67108864\n",
        "memory.stat": "anon 1\ninactive_file 2\n",
        "pids.current": "2\n",
        "pids.max": "50\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:0 \n",
    }
    found = gather(reader(texts), unified=frozenset({"memory", "cpu", "io", "pids"}), v1=frozenset())
    cpu = found.cpu
    assert (cpu.total_ns, cpu.user_ns, cpu.kernel_ns, cpu.throttled_ns) == (7000, 5000, 2000, 9000)
    assert (found.memory.usage_bytes, found.memory.limit_bytes, found.memory.failcnt) == (4096, 67108864, None)
    assert (found.pids.current, found.pids.limit) == (2, 50)
    assert found.io_service_bytes == (IoEntry(8, 0, "read", 10), IoEntry(8, 0, "write", 20))


# The kernel


@kernel
def test_the_host_is_what_it_is_detected_to_be() -> None:
    kinds = {line.split()[2] for line in Path("/proc/self/mounts").read_text().splitlines()}
    expected = {(True, False): "v2", (True, True): "hybrid", (False, True): "v1"}
    assert version() == expected["cgroup2" in kinds, "cgroup" in kinds]


@kernel
def test_a_group_is_made_in_every_tree_and_a_process_that_joins_is_in_all(group: Cgroup) -> None:
    assert all(os.path.isdir(tree + group.path) for tree in group.hierarchies.trees)
    with Inside(group) as child:
        assert group.pids() == [child.pid]
        for tree in group.hierarchies.trees:
            assert cgroup_files.pids(tree + group.path) == [child.pid]
        if group.hierarchies == HOST:
            assert group.path in membership(child.pid)
            assert len(membership(child.pid)) <= 2, "only trees that we cannot write may hold it elsewhere"


@kernel
def test_the_child_joins_version_1_itself_and_the_parent_the_rest(group: Cgroup) -> None:
    outside = Cgroup.open(group.path, Hierarchies(None, frozenset(), group.hierarchies.v1))
    with Inside(outside) as child:
        group.join(child.pid, trees="v2")
        assert all(cgroup_files.pids(tree + group.path) == [child.pid] for tree in group.hierarchies.trees)


@kernel
def test_all_threads_of_a_process_move_with_it(group: Cgroup) -> None:
    def work() -> None:
        release = threading.Event()
        threading.Thread(target=release.wait, daemon=True).start()
        group.join()
        inside = set()
        for tree in group.hierarchies.trees:
            for file in ("tasks", "cgroup.threads"):
                inside |= set(cgroup_files.read(f"{tree}{group.path}/{file}").split())
        assert inside == set(os.listdir("/proc/self/task"))
        assert len(inside) == 2

    with Inside(Cgroup.open(group.path, Hierarchies(None, frozenset(), {})), work, then_hold=False) as child:
        assert child.wait() == 0


@kernel
def test_joining_with_a_pid_that_is_gone_says_so(group: Cgroup) -> None:
    with pytest.raises(KernelError) as caught:
        group.join(2**22 - 3)
    assert caught.value.errno == errno.ESRCH


V1_FILES = {
    "memory.max": ("memory", "memory.limit_in_bytes"),
    "pids.max": ("pids", "pids.max"),
    "cpu.max": ("cpu", "cpu.cfs_quota_us"),
    "cpu.weight": ("cpu", "cpu.shares"),
    "cpuset.cpus": ("cpuset", "cpuset.cpus"),
}


@kernel
@pytest.mark.parametrize(
    ("limits", "file", "on_v1", "on_v2"),
    [
        (Limits(memory_bytes=48 * MIB), "memory.max", str(48 * MIB), str(48 * MIB)),
        (Limits(pids=17), "pids.max", "17", "17"),
        (Limits(cpu_quota_us=30_000), "cpu.max", "30000", "30000 100000"),
        (Limits(cpu_shares=512), "cpu.weight", "512", "20"),
        (Limits(cpuset_cpus="0"), "cpuset.cpus", "0", "0"),
    ],
)
def test_a_limit_is_in_the_kernel(group: Cgroup, limits: Limits, file: str, on_v1: str, on_v2: str) -> None:
    controller = file.partition(".")[0]
    needs(group, controller)
    group.apply(limits)
    if controller in group.hierarchies.v1:
        assert group.read(*V1_FILES[file]).strip() == on_v1
    else:
        assert group.read(controller, file).strip() == on_v2


@kernel
def test_memory_and_swap_can_be_raised_and_lowered_in_any_order(group: Cgroup) -> None:
    needs(group, "memory")
    if not swap_limit(group.hierarchies):
        pytest.skip("this kernel does not limit swap")
    for memory, both in [(64, 96), (128, 256), (32, 32), (48, 64), (16, -1), (256, 512)]:
        group.apply(Limits(memory_bytes=memory * MIB, memory_swap_bytes=both * MIB if both > 0 else -1))
        assert group.statistics().memory.limit_bytes == memory * MIB
        file = "memory.memsw.limit_in_bytes" if "memory" in group.hierarchies.v1 else "memory.swap.max"
        found = group.read("memory", file).strip()
        expected = both if "memory" in group.hierarchies.v1 else both - memory
        assert found == str(expected * MIB) if both > 0 else not found.isdigit() or int(found) > 1 << 60


def fill(bytes_wanted: int) -> Callable[[], None]:
    def work() -> None:
        Path("/proc/self/oom_score_adj").write_text("1000")
        memory = bytearray()
        while len(memory) < bytes_wanted:
            memory += b"x" * MIB

    return work


@kernel
def test_a_process_beyond_its_memory_is_killed_and_counted(group: Cgroup) -> None:
    needs(group, "memory")
    swap = 32 * MIB if swap_limit(group.hierarchies) else None
    group.apply(Limits(memory_bytes=32 * MIB, memory_swap_bytes=swap))
    assert group.oom_kills() == 0
    with Inside(group, fill(128 * MIB), then_hold=False) as child:
        assert child.wait() == -signal.SIGKILL
    assert group.oom_kills() == 1


@kernel
def test_a_kill_for_memory_in_a_group_below_counts_too(group: Cgroup) -> None:
    needs(group, "memory")
    swap = 32 * MIB if swap_limit(group.hierarchies) else None
    group.apply(Limits(memory_bytes=32 * MIB, memory_swap_bytes=swap))
    with Cgroup.create(f"{group.path}/below", group.hierarchies) as below, Inside(below, fill(128 * MIB)) as child:
        assert child.wait() == -signal.SIGKILL
        assert group.oom_kills() == 1


@kernel
def test_forks_beyond_the_limit_fail(group: Cgroup) -> None:
    needs(group, "pids")
    group.apply(Limits(pids=3))

    def work() -> None:
        children = []
        try:
            for _ in range(9):
                pid = os.fork()
                if pid == 0:
                    signal.pause()
                children.append(pid)
        except OSError as error:
            assert error.errno == errno.EAGAIN
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        assert len(children) == 2

    with Inside(group, work, then_hold=False) as child:
        assert child.wait() == 0
    assert group.statistics().pids.limit == 3


@kernel
def test_a_quota_throttles(group: Cgroup) -> None:
    needs(group, "cpu")
    group.apply(Limits(cpu_quota_us=5_000, cpu_period_us=10_000))

    def work() -> None:
        while not group.statistics().cpu.throttled_ns:  # counted when the throttled time ends
            sum(range(10_000))

    with Inside(group, work, then_hold=False) as child:
        assert child.wait() == 0
    found = group.statistics().cpu
    assert found.throttled_periods > 0
    assert found.total_ns > 0


@kernel
def test_a_block_device_is_throttled_where_there_is_one(group: Cgroup) -> None:
    needs(group, "blkio" if "blkio" in group.hierarchies.v1 else "io")
    disks = [Path(f"/sys/block/{name}/dev").read_text().strip() for name in os.listdir("/sys/block")]
    if not disks:
        pytest.skip("no block device here")
    major, minor = map(int, disks[0].split(":"))
    group.apply(Limits(io_max=(IoMax(major, minor, read_bps=MIB),)))
    if "blkio" in group.hierarchies.v1:
        assert group.read("blkio", "blkio.throttle.read_bps_device").strip() == f"{disks[0]} {MIB}"
    else:
        assert group.read("io", "io.max").startswith(f"{disks[0]} rbps={MIB} ")


@kernel
def test_a_frozen_process_answers_only_when_it_is_let_go(group: Cgroup) -> None:
    with Inside(group) as child:
        group.freeze(True)
        assert group.frozen()
        os.write(child.input, b"x")
        assert not child.answers(timeout_ms=50)
        group.freeze(False)
        assert not group.frozen()
        assert child.answers(timeout_ms=10_000)


@kernel
@pytest.mark.parametrize("hidden", [(), ("cgroup.kill",), ("cgroup.kill", "cgroup.freeze")], ids=str)
def test_kill_ends_everything_also_in_groups_below(
    group: Cgroup, hidden: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if group.hierarchies.unified and hidden:
        real = Cgroup._has
        monkeypatch.setattr(Cgroup, "_has", lambda self, file: file not in hidden and real(self, file))
    with Cgroup.create(f"{group.path}/b", group.hierarchies) as below, Inside(below) as deep, Inside(below) as other:
        assert group.pids() == sorted([deep.pid, other.pid])
        group.kill()
        assert {deep.wait(), other.wait()} == {-signal.SIGKILL}


@kernel
def test_kill_reaches_a_frozen_process(group: Cgroup) -> None:
    with Inside(group) as child:
        group.freeze(True)
        group.kill()
        if not group.hierarchies.unified:
            assert not group.frozen(), "a version 1 freezer must be thawed or the signal never arrives"
        assert child.wait() == -signal.SIGKILL


@kernel
def test_remove_ends_the_processes_and_removes_what_the_container_made_below(trees: Hierarchies) -> None:
    group = Cgroup.create(f"{PARENT}/two", trees)
    nested = [f"{tree}{group.path}/a/b" for tree in trees.trees]
    for directory in nested:
        os.makedirs(directory)
    if "cpuset" in trees.v1:
        Cgroup.create(f"{group.path}/a/c", trees)
    with Inside(group) as child:
        for tree, directory in zip(trees.trees, nested, strict=True):
            if tree != trees.v1.get("cpuset"):  # empty cpus: nobody may join
                cgroup_files.write(f"{directory}/cgroup.procs", str(child.pid))
        group.remove()
        assert child.wait() == -signal.SIGKILL
    assert not group.exists()
    group.remove()  # once more is fine


@kernel
def test_a_group_in_use_is_not_taken_over(group: Cgroup) -> None:
    with Inside(group) as child:
        with pytest.raises(Conflict, match="in use"):
            Cgroup.create(group.path, group.hierarchies)
        assert group.pids() == [child.pid]
        assert all(os.path.isdir(tree + group.path) for tree in group.hierarchies.trees)


@kernel
def test_an_empty_group_left_over_loses_its_old_limits(group: Cgroup) -> None:
    needs(group, "pids")
    group.apply(Limits(pids=5))
    fresh = Cgroup.create(group.path, group.hierarchies)
    assert fresh.statistics().pids.limit is None


@kernel
def test_a_group_is_removed_when_its_block_ends_by_an_error(trees: Hierarchies) -> None:
    with pytest.raises(ZeroDivisionError), Cgroup.create(f"{PARENT}/three", trees) as group:
        raise ZeroDivisionError
    assert not group.exists()


@kernel
def test_a_group_with_children_or_processes_is_not_pruned(group: Cgroup) -> None:
    assert not Cgroup.open(PARENT, group.hierarchies).prune()
    with Inside(group):
        assert not group.prune()
        assert group.exists()


@kernel
def test_a_value_that_the_kernel_refuses_is_an_error_with_file_and_value(group: Cgroup) -> None:
    needs(group, "cpuset")
    with pytest.raises(KernelError) as caught:
        group.apply(Limits(cpuset_cpus="4095"))
    assert caught.value.errno in (errno.EINVAL, errno.ERANGE, errno.EACCES)
    assert "cpuset.cpus" in str(caught.value)
    assert "4095" in str(caught.value)


@kernel
def test_a_file_that_this_kernel_lacks_is_named(group: Cgroup) -> None:
    needs(group, "memory")
    if "memory" in group.hierarchies.v1:
        pytest.skip("files by name are version 2's")
    with pytest.raises(Unsupported, match=r"memory\.nosuchfile"):
        group.apply(Limits(unified=(("memory.nosuchfile", "1"),)))


@kernel
def test_no_group_is_made_below_a_process_that_keeps_controllers_from_it(group: Cgroup) -> None:
    if group.hierarchies.version != "v2" or not {"memory", "pids"} <= group.hierarchies.unified_controllers:
        pytest.skip("only version 2 with controllers forbids processes in a group that hands them down")
    with Inside(group), pytest.raises(KernelError, match="move them into a child") as caught:
        Cgroup.create(f"{group.path}/inner", group.hierarchies)
    assert caught.value.errno == errno.EBUSY
    assert not Cgroup.open(f"{group.path}/inner", group.hierarchies).exists()


@kernel
def test_a_version_1_cpuset_is_filled_from_its_parent(group: Cgroup) -> None:
    if "cpuset" not in group.hierarchies.v1:
        pytest.skip("only version 1 wants cpus and mems set")
    root = group.hierarchies.v1["cpuset"]
    for file in ("cpuset.cpus", "cpuset.mems"):
        assert group.read("cpuset", file) == cgroup_files.read(f"{root}/{file}") != "\n"


@kernel
def test_a_delegated_group_is_the_users_but_its_limits_are_not(group: Cgroup) -> None:
    directory = group.directory()
    if directory is None:
        pytest.skip("only version 2 is delegated")
    group.delegate(1234, 2345)
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in [directory, *directory.iterdir()]}
    theirs = {name for name, owner in owners.items() if owner == (1234, 2345)}
    assert theirs == {directory.name, "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}


@kernel
def test_the_processor_time_used_is_counted_by_mode(group: Cgroup) -> None:
    def work() -> None:
        while group.statistics().cpu.user_ns < 1_000_000:
            sum(range(10_000))

    with Inside(group, work, then_hold=False) as child:
        assert child.wait() == 0
    found = group.statistics().cpu
    assert found.total_ns >= 1_000_000
    if "cpuacct" in group.hierarchies.v1:
        assert len(found.percpu_ns) >= 1
        assert sum(found.percpu_ns) == found.total_ns
