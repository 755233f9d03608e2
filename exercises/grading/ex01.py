"""The hidden cases of the exercises. Instructors keep this file; it is in no release.

Each entry of CASES takes the learner's functions and raises `checks.CheckFailed`.
"""

from minidocker.lab.checks import Bench, expect
from minidocker.linux.namespaces import KINDS, PROC_NAME, CloneFlag

LOOK = ["/bin/sh", "-c", "for kind in mnt uts ipc net pid cgroup user time; do readlink /proc/self/ns/$kind; done"]
HERE = "import os\nprint(*(os.readlink(f'/proc/self/ns/{k}') for k in 'mnt uts ipc net pid cgroup user time'.split()))"


def _look(bench, function, flags):
    """The namespaces before, and those that the command was in: {kind: inode text}."""
    lines = bench.call(function, flags, LOOK, setup=HERE).output.split()
    expect(len(lines) == 16, "the command runs", f"{len(lines) - 8} lines of output", "8", "exec the command")
    split = [dict(line.split(":", 1) for line in part) for part in (lines[:8], lines[8:])]
    return split[0], split[1]


def namespaces_of(read_namespaces):
    """Other processes than ourselves, and every kind."""
    bench = Bench()
    try:
        setup = "import os, time\n_child = os.fork()\nif _child == 0: time.sleep(30)\nprint(_child)"
        found = bench.call(read_namespaces, "self", setup=setup).value
        names = {PROC_NAME[kind] for kind in KINDS}
        expect(names <= set(found), "every kind is there", sorted(found), sorted(names), "list the directory")
        expect(all(isinstance(inode, int) for inode in found.values()), "inodes are numbers", found, "int", "parse")
    finally:
        bench.close()


def new_namespaces(run_in):
    """Only the kinds asked for; exit status and signal; nothing left."""
    bench = Bench()
    try:
        for flags, asked in (
            (CloneFlag.NEWUTS, {"uts"}),
            (CloneFlag.NEWNET | CloneFlag.NEWIPC, {"net", "ipc"}),
            (CloneFlag.NEWPID | CloneFlag.NEWNS, {"pid", "mnt"}),
        ):
            before, inside = _look(bench, run_in, flags)
            changed = {kind for kind in before if before[kind] != inside[kind]}
            expect(changed == asked, "exactly the namespaces asked for", sorted(changed), sorted(asked), "one unshare")
        for command, status in ((["/bin/sh", "-c", "exit 42"], 42), (["/bin/sh", "-c", "kill -TERM $$"], 143)):
            seen = bench.call(run_in, CloneFlag.NEWUTS, command).value
            expect(seen == status, "the exit status is passed on", seen, status, "os.waitstatus_to_exitcode")
        done = bench.call(run_in, CloneFlag.NEWUTS, ["/bin/true"])
        expect(done.left_children == 0, "no zombie is left", f"{done.left_children} children", "0", "wait for each")
        leak = done.open_fds_after - done.open_fds_before
        expect(leak == 0, "no descriptor is left open", f"{leak} more than before", "0", "close what you open")
        missing = bench.call(run_in, CloneFlag.NEWUTS, ["/no/such/program"])
        expect(missing.value == 127, "a command that is not there", missing.value, "127", "catch the error of exec")
        pid = bench.call(run_in, CloneFlag.NEWPID, ["/bin/sh", "-c", "exit $(( $$ == 1 ? 7 : 8 ))"]).value
        expect(pid == 7, "process 1 of a new pid namespace is the command", pid, 7, "unshare, then fork")
    finally:
        bench.close()


HOLDER = """
import os, socket, time
from minidocker.linux.namespaces import CloneFlag as _F, unshare as _u
_r, _w = os.pipe()
_holder = os.fork()
if _holder == 0:
    _u(_F.NEWUTS | _F.NEWNET)
    socket.sethostname("held")
    os.write(_w, b"x")
    time.sleep(30)
os.read(_r, 1)
os.close(_r); os.close(_w)
print(_holder, os.readlink(f"/proc/{_holder}/ns/uts"), os.readlink("/proc/self/ns/net"))
"""


def joining(join):
    """Joins what was asked, nothing else, and leaves the caller where it was."""
    bench = Bench()
    try:
        command = ["/bin/sh", "-c", "hostname; readlink /proc/self/ns/uts; readlink /proc/self/ns/net"]
        seen = bench.call(join, 2, CloneFlag.NEWUTS, command, setup=HOLDER)
        _holder, uts, net, name, joined, stayed = seen.output.split()
        expect(name == "held" and joined == uts, "the command is in the joined namespace", joined, uts, "setns")
        expect(stayed == net, "namespaces that were not asked for stay", stayed, net, "pass the flags on")
        expect(seen.value == 0, "the exit status is passed on", seen.value, 0, "wait for the child")
        expect(seen.left_children == 1, "only the holder is left", seen.left_children, 1, "wait for your child")
        expect(seen.open_fds_after == seen.open_fds_before, "the pidfd is closed", "left open", "closed", "os.close")
    finally:
        bench.close()


CASES = {"ex01-read": namespaces_of, "ex01-run": new_namespaces, "ex01-join": joining}
