"""The hidden cases of exercise 05. Instructors keep this file; it is in no release."""

import hashlib
import random

from minidocker.lab.checks import Bench, expect

# What runs first: a filesystem of our own, archives by hand, and trees told from what the kernel says of each file.
ROOM = """
import hashlib, io, os, shutil, stat, tarfile
from minidocker.linux.mounts import mount
mount("tmpfs", "/mnt", "tmpfs")
for name in ("root", "outside", "before", "after", "other"):
    os.mkdir(f"/mnt/{name}")
KINDS = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE}


def archive(*entries):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, content, *more in entries:
            entry = tarfile.TarInfo(name)
            entry.type = KINDS.get(kind, tarfile.REGTYPE)
            entry.mode, entry.mtime = 0o755 if kind == "dir" else 0o644, 1_000_000
            data = content.encode() if kind == "file" else b""
            entry.linkname, entry.size = "" if kind == "file" else content, len(data)
            for key, value in dict(*more).items():
                setattr(entry, key, value)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def tell(function, *arguments):
    try:
        function(*arguments)
        return "fine"
    except NotImplementedError:
        raise
    except Exception as error:
        return "ValueError" if isinstance(error, ValueError) else type(error).__name__


def facts(path, times=True):
    status = os.lstat(path)
    told = [status.st_uid, status.st_gid]
    if stat.S_ISLNK(status.st_mode):
        return ["link", os.readlink(path), *told]
    told.append(oct(stat.S_IMODE(status.st_mode)))
    if stat.S_ISDIR(status.st_mode):
        return ["dir", *told]
    if stat.S_ISREG(status.st_mode):
        return ["file", open(path, "rb").read(), *told, *([int(status.st_mtime)] if times else [])]
    return ["fifo" if stat.S_ISFIFO(status.st_mode) else "other", *told]


def tree(root, times=True):
    found = {}
    for directory, directories, files in os.walk(root):
        for name in [*directories, *files]:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = facts(path, times)
    return found


def names(root="/mnt/root"):
    return sorted(tree(root))


def fresh():
    shutil.rmtree("/mnt/root")
    os.mkdir("/mnt/root")
"""

BASE = """
below = archive(("d", "dir", ""), ("d/sub", "dir", ""), ("d/sub/old", "file", "1"), ("d/x", "file", "1"),
                ("e", "dir", ""), ("e/y", "file", "1"), ("f", "file", "1"), ("usr/lib", "dir", ""),
                ("lib", "link", "usr/lib"))
"""

MARKS = """
results = {}

def case(name, *entries):
    fresh()
    apply_layer(below, "/mnt/root")
    results[name] = [tell(apply_layer, archive(*entries), "/mnt/root"), names()]

case("opaque last", ("d/sub/new", "file", "2"), ("d/.wh..wh..opq", "file", ""))
case("opaque first", ("d", "dir", ""), ("d/.wh..wh..opq", "file", ""), ("d/sub/new", "file", "2"))
case("own file", ("f", "file", "2"), (".wh.f", "file", ""))
case("missing", (".wh.nothing", "file", ""), ("d/.wh.nothing", "file", ""))
case("tree", (".wh.d", "file", ""))
case("dir to file", ("d", "file", "now a file"))
case("file to dir", ("f", "dir", ""), ("f/in", "file", "2"))
case("whiteout and again", (".wh.d", "file", ""), ("d", "dir", ""), ("d/only", "file", "2"))
case("through a link", ("lib/so", "file", "2"))
case("whiteout through a link", ("usr/lib/so", "file", "1"))
apply_layer(archive(("lib/.wh.so", "file", "")), "/mnt/root")
results["whiteout through a link"][1] = names()
case("directory on a link", ("lib", "dir", ""))
case("dot names", ("./g", "file", "2"), ("./", "dir", ""), ("/h", "file", "2"))
"""

