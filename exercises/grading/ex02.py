"""The hidden cases of exercise 02. Instructors keep this file; it is in no release."""

from minidocker.lab.checks import Bench, expect

ROOM = """
import os, stat
from minidocker.lab.props.playground import busybox_root
from minidocker.lab.props.stepwise import Stepwise, StepRaised
from minidocker.linux.mounts import MountFlag, mount, mountinfo, pivot_root_here, set_propagation
from minidocker.linux.namespaces import CloneFlag, unshare

mount("tmpfs", "/mnt", "tmpfs")


def wait():
    "A step that does nothing: the child can be looked at as it was."


def identity(path):
    found = os.stat(path)
    return [found.st_dev, found.st_ino]


def refused(path, flags):
    "The name of the error that opening gives, or nothing."
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError as error:
        return error.strerror
    return ""
"""

ENTER = """
root = str(busybox_root(place))
os.mkdir(root + "/data")
os.mkdir(root + "/data/more")
mount("tmpfs", root + "/data/more", "tmpfs")
open(root + "/data/more/mark", "w").write(mark)
if shared:
    set_propagation("/", MountFlag.REC | MountFlag.SHARED)


def escape():
    os.mkdir("/x")
    os.chroot("/x")
    for _ in range(20):
        os.chdir("..")
    os.chroot(".")


before = open("/proc/self/mountinfo").read()
with Stepwise(wait, lambda: enter_root(root), escape) as child:
    top = f"/proc/{child.pid}"
    child.go()
    descriptors = -len(os.listdir(top + "/fd"))
    child.go()
    after = open("/proc/self/mountinfo").read()
    descriptors += len(os.listdir(top + "/fd"))
    table = mountinfo(child.pid)
    mounts = [[each.mount_point, each.fstype, list(each.propagation), list(each.options)] for each in table]
    names = sorted(os.listdir(top + "/root"))
    try:
        content = open(top + "/root/data/more/mark").read()
    except OSError as error:
        content = error.strerror
    at_root = identity(top + "/cwd") == identity(top + "/root")
    child.go()
    out = identity(top + "/root") == identity("/")
same = before == after
"""


def entering(enter_root):
    """Evidence from outside: the child's mount table, its root, its descriptors; and our own table."""
    bench = Bench()
    try:
        for place, mark, shared in (("/mnt/a root", "one", False), ("/mnt/b/c", "two", True), ("/mnt", "three", True)):
            seen = bench.run(
                ROOM + ENTER,
                definitions=[enter_root],
                values={"place": place, "mark": mark, "shared": shared},
                wanted=("same", "mounts", "names", "content", "at_root", "out", "descriptors"),
            )
            _judge(seen, mark)
    finally:
        bench.close()


def _judge(seen, mark):
    points = sorted(mount[0] for mount in seen["mounts"])
    expect(seen["same"], "the caller's own mount table stays as it was", "it changed", "the same", "")
    expect(seen["content"] == mark, "mounts below the new root come along", seen["content"], mark, "")
    expect(points == ["/", "/data/more", "/proc"], "the old root is gone from the mount table", points, "three", "")
    ties = [mount[2] for mount in seen["mounts"] if mount[2]]
    expect(not ties, "every mount inside is private", ties, "none is shared or slave", "")
    proc = next(mount for mount in seen["mounts"] if mount[0] == "/proc")
    expect(proc[1] == "proc", "/proc is a procfs", proc[1], "proc", "")
    expect({"nosuid", "nodev", "noexec"} <= set(proc[3]), "the flags of /proc", proc[3], "nosuid, nodev, noexec", "")
    expect("bin" in seen["names"] and "usr" not in seen["names"], "the new root is /", seen["names"], "busybox", "")
    expect(seen["at_root"], "the working directory is the new root", "elsewhere", "/", "")
    expect(not seen["out"], "there is no way out by chroot", "the machine's root", "the new root", "")
    expect(seen["descriptors"] == 0, "no descriptor is left open", seen["descriptors"], "0 more than before", "")


LOOK = """
def look(dev):
    found = {}
    for name in os.listdir(dev):
        status = os.lstat(f"{dev}/{name}")
        if stat.S_ISLNK(status.st_mode):
            found[name] = os.readlink(f"{dev}/{name}")
        else:
            number = (os.major(status.st_rdev), os.minor(status.st_rdev))
            found[name] = (stat.S_ISCHR(status.st_mode), *number, stat.S_IMODE(status.st_mode))
    zeros = open(dev + "/zero", "rb").read(3)
    open(dev + "/null", "wb").write(b"gone")
    return [found, zeros]
"""

AS_ROOT = """
os.mkdir("/mnt/dev")
os.umask(0o077)
make_devices("/mnt/dev")
seen = look("/mnt/dev")
"""

IN_USER_NAMESPACE = """
from minidocker.lab import plain
def inside():
    unshare(CloneFlag.NEWUSER | CloneFlag.NEWNS)
    for file, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
        open(f"/proc/self/{file}", "w").write(text)
    mount("tmpfs", "/mnt", "tmpfs")
    os.mkdir("/mnt/dev")
    make_devices("/mnt/dev")
    os.write(write, plain.encode(look("/mnt/dev")).encode())


read, write = os.pipe()
with Stepwise(inside) as child:
    child.go()
    seen = plain.decode(os.read(read, 10000).decode())
"""

