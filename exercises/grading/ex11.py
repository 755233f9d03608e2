"""The hidden cases of exercise 11. Instructors keep this file; it is in no release."""

import random

from minidocker.lab.checks import Bench, expect

ROOM = """
import os, stat, threading
from minidocker.linux.mounts import mount
mount("tmpfs", "/mnt", "tmpfs")

def tell(what, *arguments):
    try:
        return what(*arguments)
    except NotImplementedError:
        raise
    except Exception as error:
        return next((base.__name__ for base in (ValueError, LookupError, RuntimeError) if isinstance(error, base)),
                    type(error).__name__)
"""

NAMES = """
os.makedirs("/mnt/a/volumes")
open("/mnt/a/beside", "w").close()
book = VolumeBook("/mnt/a/volumes")
made = [tell(book.create, name) for name in bad]
acquired = [tell(book.acquire, name, "c1") for name in bad]
removed = [tell(book.remove, name) for name in bad]
beside, inside = sorted(os.listdir("/mnt/a")), os.listdir("/mnt/a/volumes")
good_ones = [tell(book.create, name) for name in good]
there = tell(book.names)
"""

USERS = """
os.mkdir("/mnt/volumes")
book = VolumeBook("/mnt/volumes")
place = book.acquire(one, "c1")
book.acquire(one, "c1")
refused = [tell(book.remove, one)]
book.release(one, "c9")
refused.append(tell(book.remove, one))
book.release(other, "c1")
book.acquire(one, "c2")
book.release(one, "c1"), book.release(one, "c1")
refused.append(tell(book.remove, one))
still = os.path.isdir(place)
book.release(one, "c2")
freed = tell(book.remove, one)
gone = os.path.exists(os.path.dirname(place))
missing = tell(book.remove, one)
again = [tell(book.acquire, one, "c3"), os.listdir(place), tell(book.remove, one)]
two = VolumeBook("/mnt/volumes")
known = tell(two.names)
unknown_users = tell(two.remove, one)
"""

PRUNE = """
os.makedirs("/mnt/volumes/old/_data/deep")
open("/mnt/volumes/old/_data/deep/file", "w").close()
os.mkdir("/mnt/outside")
open("/mnt/outside/file", "w").close()
book = VolumeBook("/mnt/volumes")
names = tell(book.names)
for name in ("bb", "aa", "cc"):
    book.create(name)
os.symlink("/mnt/outside", book.create("aa") + "/link")
os.symlink("/mnt/outside", "/mnt/volumes/aa/_data/link2")
book.acquire("bb", "c1")
book.acquire("old", "c1")
pruned = tell(book.prune)
left = sorted(os.listdir("/mnt/volumes"))
outside = os.listdir("/mnt/outside")
nothing = tell(book.prune)
book.release("old", "c1")
rest = tell(book.prune)
"""