KINDS = """
os.umask(0o077)
entries = [("a", "file", "x" * length, {"mode": 0o4751, "uid": 7, "gid": 8, "mtime": 1_234_567}),
           ("d", "dir", "", {"mode": 0o1777, "uid": 5}), ("d/b", "hard", "a", {"mode": 0o4751, "uid": 7, "gid": 8}),
           ("l", "link", "/no/where", {"uid": 9}), ("p", "fifo", "", {"mode": 0o620}),
           ("way/made/c", "file", "", {"pax_headers": {"SCHILY.xattr.user.colour": "gr\\u00fcn"}})]
told = tell(apply_layer, archive(*entries), "/mnt/root")
seen = tree("/mnt/root")
same = os.path.exists("/mnt/root/d/b") and os.path.samefile("/mnt/root/a", "/mnt/root/d/b")
open("/mnt/outside/probe", "w").close()
try:
    os.setxattr("/mnt/outside/probe", "user.colour", b"x")
    takes = True
except OSError:  # tmpfs before Linux 6.6
    takes = False
try:
    colour = os.getxattr("/mnt/root/way/made/c", "user.colour")
except OSError as error:
    colour = str(error)
apply_layer(archive(("d", "dir", "", {"mode": 0o700})), "/mnt/root")
kept = os.path.exists("/mnt/root/d/b"), oct(stat.S_IMODE(os.stat("/mnt/root/d").st_mode))
apply_layer(archive(("a", "file", "new")), "/mnt/root")
apart = open("/mnt/root/d/b").read() == "x" * length
os.symlink("/mnt/outside/t", "/mnt/root/t")
open("/mnt/outside/t", "w").write("safe")
apply_layer(archive(("t", "file", "new")), "/mnt/root")
target = open("/mnt/outside/t").read()
files = len(os.listdir("/proc/self/fd"))
for _ in range(3):
    apply_layer(archive(("a", "file", "new")), "/mnt/root")
leaked = len(os.listdir("/proc/self/fd")) - files
"""

HOSTILE = """
open("/mnt/outside/victim", "w").write("safe")
before = tree("/mnt/outside")
told = [
    tell(apply_layer, archive(("../outside/evil", "file", "x")), "/mnt/root"),
    tell(apply_layer, archive(("d/../../outside/evil", "file", "x")), "/mnt/root"),
    tell(apply_layer, archive(("h", "hard", "../outside/victim")), "/mnt/root"),
]
tell(apply_layer, archive(("way", "link", "/mnt/outside"), ("way/evil", "file", "x")), "/mnt/root")
inside = os.path.exists("/mnt/root/mnt/outside/evil")
tell(apply_layer, archive(("up", "link", "../outside"), ("up/evil", "file", "x")), "/mnt/root")
tell(apply_layer, archive(("way2", "link", "/mnt/outside"), ("way2/.wh.victim", "file", "")), "/mnt/root")
tell(apply_layer, archive(("way3", "link", "/mnt/outside"), ("way3/.wh..wh..opq", "file", "")), "/mnt/root")
tell(apply_layer, archive(("way4", "link", "/mnt/outside"), ("stolen", "hard", "way4/victim")), "/mnt/root")
tell(apply_layer, archive(("w", "link", "/mnt/outside"), ("w", "dir", "", {"mode": 0o700, "uid": 3})), "/mnt/root")
after = tree("/mnt/outside")
stolen = os.path.exists("/mnt/root/stolen")
"""
_REST = ["lib", "usr", "usr/lib"]
_ALL = ["d", "d/sub", "d/sub/old", "d/x", "e", "e/y", "f", *_REST]


def _without(*gone):
    return [name for name in _ALL if name not in gone]


MARKED = {
    "opaque last": (["d", "d/sub", "d/sub/new", "e", "e/y", "f", *_REST], "a mark at the end spares its own layer"),
    "opaque first": (["d", "d/sub", "d/sub/new", "e", "e/y", "f", *_REST], "an opaque directory"),
    "own file": (_ALL, "a whiteout spares a file of its own layer"),
    "missing": (_ALL, "a whiteout of a name that is not there"),
    "tree": (_without("d", "d/sub", "d/sub/old", "d/x"), "a whiteout of a whole tree"),
    "dir to file": (_without("d/sub", "d/sub/old", "d/x"), "a file in place of a directory"),
    "file to dir": (sorted([*_ALL, "f/in"]), "a directory in place of a file"),
    "whiteout and again": (["d", "d/only", "e", "e/y", "f", *_REST], "a directory that was removed and made again"),
    "through a link": (sorted([*_ALL, "usr/lib/so"]), "a link on the way is followed within the root"),
    "whiteout through a link": (_ALL, "a whiteout below a link on the way"),
    "directory on a link": (_ALL, "a directory takes the place of a link"),
    "dot names": (sorted([*_ALL, "g", "h"]), "names that begin with ./ or /"),
}