NODES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


def devices(make_devices):
    """The nodes are what they should be and work, whatever the umask; in a user namespace too."""
    bench = Bench()
    try:
        for code, where in ((AS_ROOT, ""), (IN_USER_NAMESPACE, ", in a user namespace too")):
            found, zeros = bench.run(ROOM + LOOK + code, definitions=[make_devices], wanted=("seen",))["seen"]
            names = sorted(NODES | LINKS)
            expect(sorted(found) == names, f"the names in /dev{where}", sorted(found), names, "")
            for name, number in NODES.items():
                expect(found[name] == (True, *number, 0o666), f"/dev/{name}{where}", found[name], (*number, 0o666), "")
            links = {name: found[name] for name in LINKS}
            expect(links == LINKS, f"the links in /dev{where}", links, LINKS, "")
            expect(zeros == bytes(3), f"/dev/zero gives zeros{where}", zeros, bytes(3), "")
    finally:
        bench.close()


HIDE = """
root = str(busybox_root("/mnt/root"))
for directory in ("vault/deep", "conf", "secret"):
    os.makedirs(f"{root}/{directory}")
for file in ("vault/gold", "conf/file", "secret/key"):
    open(f"{root}/{file}", "w").write("content")
open(root + "/dev/null", "w").write("a null of the image's own" if fake else "")
if not fake:
    mount("/dev/null", root + "/dev/null", None, MountFlag.BIND)


def enter():
    unshare(CloneFlag.NEWNS)
    set_propagation("/", MountFlag.REC | MountFlag.PRIVATE)
    mount(root, root, None, MountFlag.BIND | MountFlag.REC)
    mount("proc", root + "/proc", "proc", MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC)
    os.chdir(root)
    pivot_root_here()


with Stepwise(enter, lambda: hide(masked, readonly)) as child:
    child.go()
    try:
        child.go()
        raised = ""
    except StepRaised as error:
        raised = str(error)
    top = f"/proc/{child.pid}/root"
    status = os.stat(top + "/secret/key")
    key = [stat.S_ISCHR(status.st_mode), status.st_rdev == os.makedev(1, 3), open(top + "/secret/key").read()]
    vault = [os.listdir(top + "/vault"), refused(top + "/vault/new", os.O_CREAT | os.O_WRONLY)]
    conf = [open(top + "/conf/file").read(), refused(top + "/conf/file", os.O_WRONLY)]
    conf.append(refused(top + "/conf/new", os.O_CREAT | os.O_WRONLY))
    kernel = refused(top + "/proc/sys/kernel/domainname", os.O_WRONLY)
    options = {each.mount_point: list(each.options) for each in mountinfo(child.pid)}
    writable = refused(top + "/tmp/new", os.O_CREAT | os.O_WRONLY)
"""
READ_ONLY = "Read-only file system"


def hiding(hide):
    """What is masked is empty, what is read-only can be read and no more; a false /dev/null is no mask."""
    bench = Bench()
    masked = ["/secret/key", "/vault", "/no/such/path", "/proc/no_such_file"]
    readonly = ["/conf", "/proc/sys", "/nothing/here"]
    wanted = ("raised", "key", "vault", "conf", "kernel", "options", "writable")
    try:
        values = {"masked": masked, "readonly": readonly, "fake": False}
        seen = bench.run(ROOM + HIDE, definitions=[hide], values=values, wanted=wanted)
        false = bench.run(ROOM + HIDE, definitions=[hide], values=values | {"fake": True}, wanted=wanted)
    finally:
        bench.close()
    expect(not seen["raised"], "paths that are not there are passed over", seen["raised"], "no error", "")
    expect(seen["key"] == [True, True, ""], "a masked file is the device 1:3", seen["key"], "empty", "")
    expect(seen["vault"] == [[], READ_ONLY], "a masked directory is empty and read-only", seen["vault"], "[]", "")
    expect(seen["conf"] == ["content", READ_ONLY, READ_ONLY], "a read-only directory", seen["conf"], READ_ONLY, "")
    # In a user namespace the kernel asks for permission first; the flag below tells.
    refusals = (READ_ONLY, "Permission denied")
    expect(seen["kernel"] in refusals, "/proc/sys is read-only", seen["kernel"] or "writable", READ_ONLY, "")
    flags = set(seen["options"].get("/proc/sys", []))
    expect({"ro", "nosuid", "nodev", "noexec"} <= flags, "/proc/sys keeps its other flags", sorted(flags), "four", "")
    expect("ro" not in seen["options"]["/proc"], "the rest of /proc stays writable", seen["options"]["/proc"], "rw", "")
    expect(seen["writable"] == "", "what is not named stays as it was", seen["writable"], "writable", "")
    expect(bool(false["raised"]), "a /dev/null that is another file is refused", "no error", "an error", "")
    expect(false["key"][0] is False, "nothing is masked with a false /dev/null", false["key"], "no mask", "")


CASES = {"ex02-enter": entering, "ex02-devices": devices, "ex02-hide": hiding}