def the_book(book):
    """Names that must not reach the filesystem; who is counted, and who is not; what prune and links do."""
    bench = Bench()
    bad = ["..", ".", "a", "a/b", "../x", "/mnt/a/beside", "-x", "_x", ".hidden", "a b", "", "ab\n", "a\0b", "é1"]
    good = ["a" + "".join(random.choices("bcdefXYZ0123456789_.-", k=9)), "0-", "Ab.c"]
    one, other = f"v{random.randrange(10**6):06}", "w1"
    try:
        wanted: tuple[str, ...] = ("made", "acquired", "removed", "beside", "inside", "good_ones", "there")
        seen = bench.run(ROOM + NAMES, definitions=[book], values={"bad": bad, "good": good}, wanted=wanted)
        for what in ("made", "acquired", "removed"):
            wrong = [name for name, told in zip(bad, seen[what], strict=True) if told != "ValueError"]
            expect(not wrong, "names that are no names are refused", wrong, "ValueError", "the whole name")
        expect(
            seen["beside"] == ["beside", "volumes"], "nothing outside of the root", seen["beside"], "", "check first"
        )
        expect(seen["inside"] == [], "a refused name leaves nothing", seen["inside"], "nothing", "check first")
        right = [f"/mnt/a/volumes/{name}/_data" for name in good]
        expect(seen["good_ones"] == right, "what is allowed is allowed", seen["good_ones"], right, "letters, digits")
        expect(seen["there"] == sorted(good), "names in order", seen["there"], sorted(good), "sorted")
        wanted = ("refused", "still", "freed", "gone", "missing", "again", "known", "unknown_users")
        seen = bench.run(ROOM + USERS, definitions=[book], values={"one": one, "other": other}, wanted=wanted)
        expect(
            seen["refused"] == ["RuntimeError"] * 3, "in use, so it stays", seen["refused"], "RuntimeError", "each user"
        )
        expect(seen["still"], "a refused removal removes nothing", "gone", "there", "look before you remove")
        expect(
            seen["freed"] is None,
            "one container is one user, however often it is noted",
            seen["freed"],
            "removed",
            "set",
        )
        expect(not seen["gone"], "all of the volume goes", "its directory is there", "gone", "ROOT/NAME")
        expect(seen["missing"] == "LookupError", "a volume that is not there", seen["missing"], "LookupError", "look")
        right = [f"/mnt/volumes/{one}/_data", [], "RuntimeError"]
        expect(seen["again"] == right, "after a removal it begins anew", seen["again"], right, "acquire makes it")
        expect(seen["known"] == [one], "a new book finds what is there", seen["known"], [one], "listdir")
        expect(seen["unknown_users"] is None, "and knows no user of it", seen["unknown_users"], "removed", "self")
        wanted = ("names", "pruned", "left", "outside", "nothing", "rest")
        seen = bench.run(ROOM + PRUNE, definitions=[book], wanted=wanted)
        expect(seen["names"] == ["old"], "volumes of an earlier engine", seen["names"], ["old"], "listdir")
        expect(seen["pruned"] == ["aa", "cc"], "prune takes what nobody uses", seen["pruned"], ["aa", "cc"], "users")
        expect(seen["left"] == ["bb", "old"], "prune spares what is in use", seen["left"], ["bb", "old"], "users")
        expect(seen["outside"] == ["file"], "what a link leads to is not in the volume", seen["outside"], "", "rmtree")
        expect(seen["nothing"] == [] and seen["rest"] == ["old"], "prune again", seen["rest"], ["old"], "users")
    finally:
        bench.close()


COPY = """
def about(path):
    found = os.lstat(path)
    return [stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode) if not stat.S_ISLNK(found.st_mode) else 0,
            found.st_uid, found.st_gid, os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""]

def tree(top):
    found = {".": about(top)}
    for directory, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, top)] = about(path)
    return found

os.makedirs("/mnt/image/deep/er"), os.mkdir("/mnt/volume"), os.mkdir("/mnt/outside")
open("/mnt/outside/secret", "w").write("secret")
os.chmod("/mnt/outside", 0o755), os.chmod("/mnt/outside/secret", 0o600)
open("/mnt/image/deep/er/file", "wb").write(content)
os.chown("/mnt/image/deep/er/file", uid, gid), os.chmod("/mnt/image/deep/er/file", 0o4751)
open("/mnt/image/.hidden", "w").close()
open("/mnt/image/unreadable", "w").write("x"), os.chmod("/mnt/image/unreadable", 0)
os.symlink("/mnt/outside", "/mnt/image/to_directory")
os.symlink("/mnt/outside/secret", "/mnt/image/to_file")
os.symlink("nowhere", "/mnt/image/deep/broken")
os.lchown("/mnt/image/to_file", uid, gid)
os.mkfifo("/mnt/image/pipe", 0o620), os.chown("/mnt/image/pipe", gid, uid)
os.mkdir("/mnt/image/closed"), open("/mnt/image/closed/x", "w").close(), os.chmod("/mnt/image/closed", 0o500)
os.chown("/mnt/image/deep", gid, uid), os.chmod("/mnt/image/deep", 0o2775)
os.chown("/mnt/image", uid, gid), os.chmod("/mnt/image", 0o1770)
before, outside = tree("/mnt/image"), tree("/mnt/outside")
told = [fill("/mnt/image", "/mnt/volume")]
copied, source_after, outside_after = tree("/mnt/volume"), tree("/mnt/image"), tree("/mnt/outside")
read = open("/mnt/volume/deep/er/file", "rb").read()
os.unlink("/mnt/volume/.hidden")
told.append(fill("/mnt/image", "/mnt/volume"))
once = os.path.exists("/mnt/volume/.hidden")
os.mkdir("/mnt/dotted"), open("/mnt/dotted/.only", "w").close()
mode = stat.S_IMODE(os.stat("/mnt/dotted").st_mode)
told.append(fill("/mnt/image", "/mnt/dotted"))
dotted = [os.listdir("/mnt/dotted"), stat.S_IMODE(os.stat("/mnt/dotted").st_mode) == mode]
os.mkdir("/mnt/bare"), os.mkdir("/mnt/fresh"), os.chown("/mnt/bare", uid, gid)
fill("/mnt/bare", "/mnt/fresh")
bare = os.stat("/mnt/fresh").st_uid
opened = len(os.listdir("/proc/self/fd"))
os.mkdir("/mnt/third")
fill("/mnt/image", "/mnt/third")
leaked = len(os.listdir("/proc/self/fd")) - opened
"""


