"""The hidden cases of exercise 12. Instructors keep this file; it is in no release."""

import json
import platform
import random
import struct
from pathlib import Path

from minidocker.lab.checks import Bench, expect
from minidocker.linux import seccomp

MACHINE = platform.machine()
NUMBERS = json.loads(Path(seccomp.__file__).with_name("syscall_numbers.json").read_bytes())[MACHINE]
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000

# What runs first: a child that tells what it found, and what the kernel says of a process.
ROOM = """
import os, signal, subprocess
from minidocker.linux import capabilities, process, seccomp
from minidocker.linux.mounts import mount
from minidocker.linux.namespaces import CloneFlag, unshare
mount("tmpfs", "/mnt", "tmpfs")


def status(pid="self"):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


def in_child(work):
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(write, repr(work()).encode())
        except NotImplementedError:
            os.write(write, b"'NotImplementedError'")
        except BaseException as error:
            os.write(write, repr(f"{type(error).__name__}: {error}").encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    _, ended = os.waitpid(pid, 0)
    return eval(answer) if answer else f"killed by {ended & 127}"
"""

CONFINE = """
def work(keep, uid, gid):
    os.setgroups([4, 20, 27])
    everything = capabilities.available()
    given = [name for name in ("CAP_KILL", "CAP_NET_RAW", "CAP_MKNOD") if name in everything]
    capabilities.set_sets(everything, everything, given)
    capabilities.raise_ambient(given)
    fds = len(os.listdir("/proc/self/fd"))
    confine(keep, uid, gid)
    left = len(os.listdir("/proc/self/fd")) - fds
    again = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout.splitlines()
    started = {key: value.split() for key, _, value in (line.partition(":") for line in again)}
    return status(), started, left


seen = [in_child(lambda: work(set(keep), uid, gid)) for keep, uid, gid in asked]
"""

AVAILABLE = """
from minidocker.linux import capabilities
effective = capabilities.read()["CapEff"]
available = [number for number in range(41) if effective >> number & 1]
"""


def the_confinement(confine):
    """All five sets, ids and groups, of the process and of a program that it starts, from a state full of power."""
    bench = Bench()
    uid, gid = random.randrange(1000, 30_000), random.randrange(1000, 30_000)
    try:
        here = bench.run(AVAILABLE, wanted=("available",))["available"]  # some machines lack one or another
        some = sorted(random.sample(sorted({*here} - {6, 7, 8}), 6))
        upper = [number for number in here if number > 31]
        asked = [(some, 0, 0), ([], 0, gid), (some, uid, gid), ([8, 0, 60], 0, 0), (upper, 0, 0)]
        found = bench.run(ROOM + CONFINE, definitions=[confine], values={"asked": asked}, wanted=("seen",))
        for (keep, user, group), answer in zip(asked, found["seen"], strict=True):
            expect(isinstance(answer, tuple), "it ends without an error", answer, "no error", "look at the order")
            mask = sum(1 << number for number in keep if number < 60)
            _confined(answer, mask, user, group)
    finally:
        bench.close()


def _confined(answer, mask, user, group):
    now, started, left = answer
    bounding = f"{mask:016x}"
    effective = bounding if user == 0 else "0" * 16
    for which, who in ((now, "the process"), (started, "a program that it starts")):
        for name, right in (
            ("CapBnd", bounding), ("CapPrm", effective), ("CapEff", effective), ("CapInh", "0" * 16),
            ("CapAmb", "0" * 16),
        ):  # fmt: skip
            expect(which[name] == [right], f"{name} of {who}", which[name], right, "see the table")
        expect(which["Uid"][:3] == [str(user)] * 3, f"the user of {who}", which["Uid"], user, "os.setresuid")
        expect(which["Gid"][:3] == [str(group)] * 3, f"the group of {who}", which["Gid"], group, "os.setresgid")
        expect(which["Groups"] == [], f"no other groups of {who}", which["Groups"], "none", "os.setgroups")
        expect(which["NoNewPrivs"] == ["1"], "no new privileges", which["NoNewPrivs"], "1", "prctl")
    expect(left == 0, "no descriptor is left open", left, 0, "close files")


