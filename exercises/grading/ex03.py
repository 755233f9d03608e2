"""The hidden cases of exercise 03. Instructors keep this file; it is in no release."""

from minidocker.lab.checks import Bench, expect

SHELL = ["/bin/sh", "-c"]
TIME = 14.0

# A process beside init: it does what is to happen, and ends everything if that does not come about.
BESIDE = """
import os, signal, time

from minidocker.linux.mounts import mount
mount("tmpfs", "/mnt", "tmpfs")


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            os.kill(-1, signal.SIGKILL)  # all but process 1 and ourselves
            os._exit(1)
        time.sleep(0.01)


def beside(work):
    if os.fork() == 0:
        try:
            work()
        finally:
            os._exit(0)
"""

ORPHANS = """
{ n=0; while [ $n -lt 12 ]; do ( sh -c "exit 9" & ); n=$((n+1)); done; } | cat
tries=0
while [ $tries -lt 40 ]; do
    left=0
    for status in /proc/[0-9]*/status; do
        if grep -q "^State:.Z" $status && grep -q "^PPid:.1$" $status; then left=$((left+1)); fi
    done 2> /dev/null
    if [ $left = 0 ]; then break; fi
    tries=$((tries+1)); sleep 0.05
done
echo $left
exit 5
"""

HEARD = """
for name in TERM INT HUP QUIT USR1 USR2; do trap "echo $name >> /mnt/heard" $name; done
trap "exit 42" WINCH
echo > /mnt/ready
while :; do sleep 0.02; done
"""
SENDING = """
def heard():
    return open("/mnt/heard").read().split() if os.path.exists("/mnt/heard") else []

def send():
    until(lambda: os.path.exists("/mnt/ready"))
    for number, name in enumerate(("TERM", "INT", "HUP", "QUIT", "USR1", "USR2")):
        os.kill(1, getattr(signal, "SIG" + name))
        until(lambda: len(heard()) > number)
    os.kill(1, signal.SIGWINCH)
    until(lambda: False)

beside(send)
status = init(command)
names = heard()
"""
PENDING = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
os.kill(1, signal.SIGTERM)
beside(lambda: until(lambda: False))
status = init(["sleep", "60"])
"""
MASKED = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
init(["grep", "SigBlk", "/proc/self/status"])
"""


def initial(init):
    """Statuses, orphans, signals."""
    bench = Bench(timeout_seconds=TIME)
    try:
        for command, status in (
            ([*SHELL, "exit 23"], 23),
            ([*SHELL, "kill -KILL $$"], 137),
            (["/no/such/program"], 127),
            ([*SHELL, "(exit 9) & wait; exit 4"], 4),
        ):
            done = bench.call(init, command)
            expect(done.value == status, "the command's status comes back", done.value, status, "")
            expect(done.left_children == 0, "no child is left", done.left_children, 0, "")
            leak = done.open_fds_after - done.open_fds_before
            expect(leak == 0, "no descriptor is left open", leak, 0, "")
        done = bench.call(init, [*SHELL, ORPHANS])
        expect(done.output.split() == ["0"], "orphans are reaped while the command runs", done.output, "0 zombies", "")
        expect(done.value == 5, "an orphan's end is not the command's end", done.value, 5, "")
        found = bench.run(
            BESIDE + SENDING, definitions=[init], values={"command": [*SHELL, HEARD]}, wanted=("status", "names")
        )
        names = ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2"]
        expect(found["names"] == names, "signals reach the command", found["names"], names, "")
        expect(found["status"] == 42, "a command that a signal ends by its handler", found["status"], 42, "")
        found = bench.run(BESIDE + PENDING, definitions=[init], wanted=("status",))
        expect(found["status"] == 143, "a signal that comes early is not lost", found["status"], 143, "")
        bench.run(BESIDE + MASKED, definitions=[init])
        mask = bench.printed.split()[-1:]
        expect(mask == ["0" * 16], "the command starts with no signal blocked", mask, "0" * 16, "")
    finally:
        bench.close()


STOPPING = """
import os, signal, time

def other(script):
    "A process that is nobody's who would reap it; its number, once it is ready."
    read, write = os.pipe()
    if os.fork() == 0:
        if os.fork() == 0:
            os.dup2(write, 1)
            os.execv("/bin/sh", ["sh", "-c", script + "; echo $$; while :; do sleep 0.02; done"])
        signal.pause()
    text = b""
    while not text.endswith(b"\\n"):
        text += os.read(read, 100)
    os.close(read), os.close(write)
    return int(text)

def state(pid):
    return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
"""
STOP = """
pid = other(script)
before = len(os.listdir("/proc/self/fd"))
result = stop(pid, seconds)
after = state(pid)
leak = len(os.listdir("/proc/self/fd")) - before
"""
GONE = """
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
try:
    result = stop(pid, 1)
except OSError:
    result = "OSError"
"""