def the_copy(fill):
    """A tree with owners, modes, links that lead out, a pipe; targets that are not empty in different ways."""
    bench = Bench(timeout_seconds=6)
    uid, gid = random.sample(range(1000, 60_000), 2)
    content = random.randbytes(300_000)
    wanted = ("before", "copied", "source_after", "outside", "outside_after", "read", "told", "once", "dotted", "bare",
              "leaked")  # fmt: skip
    try:
        values = {"uid": uid, "gid": gid, "content": content}
        seen = bench.run(ROOM + COPY, definitions=[fill], values=values, wanted=wanted)
        before, copied = seen["before"], seen["copied"]
        missing = sorted(set(before) ^ set(copied))
        expect(not missing, "every name is copied, of every kind", missing, "none", "scandir")
        for part, concept in enumerate(("kinds", "modes", "owners", "groups", "targets of links")):
            wrong = [name for name in before if list(before[name])[part] != list(copied[name])[part]]
            expect(not wrong, f"{concept} are kept", wrong, "the same", "lstat, chown, then chmod")
        expect(seen["read"] == content, "the content is the same", "another", "the same", "copyfile")
        expect(seen["source_after"] == before, "the image stays as it is", "changed", "the same", "read only")
        expect(seen["outside_after"] == seen["outside"], "no link is followed", "changed", "the same", "lchown")
        expect(seen["told"] == [True, False, False], "only at the first use", seen["told"], "once", "listdir")
        expect(not seen["once"], "a second call copies nothing", "copied", "nothing", "not empty")
        expect(seen["dotted"] == [[".only"], True], "a hidden file is a file", seen["dotted"], "as it was", "listdir")
        expect(seen["bare"] == uid, "an empty directory has an owner too", seen["bare"], uid, "chown target")
        expect(seen["leaked"] == 0, "no descriptor stays open", seen["leaked"], 0, "close")
    finally:
        bench.close()


PLUGIN = """
os.mkdir("/mnt/shelf")
open("/mnt/beside", "w").close()
plugin = VolumePlugin("/mnt/shelf")

def ask(what, asked):
    answer = tell(plugin.answer, what if "." in what else f"VolumeDriver.{what}", asked)
    if isinstance(answer, dict) and list(answer) == ["Err"] and isinstance(answer["Err"], str) and answer["Err"]:
        return "Err"
    return answer

fixed = [ask("Plugin.Activate", {}), ask("Capabilities", {}), ask("List", {})]
odd = [ask(what, asked) for what, asked in strange]
beside = sorted(os.listdir("/mnt"))
for name in (two, one):
    made = [ask("Create", {"Name": name, "Opts": {"size": "1"}}), ask("Create", {"Name": name})]
open(f"/mnt/shelf/{one}/file", "w").close()
ask("Create", {"Name": one})
kept = os.listdir(f"/mnt/shelf/{one}")
listed = ask("List", {})
path = ask("Path", {"Name": one})
uses = []
for what, use in (("Mount", "a"), ("Mount", "b"), ("Mount", "a"), ("Unmount", "x"), ("Unmount", "a"), ("Unmount", "a")):
    answer = ask(what, {"Name": one, "ID": use})
    uses.append([answer, ask("Get", {"Name": one})["Volume"]["Status"]["mounts"]])
other = ask("Get", {"Name": two})
refused = [ask("Remove", {"Name": one}), os.path.isdir(f"/mnt/shelf/{one}")]
ask("Unmount", {"Name": one, "ID": "b"})
removed = [ask("Remove", {"Name": one}), os.path.exists(f"/mnt/shelf/{one}"), ask("Remove", {"Name": one})]
absent = [ask(what, {"Name": one, "ID": "a"}) for what in ("Get", "Path", "Mount", "Unmount", "Remove")]
ask("Create", {"Name": one})
fresh = ask("Get", {"Name": one})["Volume"]["Status"]["mounts"]

def worker(number):
    for turn in range(60):
        ask("Mount", {"Name": two, "ID": f"{number}-{turn}"})
        ask("Create", {"Name": f"n{number}-{turn}"})
        ask("List", {})
        if turn % 2:
            ask("Unmount", {"Name": two, "ID": f"{number}-{turn}"})
        ask("Remove", {"Name": f"n{number}-{turn}"})
threads = [threading.Thread(target=worker, args=(number,)) for number in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
together = [ask("Get", {"Name": two})["Volume"]["Status"]["mounts"], sorted(os.listdir("/mnt/shelf"))]
"""