def applying(apply_layer):
    """Marks in every order, kinds and attributes, and archives that want out: trees are compared, file by file."""
    bench = Bench()
    definitions = [apply_layer]
    try:
        results = bench.run(ROOM + BASE + MARKS, definitions=definitions, wanted=("results",))["results"]
        for name, (right, concept) in MARKED.items():
            told, seen = results[name]
            expect(told == "fine" and seen == sorted(right), concept, [told, seen], sorted(right), "see the text")
        length = random.randrange(3, 99)
        wanted = ("told", "seen", "same", "takes", "colour", "kept", "apart", "target", "leaked")
        found = bench.run(ROOM + KINDS, definitions=definitions, values={"length": length}, wanted=wanted)
        seen = found["seen"]
        content = b"x" * length
        right = {
            "a": ["file", content, 7, 8, "0o4751", 1_234_567],
            "d": ["dir", 5, 0, "0o1777"],
            "l": ["link", "/no/where", 9, 0],
            "p": ["fifo", 0, 0, "0o620"],
        }
        for name, facts in right.items():
            expect(
                seen.get(name) == facts, f"owner, mode and time of a {facts[0]}", seen.get(name), facts, "all of them"
            )
        expect(found["same"], "a hard link is the same file", "another file", "the same inode", "os.link")
        right = "grün".encode()
        expect(
            not found["takes"] or found["colour"] == right, "attributes travel", found["colour"], right, "os.setxattr"
        )
        expect(
            tuple(found["kept"]) == (True, "0o700"),
            "a directory stays and gets the new mode",
            found["kept"],
            "",
            "chmod",
        )
        expect(found["apart"], "replacing a file spares its other names", "overwritten", "kept", "remove, then make")
        expect(found["target"] == "safe", "the last part of a name is not followed", "overwritten", "safe", "lstat")
        expect(found["leaked"] == 0, "no descriptor is left open", found["leaked"], 0, "close what you open")
        wanted = ("told", "before", "after", "stolen", "inside")
        found = bench.run(ROOM + HOSTILE, definitions=definitions, wanted=wanted)
        expect(
            found["after"] == found["before"], "nothing outside of the root is touched", "touched", "as before", "ask"
        )
        expect(
            not found["stolen"], "no hard link to a file outside", "a link", "none", "look the target up in the root"
        )
        expect(
            set(found["told"]) == {"ValueError"}, "names and targets that climb", found["told"], "ValueError", "look"
        )
        expect(
            found["inside"], "a link on the way leads to a place within the root", "nothing", "a file", "directory_in"
        )
    finally:
        bench.close()