def stopping(stop):
    """In time, at the latest, at once; whatever its parent does."""
    bench = Bench(timeout_seconds=5.0)
    try:
        for script, seconds, name in (
            ("trap 'exit 0' TERM", 60, "SIGTERM"),
            ("trap '' TERM", 0.3, "SIGKILL"),
            ("trap 'sleep 0.4; exit 0' TERM", 60, "SIGTERM"),
            ("trap 'sleep 60' TERM", 0.2, "SIGKILL"),
        ):
            seen = bench.run(
                STOPPING + STOP,
                definitions=[stop],
                values={"script": script, "seconds": seconds},
                wanted=("result", "after", "leak"),
            )
            expect(seen["result"] == name, "the signal that was enough", seen["result"], name, "")
            expect(seen["after"] == "Z", "the process has ended when stop returns", seen["after"], "Z", "")
            expect(seen["leak"] == 0, "no descriptor is left open", seen["leak"], 0, "")
        seen = bench.run("import os\n" + GONE, definitions=[stop], wanted=("result",))
        expect(seen["result"] == "OSError", "a process that is gone", seen["result"], "OSError", "")
    finally:
        bench.close()


TARGET = """
import os, signal, socket
from minidocker.linux.mounts import mount
from minidocker.linux.namespaces import CloneFlag, unshare

mount("tmpfs", "/mnt", "tmpfs")
(read, write), (number, tell) = os.pipe(), os.pipe()
holder = os.fork()
if holder == 0:
    unshare(flags)
    if flags & CloneFlag.NEWUSER:
        for file, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            open(f"/proc/self/{file}", "w").write(text)
    pid = os.fork()
    if pid == 0:
        if flags & CloneFlag.NEWUTS:
            socket.sethostname(name)
        if flags & CloneFlag.NEWNS:
            mount("tmpfs", "/mnt", "tmpfs")
            open("/mnt/mark", "w").write(name + "\\n")
            mount("proc", "/proc", "proc")
        os.write(write, b"ready")
        signal.pause()
    os.write(tell, str(pid).encode())
    signal.pause()
pid = int(os.read(number, 10))
os.read(read, 5)
for fd in (read, write, number, tell):
    os.close(fd)
NAMES = "cgroup ipc mnt net pid user uts".split()

def spaces(who):
    return [os.readlink(f"/proc/{who}/ns/{name}") for name in NAMES]
"""
EXEC = """
here, there, children = spaces("self"), spaces(pid), os.readlink("/proc/self/ns/pid_for_children")
before = len(os.listdir("/proc/self/fd"))
status = exec_in(pid, command)
leak = len(os.listdir("/proc/self/fd")) - before
same = here == spaces("self") and children == os.readlink("/proc/self/ns/pid_for_children")
left = len(open(f"/proc/self/task/{os.getpid()}/children").read().split())
"""
LOOK = """
for name in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$name; done
cat /mnt/mark 2> /dev/null || echo nothing
cat /proc/sys/kernel/hostname
pwd
exit 7
"""
DEAD = """
os.kill(pid, signal.SIGKILL)
if reaped:
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    os.waitpid(pid, 0)
else:
    while open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z":
        pass
try:
    result = ["status", exec_in(pid, ["/bin/true"])]
except OSError:
    result = ["OSError", 0]
"""
ALL = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x20000000, 0x40000000)
USER = 0x10000000


def executing(exec_in):
    """Every kind in which the target differs, also with a user namespace; the caller stays; the dead are refused."""
    bench = Bench(timeout_seconds=TIME)
    try:
        for flags, name in ((sum(ALL), "all"), (ALL[0] | ALL[2], "two"), (sum(ALL) | USER, "user")):
            values = {"flags": flags, "name": name, "command": [*SHELL, LOOK]}
            wanted = ("here", "there", "status", "leak", "same", "left")
            seen = bench.run(TARGET + EXEC, definitions=[exec_in], values=values, wanted=wanted)
            lines = bench.printed.split()
            expect(len(lines) == 10, "the command runs", lines, "ten words", "")
            expect(lines[:7] == seen["there"], "the command is where the process is", lines[:7], seen["there"], "")
            expect(lines[7:9] == [name, name], "it sees that process's files and name", lines[7:9], name, "")
            expect(lines[9] == "/", "its working directory is /", lines[9], "/", "")
            expect(seen["status"] == 7, "the exit status comes back", seen["status"], 7, "")
            expect(seen["same"], "the caller stays where it was", "it moved", "the same namespaces", "")
            expect(seen["left"] == 1, "no zombie is left", seen["left"] - 1, 0, "")
            expect(seen["leak"] == 0, "no descriptor is left open", seen["leak"], 0, "")
        for command, status in (([*SHELL, "kill -TERM $$"], 143), (["/no/such/program"], 127)):
            values = {"flags": sum(ALL), "name": "x", "command": command}
            seen = bench.run(TARGET + EXEC, definitions=[exec_in], values=values, wanted=("status", "left"))
            expect(seen["status"] == status, "how the command ended", seen["status"], status, "")
        for reaped in (True, False):
            values = {"flags": sum(ALL), "name": "x", "reaped": reaped}
            seen = bench.run(TARGET + DEAD, definitions=[exec_in], values=values, wanted=("result",))
            expect(seen["result"][0] == "OSError", "a process that has ended", seen["result"], "OSError", "")
    finally:
        bench.close()


CASES = {"ex03-init": initial, "ex03-stop": stopping, "ex03-exec": executing}