def the_plugin(plugin):
    """Answers by the table; calls of strangers; uses by ID; six threads at once."""
    bench = Bench(timeout_seconds=8)
    one, two = f"b{random.randrange(10**5):05}", f"a{random.randrange(10**5):05}"
    strange = [
        ["Get", {}], ["Create", {}], ["Create", {"Name": None}], ["Create", {"Name": 7}], ["Create", {"Name": ["x"]}],
        ["Create", {"Name": ".."}], ["Create", {"Name": "../beside"}], ["Create", {"Name": "a/b"}],
        ["Create", {"Name": ""}], ["Create", {"Name": "x"}], ["Create", {"Name": "ab\n"}], ["Remove", {"Name": ".."}],
        ["Remove", {"Name": "."}], ["Mount", {"Name": "nobody", "ID": "a"}], ["Unmount", {}], ["Dance", {"Name": "ab"}],
        ["Plugin.Dance", {}], ["Get", []], ["Get", None],
    ]  # fmt: skip
    wanted = ("fixed", "odd", "beside", "made", "kept", "listed", "path", "uses", "other", "refused", "removed",
              "absent", "fresh", "together")  # fmt: skip
    try:
        values = {"one": one, "two": two, "strange": strange}
        seen = bench.run(ROOM + PLUGIN, definitions=[plugin], values=values, wanted=wanted)
        right = [{"Implements": ["VolumeDriver"]}, {"Capabilities": {"Scope": "local"}}, {"Volumes": []}]
        expect(seen["fixed"] == right, "what it is, and that it has nothing yet", seen["fixed"], right, "the table")
        wrong = [call for call, told in zip(strange, seen["odd"], strict=True) if told != "Err"]
        expect(not wrong, "calls that cannot be answered get an Err", wrong, "Err", "answer, do not raise")
        expect(seen["beside"] == ["beside", "shelf"], "nothing outside of its root", seen["beside"], "", "names")
        expect(seen["made"] == [{}, {}], "Create, twice", seen["made"], [{}, {}], "exist_ok")
        expect(seen["kept"] == ["file"], "one that is there stays as it is", seen["kept"], ["file"], "exist_ok")
        places = {name: {"Name": name, "Mountpoint": f"/mnt/shelf/{name}"} for name in (two, one)}
        right = {"Volumes": list(places.values())}
        expect(seen["listed"] == right, "List, by name", seen["listed"], right, "sorted")
        mounted = {"Mountpoint": f"/mnt/shelf/{one}"}
        expect(seen["path"] == mounted, "Path", seen["path"], mounted, "the table")
        right = [[mounted, 1], [mounted, 2], [mounted, 2], [{}, 2], [{}, 1], [{}, 1]]
        expect(seen["uses"] == right, "uses are IDs, each counted once", seen["uses"], right, "a set")
        right = {"Volume": places[two] | {"Status": {"mounts": 0}}}
        expect(seen["other"] == right, "each volume has its own uses", seen["other"], right, "a set for each")
        expect(seen["refused"] == ["Err", True], "in use, so it stays", seen["refused"], ["Err", True], "uses")
        expect(seen["removed"] == [{}, False, "Err"], "without a use it goes, once", seen["removed"], "", "rmtree")
        expect(seen["absent"] == ["Err"] * 5, "a volume that has gone", seen["absent"], "Err", "no such volume")
        expect(seen["fresh"] == 0, "one that is made anew has no uses", seen["fresh"], 0, "forget them")
        right = [6 * 30, sorted([one, two])]
        expect(seen["together"] == right, "many calls at once", seen["together"], right, "one lock")
    finally:
        bench.close()


