"""The hidden cases of exercise 04. Instructors keep this file; it is in no release."""

import random

from minidocker.lab.checks import Bench, expect

# What runs first: a control group of our own, and what the kernel tells of processes and groups.
ROOM = """
import os, signal, time
from minidocker.lab.props.nursery import directories, nursery
ours = nursery()
parents = directories(ours)
trees = list(dict.fromkeys(parents.values()))

def groups_of(pid):
    lines = [line.split(":", 2) for line in open(f"/proc/{pid}/cgroup").read().split()]
    found = {name: path for _, names, path in lines for name in names.split(",")}
    return sorted({found.get(controller, found.get("", "")).rpartition("/")[2] for controller in parents})

def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

def child(*, stubborn=False):
    pid = os.fork()
    if pid == 0:
        if stubborn:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
        while True:
            signal.pause()
    return pid

def move(pid, name, where):
    for tree in where:
        open(f"{tree}/{name}/cgroup.procs", "w").write(str(pid))

def there(name):
    return any(os.path.exists(f"{tree}/{name}") for tree in trees)
"""


def _weight(shares):
    return str(1 + (shares - 2) * 9999 // 262_142)


def the_plan(plan_files):
    """Values that nobody can foresee; both versions; the words for no limit; what is refused."""
    bench = Bench()
    code = """
def tell(version, **wish):
    try:
        return [[str(part) for part in write] if all(isinstance(part, str) for part in write) else repr(write)
                for write in plan_files(version, **wish)]
    except NotImplementedError:
        raise
    except ValueError:
        return "ValueError"
    except Exception as error:
        return type(error).__name__
answers = [tell(version, **wish) for version, wish in asked]
"""
    memory, swap = random.randrange(10, 900) << 20, random.randrange(1, 90) << 20
    shares, pids = random.randrange(3, 262_144), random.randrange(2, 5000)
    hundredths = random.choice([7, 29, 57, 58, 113, 116])  # int() of these times 1000 would cut a microsecond off
    quota = hundredths * 1000
    new = [
        ["memory", "memory.max", str(memory)], ["memory", "memory.swap.max", str(swap)],
        ["cpu", "cpu.max", f"{quota} 100000"], ["cpu", "cpu.weight", _weight(shares)], ["pids", "pids.max", str(pids)],
    ]  # fmt: skip
    old = [
        ["memory", "memory.limit_in_bytes", str(memory)], ["memory", "memory.memsw.limit_in_bytes", str(memory + swap)],
        ["cpu", "cpu.cfs_quota_us", str(quota)], ["cpu", "cpu.shares", str(shares)], ["pids", "pids.max", str(pids)],
    ]  # fmt: skip
    wish = {"memory": memory, "swap": swap, "processors": hundredths / 100, "shares": shares, "pids": pids}
    lifted = {"memory": -1, "swap": -1, "pids": -1}
    cases = [
        ("all limits, version 2", "v2", wish, new),
        ("all limits, version 1", "v1", wish, old),
        ("no limit is `max` in version 2", "v2", lifted, [
            ["memory", "memory.max", "max"], ["memory", "memory.swap.max", "max"], ["pids", "pids.max", "max"]]),
        ("no limit of memory is -1 in version 1", "v1", lifted, [
            ["memory", "memory.limit_in_bytes", "-1"], ["memory", "memory.memsw.limit_in_bytes", "-1"],
            ["pids", "pids.max", "max"]]),
        ("memory without a limit has none together with swap", "v1", {"memory": -1, "swap": swap}, [
            ["memory", "memory.limit_in_bytes", "-1"], ["memory", "memory.memsw.limit_in_bytes", "-1"]]),
        ("swap without a limit, memory with one", "v1", {"memory": memory, "swap": -1}, [
            ["memory", "memory.limit_in_bytes", str(memory)], ["memory", "memory.memsw.limit_in_bytes", "-1"]]),
        ("no swap at all is a limit too (version 2)", "v2", {"memory": memory, "swap": 0}, [
            ["memory", "memory.max", str(memory)], ["memory", "memory.swap.max", "0"]]),
        ("no swap at all is a limit too (version 1)", "v1", {"memory": memory, "swap": 0}, [
            ["memory", "memory.limit_in_bytes", str(memory)], ["memory", "memory.memsw.limit_in_bytes", str(memory)]]),
        ("the smallest weight", "v2", {"shares": 2}, [["cpu", "cpu.weight", "1"]]),
        ("the largest weight", "v2", {"shares": 262_144}, [["cpu", "cpu.weight", "10000"]]),
        ("swap without memory is refused", "v1", {"swap": swap}, "ValueError"),
        ("shares out of range are refused", "v2", {"shares": 262_145}, "ValueError"),
        ("one share is out of range", "v1", {"shares": 1}, "ValueError"),
        ("a version that is none is refused", "v3", {"pids": 5}, "ValueError"),
    ]  # fmt: skip
    try:
        asked = [(version, limits) for _, version, limits, _ in cases]
        found = bench.run(code, definitions=[plan_files], values={"asked": asked}, wanted=("answers",))["answers"]
        for (concept, version, _, right), answer in zip(cases, found, strict=True):
            same = answer == right
            if isinstance(answer, list) and isinstance(right, list):
                same = sorted(map(str, answer)) == sorted(map(str, right))
            expect(same, concept, answer, right, "see the table")
            files = [write[1] for write in answer] if isinstance(answer, list) else []
            both = [file for file in files if "limit_in_bytes" in file]
            expect(version == "v2" or both == sorted(both, key=len), "memory before memory and swap", both, "", "order")
    finally:
        bench.close()


NAMES = """
refused = []
for name in asked:
    try:
        Group(parents, name)
    except ValueError:
        refused.append(name)
Group(parents, "fine-name_1.x")
nothing = sorted(os.listdir(trees[0])) == before
"""

BELOW = """
outsider = child()
with Group(parents, "g") as group:
    where = {}
    members = [child(stubborn=True) for _ in range(6)]
    for pid in members:
        group.add(pid)
    where = [groups_of(pid) for pid in members]
    for tree in trees:
        os.makedirs(f"{tree}/g/inner/deeper")
    move(members[0], "g/inner/deeper", trees[:1])
    move(members[1], "g/inner", trees[-1:])
    listed = group.pids()
left = there("g")
living = [pid for pid in members if alive(pid)]
spared = alive(outsider)
"""

FORKS = """
def breed():
    while True:
        try:
            if os.fork() == 0:
                time.sleep(0.002)
        except OSError:
            time.sleep(0.001)

with Group(parents, "g") as group:
    group.set("pids", "pids.max", "40")
    first = os.fork()
    if first == 0:
        time.sleep(0.05)
        breed()
    group.add(first)
    time.sleep(0.15)
left = there("g")
living = sum(alive(int(pid)) for pid in os.listdir("/proc") if pid.isdecimal() and pid != "1")
"""

ENDINGS = """
for tree in trees:
    os.mkdir(f"{tree}/g")
open(f"{parents['pids']}/g/pids.max", "w").write("3")
with Group(parents, "g") as group:
    fresh = open(f"{parents['pids']}/g/pids.max").read().strip()
    refusal = "nothing"
    try:
        group.set("pids", "pids.max", "nonsense")
    except OSError as error:
        refusal = "OSError"
try:
    with Group(parents, "g") as group:
        member = child()
        group.add(member)
        raise ZeroDivisionError("the block's own")
except Exception as error:
    raised = type(error).__name__
left_after_error, killed = there("g"), not alive(member)
with Group(parents, "g") as group:
    for tree in trees:
        os.rmdir(f"{tree}/g")
gone_is_fine = True
try:
    Group({**parents, "other": "/no/such/place"}, "g").__enter__()
    half = "made"
except OSError:
    half = "left" if there("g") else "nothing"
before_fds = len(os.listdir("/proc/self/fd"))
for _ in range(3):
    with Group(parents, "g") as group:
        group.set("pids", "pids.max", "5"), group.pids()
open_fds = len(os.listdir("/proc/self/fd")) - before_fds
"""


def the_group(group):
    """Names, groups below, processes that resist, endings: directories and processes are looked at."""
    bench = Bench()
    definitions = [group]
    try:
        names = ["a b", "a/b", "", ".", "..", "a\tb", "a\n", " a"]
        prepared = ROOM + "before = sorted(os.listdir(trees[0]))\n"
        seen = bench.run(
            prepared + NAMES, definitions=definitions, values={"asked": names}, wanted=("refused", "nothing")
        )
        expect(seen["refused"] == names, "names that are no names are refused", seen["refused"], names, "ValueError")
        expect(seen["nothing"], "nothing is made before the block", "a directory", "none", "make it in __enter__")
        wanted = ("where", "members", "listed", "left", "living", "spared", "outsider")
        seen = bench.run(ROOM + BELOW, definitions=definitions, wanted=wanted)
        expect(
            all(names == ["g"] for names in seen["where"]), "add moves in every tree", seen["where"], "g", "all trees"
        )
        expect(
            seen["listed"] == sorted(seen["members"]), "pids tells of groups below, in any tree", "some", "all", "walk"
        )
        expect(not seen["living"], "processes that ignore SIGTERM end", seen["living"], "none", "SIGKILL")
        expect(not seen["left"], "groups below are removed too", "left", "gone", "the deepest first")
        expect(seen["spared"], "processes outside are spared", "killed", "alive", "only members")
        seen = bench.run(ROOM + FORKS, definitions=definitions, wanted=("left", "living"))
        expect(
            not seen["left"] and not seen["living"], "processes that fork all the time end", seen, "none", "look again"
        )
        wanted = ("fresh", "refusal", "raised", "left_after_error", "killed", "gone_is_fine", "half", "open_fds")
        seen = bench.run(ROOM + ENDINGS, definitions=definitions, wanted=wanted)
        expect(seen["fresh"] == "max", "a leftover's limits do not stay", seen["fresh"], "max", "remove it first")
        expect(
            seen["refusal"] == "OSError", "what the kernel refuses is told", seen["refusal"], "OSError", "let it pass"
        )
        expect(
            seen["raised"] == "ZeroDivisionError", "the block's own error passes", seen["raised"], "it", "return False"
        )
        expect(
            not seen["left_after_error"] and seen["killed"], "after an error all is gone too", "left", "gone", "exit"
        )
        expect(seen["half"] == "nothing", "all of it or nothing", seen["half"], "nothing", "remove what was made")
        expect(seen["open_fds"] == 0, "no descriptor is left open", seen["open_fds"], 0, "close files")
    finally:
        bench.close()


RUN = """
from minidocker.linux.cgroups import Cgroup, Limits
from minidocker.linux.mounts import mount
mount("tmpfs", "/mnt", "tmpfs")
group = Cgroup.create(ours.path + "/run")
group.apply(Limits(memory_bytes=limit, memory_swap_bytes=limit, pids=20))
places = {controller: f"{place}/run" for controller, place in parents.items()}
fds = len(os.listdir("/proc/self/fd"))
script = "cat /proc/self/cgroup > /mnt/child; (cat /proc/self/cgroup > /mnt/grandchild);"
script += f" echo {token} > /mnt/token; exit {code}"
outcomes = [list(run_in_group(places, ["/bin/sh", "-c", script]))]
outcomes.append(list(run_in_group(places, ["/bin/sh", "-c", "kill -TERM $$"])))
outcomes.append(list(run_in_group(places, ["/no/such/program"])))
kills = [group.oom_kills()]
for _ in range(2):
    outcomes.append(list(run_in_group(places, ["/usr/bin/tail", "/dev/zero"])))
    kills.append(group.oom_kills())
outcomes.append(list(run_in_group(places, ["/bin/sh", "-c", "/usr/bin/tail /dev/zero; exit 9"])))
kills.append(group.oom_kills())

def names(file):
    lines = [line.split(":", 2) for line in open(file).read().split()]
    found = {name: path for _, controllers, path in lines for name in controllers.split(",")}
    return sorted({found.get(controller, found.get("", "")).rpartition("/")[2] for controller in parents})

inside, below = names("/mnt/child"), names("/mnt/grandchild")
mark = open("/mnt/token").read().strip()
stayed = groups_of("self")
children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
fds = len(os.listdir("/proc/self/fd")) - fds
"""


def the_run(run_in_group):
    """The command's own marks, the kernel's counts of kills, and where everybody is."""
    bench = Bench()
    try:
        token, code = f"t{random.getrandbits(40):x}", random.randrange(10, 99)
        values = {"token": token, "code": code, "limit": random.randrange(16, 40) << 20}
        wanted = ("outcomes", "kills", "inside", "below", "mark", "stayed", "children", "fds")
        seen = bench.run(ROOM + RUN, definitions=[run_in_group], values=values, wanted=wanted)
        status, ended, missing, first, second, survived = seen["outcomes"]
        expect(
            seen["mark"] == token and status == [code, 0],
            "the command runs, and its status comes back",
            status,
            code,
            "exec",
        )
        expect(
            seen["inside"] == ["run"] and seen["below"] == ["run"],
            "all that it forks is inside",
            seen["below"],
            "run",
            "join",
        )
        expect(
            "run" not in seen["stayed"], "the caller stays outside", seen["stayed"], "outside", "only the child joins"
        )
        expect(ended == [143, 0], "a signal is told as 128 + its number", ended, [143, 0], "waitstatus_to_exitcode")
        expect(missing == [127, 0], "a program that is not there", missing, [127, 0], "exit 127 after exec")
        expect(
            seen["kills"] == [0, 1, 2, 3],
            "the kernel kills what wants too much",
            seen["kills"],
            "0 1 2 3",
            "the group's limit",
        )
        expect(first == [137, 1] and second == [137, 1], "kills of this run only", second, [137, 1], "the difference")
        expect(survived == [9, 1], "a shell survives the death of its child", survived, [9, 1], "count, do not guess")
        expect(not seen["children"], "no zombie is left", seen["children"], "none", "waitpid")
        expect(seen["fds"] == 0, "no descriptor is left open", seen["fds"], 0, "close files")
    finally:
        bench.close()


CASES = {"ex04-plan": the_plan, "ex04-group": the_group, "ex04-run": the_run}