LOADED = """
programs = [allow_list(numbers, audit) for numbers, audit in asked]


def work():
    os.mkdir("/mnt/before")
    process.set_no_new_privs()
    seccomp.load(allow_list(kernel, architecture))
    answers = []
    for call in (lambda: os.mkdir("/mnt/x"), lambda: os.getppid() * 0, lambda: os.rmdir("/mnt/before"), os.sync):
        try:
            answers.append(call() or "fine")
        except OSError as error:
            answers.append(error.errno)
    child = subprocess.run(["mkdir", "/mnt/y"], capture_output=True)
    return answers, child.returncode, os.listdir("/mnt")


loaded = in_child(work)


def foreign():
    process.set_no_new_privs()
    seccomp.load(allow_list(kernel, other))
    os.getppid()
    return "lives"


killed = in_child(foreign)
"""


def the_filter(allow_list):
    """Programs run by an interpreter with calls of every kind, and loaded into the kernel."""
    bench = Bench()
    native = ARCHITECTURES[MACHINE]
    others = [audit for audit in ARCHITECTURES.values() if audit != native]
    few, many = random.sample(range(500), 5), random.sample(range(5000), 1000)
    asked = [(few, native), (many, native), ([], native), ([few[0]] * 3, native), (few, others[0]), ([0], native)]
    allowed = [number for name, number in NUMBERS.items() if name not in ("mkdir", "mkdirat")]
    random.shuffle(allowed)
    values = {"asked": asked, "kernel": allowed, "architecture": native, "other": others[0]}
    try:
        seen = bench.run(
            ROOM + LOADED, definitions=[allow_list], values=values, wanted=("programs", "loaded", "killed")
        )
        for (numbers, audit), program in zip(asked, seen["programs"], strict=True):
            _filtered(program, numbers, audit)
        right = ([1, "fine", "fine", "fine"], 1, [])
        expect(seen["loaded"] == right, "the kernel does it, in children too", seen["loaded"], right, "see the table")
        expect(seen["killed"] == "killed by 31", "another architecture is death", seen["killed"], "SIGSYS", "kill")
    finally:
        bench.close()


def _filtered(program, numbers, audit):
    right = isinstance(program, bytes) and len(program) % 8 == 0 and 0 < len(program) // 8 <= 4096
    expect(right, "a program of at most 4096 instructions", len(program), "n * 8 bytes", "struct.pack")
    tries = [*numbers[:400], *(number + 1 for number in numbers[:50]), 0, 1, 255, 256, 70_000]
    for number in tries:
        verdict = _run(program, number, audit)
        wanted = ALLOW if number in numbers else REFUSE
        expect(verdict == wanted, "a call of this architecture", verdict, hex(wanted), "follow your jumps")
        if MACHINE == "x86_64":
            verdict = _run(program, number | 0x40000000, audit)
            expect(verdict == REFUSE, "an x32 call is another call", verdict, hex(REFUSE), "compare the whole word")
    for other in ARCHITECTURES.values():
        if other != audit:
            verdicts = {_run(program, number, other) for number in tries[:20]}
            expect(verdicts == {KILL}, "another architecture", verdicts, hex(KILL), "look at offset 4 first")


def _run(program, number, audit):
    """The verdict of a program; a text if the kernel would not take it."""
    call = struct.pack("<iI", number - (1 << 32) if number >= 1 << 31 else number, audit) + bytes(56)
    code = list(struct.iter_unpack("<HBBI", program))
    at, word = 0, 0
    while at < len(code):
        kind, if_true, if_false, value = code[at]
        at += 1
        if kind == 0x20 and value % 4 == 0 and value < 64:
            word = struct.unpack_from("<I", call, value)[0]
        elif kind == 0x15:
            at += if_true if word == value else if_false
        elif kind in (0x25, 0x35):
            at += if_true if (word > value or (kind == 0x35 and word == value)) else if_false
        elif kind == 0x05:
            at += value
        elif kind == 0x06:
            return value
        else:
            return f"no instruction: {kind:#x}"
    return "it runs off its end"