ASK = """
import threading, time
never, begun, asked_by = threading.Event(), threading.Event(), []

def hanging(method, asked):
    begun.set()
    return never.wait()

def note(method, asked):
    asked_by.append([method, asked])
    return {"Value": asked.get("N"), "Err": ""}

def raising(method, asked):
    raise KeyError("inside the driver")

def ending(method, asked):
    raise SystemExit(3)

drivers = {"note": note, "hanging": hanging, "raising": raising, "ending": ending,
           "text": lambda method, asked: "a text", "nothing": lambda method, asked: None, "list": lambda *_: [1],
           "refusing": lambda method, asked: {"Err": word}, "empty": lambda method, asked: {}}

def told_by(driver, seconds=0.3, **asked):
    try:
        return ask(drivers, driver, "VolumeDriver.Get", asked, seconds)
    except NotImplementedError:
        raise
    except TimeoutError:
        return "TimeoutError"
    except RuntimeError as error:
        return ["RuntimeError", word in str(error)]
    except LookupError:
        return "LookupError"
    except BaseException as error:
        return type(error).__name__

good, empty = told_by("note", N=number), told_by("empty")
passed = asked_by[-1:]
missing = told_by("cloud")
odd = [told_by(driver) for driver in ("raising", "ending", "text", "nothing", "list")]
refusing = told_by("refusing")
hung = told_by("hanging")
begun.clear()
beside, order = [], []
slow = threading.Thread(target=lambda: (order.append(told_by("hanging", 60)), order.append("slow ended")), daemon=True)
slow.start()
begun.wait(4)
quick = threading.Thread(target=lambda told=beside: told.append(told_by("note", 5, N=number)), daemon=True)
quick.start()
quick.join(4)
still, beside = slow.is_alive(), list(beside)
never.set()
slow.join(4)
late = [slow.is_alive(), order[:1]]
before = threading.active_count()
many = [told_by("note", 5, N=turn) for turn in range(50)]
threads = threading.active_count() - before
"""


def the_ask(ask):
    """Drivers of every bad kind; and a call beside one that hangs."""
    bench = Bench()
    number, word = random.randrange(10**6), f"w{random.getrandbits(40):x}"
    wanted = ("good", "empty", "passed", "missing", "odd", "refusing", "hung", "beside", "still", "late", "many",
              "threads")  # fmt: skip
    try:
        seen = bench.run(ASK, definitions=[ask], values={"number": number, "word": word}, wanted=wanted)
        right = {"Value": number, "Err": ""}
        expect(seen["good"] == right and seen["empty"] == {}, "an answer is given back", seen["good"], right, "return")
        right = [["VolumeDriver.Get", {"N": number}]]
        expect(seen["passed"] == right, "the driver is asked what was asked", seen["passed"], right, "pass it on")
        expect(seen["missing"] == "LookupError", "a driver that nobody has", seen["missing"], "LookupError", "look")
        right = [["RuntimeError", False]] * 5
        expect(seen["odd"] == right, "drivers that raise, end or talk nonsense", seen["odd"], right, "catch, check")
        expect(seen["refusing"] == ["RuntimeError", True], "the driver's own words", seen["refusing"], word, "Err")
        expect(seen["hung"] == "TimeoutError", "one that hangs", seen["hung"], "TimeoutError", "join")
        right = {"Value": number, "Err": ""}
        expect(
            seen["still"] and seen["beside"] == [right], "it costs its own call only", seen["beside"], right, "no lock"
        )
        expect(seen["late"] == [False, [["RuntimeError", False]]], "a late answer counts", seen["late"], "", "join")
        right = [{"Value": turn, "Err": ""} for turn in range(50)]
        expect(seen["many"] == right, "fifty calls", "others", "their own answers", "no shared list")
        expect(seen["threads"] <= 1, "no thread stays", seen["threads"], 0, "one thread a call, and it ends")
    finally:
        bench.close()


CASES = {"ex11-book": the_book, "ex11-copy": the_copy, "ex11-plugin": the_plugin, "ex11-ask": the_ask}