DIFF = """
def write(path, text, mode=0o644, seconds=5000.0, uid=0):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode), os.chown(path, uid, 0), os.utime(path, (seconds, seconds))

def old_tree(top):
    for number in range(6):
        write(f"{top}/same{number}", "same")
    write(f"{top}/content", "old"); write(f"{top}/mode", "m"); write(f"{top}/owner", "o"); write(f"{top}/time", "t")
    write(f"{top}/gone/deep/file", "x"); write(f"{top}/to_dir", "x"); write(f"{top}/to_file/in", "x")
    write(f"{top}/quiet/kept", "x"); write(f"{top}/fraction", "x", seconds=5000.25)
    os.mkdir(f"{top}/dirmode"); os.symlink("one", f"{top}/link"); os.symlink("same0", f"{top}/to_real")

def new_tree(top, order):
    steps = [lambda number=number: write(f"{top}/same{number}", "same") for number in range(6)]
    steps += [lambda: write(f"{top}/content", "new"), lambda: write(f"{top}/mode", "m", 0o600),
              lambda: write(f"{top}/owner", "o", uid=12), lambda: write(f"{top}/time", "t", seconds=6000),
              lambda: write(f"{top}/to_dir/in", secret), lambda: write(f"{top}/to_file", "x"),
              lambda: write(f"{top}/quiet/kept", "x"), lambda: write(f"{top}/quiet/new", "n"),
              lambda: write(f"{top}/fraction", "x", seconds=5000.75),
              lambda: (os.mkdir(f"{top}/dirmode"), os.chmod(f"{top}/dirmode", 0o711)),
              lambda: os.symlink("two", f"{top}/link"), lambda: write(f"{top}/to_real", "same"),
              lambda: write(f"{top}/" + "long" * 40, "long"), lambda: os.symlink("/no/where", f"{top}/dangling")]
    for step in order(steps):
        step()

old_tree("/mnt/before")
new_tree("/mnt/after", list)
new_tree("/mnt/other", reversed)
for top in ("after", "other"):
    for name in ("to_dir", "quiet"):
        os.utime(f"/mnt/{top}/{name}", (7000, 7000))
    os.utime(f"/mnt/{top}/dirmode", (7000, 7000)), os.utime(f"/mnt/{top}/link", (8000, 8000), follow_symlinks=False)
    os.utime(f"/mnt/{top}/dangling", (8000, 8000), follow_symlinks=False)
    os.utime(f"/mnt/{top}/same0", (5000.5, 5000.5))
    os.utime(f"/mnt/{top}/content", (5000.4 if top == "after" else 5000.6,) * 2)
layer = diff_layer("/mnt/before", "/mnt/after")
again = diff_layer("/mnt/before", "/mnt/other") == layer

def judge(layer):
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        for member in tar:
            directory, _, leaf = member.name.rpartition("/")
            place = os.path.join("/mnt/before", member.name)
            if leaf.startswith(".wh."):
                place = os.path.join("/mnt/before", directory, leaf[4:])
                shutil.rmtree(place) if os.path.isdir(place) and not os.path.islink(place) else os.unlink(place)
                continue
            there = os.path.isdir(place) and not os.path.islink(place)
            if os.path.lexists(place) and not (there and member.isdir()):
                shutil.rmtree(place) if there else os.unlink(place)
            if member.isdir():
                os.makedirs(place, exist_ok=True)
            elif member.issym():
                os.symlink(member.linkname, place)
            else:
                open(place, "wb").write(tar.extractfile(member).read())
            os.chown(place, member.uid, member.gid, follow_symlinks=False)
            if not member.issym():
                os.chmod(place, member.mode)
                os.utime(place, (member.mtime, member.mtime))

with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
    members = [[member.name, member.uname + member.gname, float(member.mtime).is_integer()] for member in tar]
fits = tell(judge, layer)
result, right = tree("/mnt/before"), tree("/mnt/after")
"""


def the_difference(diff_layer):
    """The layer is applied by the judge, and the tree that comes out is compared; its names and bytes are looked at."""
    bench = Bench()
    try:
        secret = f"{random.getrandbits(60):x}"
        wanted = ("members", "again", "fits", "result", "right")
        found = bench.run(ROOM + DIFF, definitions=[diff_layer], values={"secret": secret}, wanted=wanted)
        names = [name for name, _, _ in found["members"]]
        right = sorted(
            [
                ".wh.gone",
                "content",
                "dangling",
                "dirmode",
                "link",
                "mode",
                "owner",
                "quiet/new",
                "time",
                "to_dir",
                "to_dir/in",
                "to_file",
                "to_real",
            ]
        )
        right = sorted([*right, "long" * 40])
        off = sorted(set(names) ^ set(right))
        expect(sorted(names) == right, "what has changed, and nothing else", off, "no difference", "compare")
        wrong = sorted(name for name in found["right"] if found["result"].get(name) != found["right"][name])
        wrong += sorted(set(found["result"]) - set(found["right"]))
        expect(
            found["fits"] == "fine",
            "the layer can be applied",
            found["fits"],
            "no error",
            "whiteouts for what is there",
        )
        expect(not wrong, "the layer turns one tree into the other", wrong, "none", "apply it to check")
        expect(not any(owner for _, owner, _ in found["members"]), "no names of users", "a name", "none", "uname")
        expect(all(whole for _, _, whole in found["members"]), "times are whole seconds", "fractions", "whole", "int")
        places = [name.replace("/.wh.", "/").removeprefix(".wh.") for name in names]
        expect(places == sorted(places), "the order of names", names, "sorted", "sorted")
        expect(
            found["again"], "equal trees give equal bytes, however they were made", "other bytes", "the same", "order"
        )
    finally:
        bench.close()