MAPS = """
def stranger():
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        unshare(CloneFlag.NEWUSER)
        os.write(write, b"!")
        while True:
            signal.pause()
    os.read(read, 1)
    os.close(read)
    os.close(write)
    return pid


def maps(pid):
    return [open(f"/proc/{pid}/{file}").read().split() for file in ("uid_map", "gid_map", "setgroups")]


fds = len(os.listdir("/proc/self/fd"))
taken = []
for uids, gids in good:
    pid = stranger()
    write_maps(pid, uids, gids)
    taken.append(maps(pid))
refused = []
for uids, gids in bad:
    pid = stranger()
    try:
        write_maps(pid, uids, gids)
        refused.append("taken")
    except ValueError:
        refused.append("refused" if maps(pid) == [[], [], ["allow"]] else "written before it was refused")
    except OSError as error:
        refused.append(f"the kernel had to refuse it: {error}")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
pid, twice = stranger(), "nothing"
write_maps(pid, *good[0])
try:
    write_maps(pid, *good[0])
except OSError:
    twice = "OSError"
left = len(os.listdir("/proc/self/fd")) - fds


def own():
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    process.prctl(4, 1)
    unshare(CloneFlag.NEWUSER)
    write_maps(os.getpid(), [(inside, user, 1)], [(inside, user, 1)], privileged=False)
    return maps("self"), os.getuid(), os.getgid()


alone = in_child(own)
"""


def the_maps(write_maps):
    """Maps that the kernel takes, those that it would not, a second one, and a user who has no privileges."""
    bench = Bench()
    first, length, user = random.randrange(1000, 20_000), random.randrange(2, 9000), random.randrange(1000, 60_000)
    inside = random.randrange(0, 1000)
    one = [(0, first, length)]
    many = [(number, 1000 + number * 2, 1) for number in range(340)]
    good = [
        (one, [(5, first + 1, 1)]),
        ([(length, first, length), (0, first + length, length)], one),  # they touch, on both sides
        (many, many),
        ([(4_294_967_294 - length + 1, first, length)], one),
    ]
    wrong = [
        [],
        [(0, first, 0)],
        [(-1, first, 5)],
        [(0, -1, 5)],
        [(0, first, length), (length - 1, first + length, 5)],
        [(0, first, length), (length, first + length - 1, 5)],
        [(length, first + length, 5), (0, first, length + 1)],
        [(4_294_967_290, first, 6)],
        [*many, (340, 30_000, 1)],
    ]
    bad = [(ranges, one) for ranges in wrong] + [(one, ranges) for ranges in wrong]
    values = {"good": good, "bad": bad, "user": user, "inside": inside}
    try:
        wanted = ("taken", "refused", "twice", "left", "alone")
        seen = bench.run(ROOM + MAPS, definitions=[write_maps], values=values, wanted=wanted)
        for (uids, gids), found in zip(good, seen["taken"], strict=True):
            for ranges, text in ((uids, found[0]), (gids, found[1])):
                right = [str(number) for entry in ranges for number in entry]
                expect(_lines(text) == _lines(right), "the kernel has this map", text, right, "all lines in one write")
            expect(found[2] == ["allow"], "a privileged writer leaves setgroups alone", found[2], "allow", "only then")
        for (uids, _), verdict in zip(bad, seen["refused"], strict=True):
            which = "gid_map" if uids == one else "uid_map"
            expect(verdict == "refused", f"a wrong {which} is refused, and nothing written", verdict, "refused", "look")
        expect(seen["twice"] == "OSError", "what the kernel refuses passes on", seen["twice"], "OSError", "let it")
        expect(seen["left"] == 0, "no descriptor is left open", seen["left"], 0, "os.close")
        right = ([[str(inside), str(user), "1"]] * 2 + [["deny"]], inside, inside)
        expect(seen["alone"] == right, "a user without privileges", seen["alone"], right, "setgroups first")
    finally:
        bench.close()


def _lines(words):
    """The kernel may give the lines back in another order."""
    return sorted(tuple(words[at : at + 3]) for at in range(0, len(words), 3))


CASES = {"ex12-confine": the_confinement, "ex12-filter": the_filter, "ex12-maps": the_maps}