RECEIVE = """
taken = 0

def endless():
    global taken
    while taken < 3000:
        taken += 1
        yield b"x" * 100_000

def breaks():
    yield content[:10]
    raise ConnectionResetError("the sender has gone")

def slow():
    for at in range(0, len(content), 1000):
        seen_early.append(os.path.exists("/mnt/root/good"))
        yield content[at : at + 1000]

seen_early, kept = [], {}
outcomes = {
    "good": tell(receive, slow(), digest, len(content), "/mnt/root/good"),
    "short": tell(receive, iter([content[:-1]]), digest, len(content), "/mnt/root/short"),
    "long": tell(receive, iter([content, b"!"]), digest, len(content), "/mnt/root/long"),
    "other": tell(receive, iter([content[:-1] + b"?"]), digest, len(content), "/mnt/root/other"),
    "name": tell(receive, iter([content]), digest.replace("sha256", "md5"), len(content), "/mnt/root/name"),
    "breaks": tell(receive, breaks(), digest, len(content), "/mnt/root/breaks"),
    "empty": tell(receive, iter([]), "sha256:" + hashlib.sha256(b"").hexdigest(), 0, "/mnt/root/empty"),
    "endless": tell(receive, endless(), digest, len(content), "/mnt/root/endless"),
}
left = names()
same = os.path.exists("/mnt/root/good") and open("/mnt/root/good", "rb").read() == content
open("/mnt/root/there", "wb").write(b"before")
outcomes["replace"] = tell(receive, iter([b"bad"]), digest, len(content), "/mnt/root/there")
unharmed = open("/mnt/root/there", "rb").read() == b"before"
"""


def the_receiver(receive):
    """Senders that stop, lie, break or never end; the directory is looked at, and how much was taken."""
    bench = Bench()
    try:
        content = random.randbytes(random.randrange(5000, 9000))
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        values = {"content": content, "digest": digest}
        wanted = ("outcomes", "left", "same", "taken", "seen_early", "unharmed")
        found = bench.run(ROOM + RECEIVE, definitions=[receive], values=values, wanted=wanted)
        told = found["outcomes"]
        expect(
            told["good"] == "fine" and found["same"], "good bytes are kept", told["good"], "kept", "write each piece"
        )
        expect(told["empty"] == "fine", "no bytes at all can be right", told["empty"], "kept", "the digest of nothing")
        for name, concept in (
            ("short", "too few bytes"), ("long", "too many bytes"), ("other", "other bytes"),
            ("name", "a digest of another kind"), ("endless", "a sender that never stops"),
        ):  # fmt: skip
            expect(told[name] == "ValueError", concept, told[name], "ValueError", "compare")
        expect(told["breaks"] == "ConnectionResetError", "the sender's own error passes", told["breaks"], "it", "raise")
        expect(found["left"] == ["empty", "good"], "nothing of a bad blob is left", found["left"], "the good", "unlink")
        expect(found["taken"] < 50, "not much more is taken than promised", found["taken"], "a piece or two", "count")
        expect(not any(found["seen_early"]), "the name is there only at the end", "there early", "renamed", "rename")
        expect(
            found["unharmed"], "what has that name stays if the new bytes are bad", "gone", "as before", "rename last"
        )
    finally:
        bench.close()


CASES = {"ex05-apply": applying, "ex05-diff": the_difference, "ex05-receive": the_receiver}
