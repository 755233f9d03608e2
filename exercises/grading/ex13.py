"""The hidden cases of exercise 13. Instructors keep this file; it is in no release."""

import random

from minidocker.lab.checks import Bench, expect

ANSWERS = """
import json, re, sys, threading, time
api = Api()
busybox = json.dumps({"Image": "busybox"}).encode()


def ask(method, path, body=b""):
    status, document = api.handle(method, path, body)
    fine = document is None if status == 204 else isinstance(document, (dict, list))
    told = status < 400 or (isinstance(document, dict) and isinstance(document.get("message"), str))
    return status if fine and told else f"{status} with {document!r}"


statuses = [ask(*one) for one in asked]
"""

IDS = """
made = [api.handle("POST", f"/containers/create?name=n{number}", busybox)[1]["Id"] for number in range(40)]
shared = next(prefix for prefix in "0123456789abcdef" if sum(id.startswith(prefix) for id in made) > 1)
ambiguous = ask("GET", f"/containers/{shared}/json")
exact = made[0][:6]
api.handle("POST", f"/containers/create?name={exact}", busybox)
by_name = api.handle("GET", f"/containers/{exact}/json")[1]["Name"]
whole = api.handle("GET", f"/containers/{made[3]}/json")[1]["Name"]
removed = [ask("DELETE", f"/containers/{made[3]}"), *(ask("GET", f"/containers/{name}/json") for name in ("n3", "n4"))]
free_again = ask("POST", "/containers/create?name=n3", busybox)
unnamed = [api.handle("POST", "/containers/create", busybox)[1]["Id"] for _ in range(3)]
names = [api.handle("GET", f"/containers/{id}/json")[1]["Name"] for id in unnamed]
default = api.handle("GET", f"/containers/{unnamed[0]}/json")[1]["Config"]
distinct = len({*made, *unnamed})
"""

# All threads go through the learner's lines side by side: what is done in two steps is done by all at the same time.
CROWD = """
def step(frame, event, argument):
    if frame.f_code.co_filename != Api.handle.__code__.co_filename:
        return None
    time.sleep(0.001)
    return step


outcomes = []
for round in range(5):
    answers, ready = [], threading.Barrier(8)

    def create():
        ready.wait()
        answers.append(api.handle("POST", f"/containers/create?name=crowd{round}", busybox)[0])

    threading.settrace(step)
    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    threading.settrace(None)
    outcomes.append(sorted(answers))
"""


def the_api(api):
    """Statuses of everything a client may send; names and IDs; eight clients that want the same name at once."""
    bench = Bench(timeout_seconds=20.0)
    word = f"w{random.getrandbits(32):x}"
    fine = b'{"Image": "busybox", "Cmd": ["a"], "HostConfig": {"Unheard": [1]}, "%s": null}' % word.encode()
    cases = [
        ("a field that nobody knows is ignored", ("POST", f"/containers/create?name={word}", fine), 201),
        ("the oldest version", ("GET", f"/v1.24/containers/{word}/json"), 200),
        ("the newest version", ("GET", f"/v1.44/containers/{word}/json"), 200),
        ("a version that is too old", ("GET", f"/v1.23/containers/{word}/json"), 400),
        ("a version that is too new", ("GET", "/v1.45/nowhere"), 400),
        ("versions are numbers, not texts", ("GET", f"/v1.9/containers/{word}/json"), 400),
        ("another major version", ("GET", f"/v2.30/containers/{word}/json"), 400),
        ("a method that this path does not have", ("POST", f"/containers/{word}"), 404),
        ("create is no container", ("GET", "/containers/create"), 404),
        ("a longer path", ("GET", f"/containers/{word}/json/more"), 404),
        ("no such container", ("DELETE", f"/containers/{word}x"), 404),
        ("no JSON", ("POST", "/containers/create?name=xx", b"{"), 400),
        ("no text at all", ("POST", "/containers/create?name=xx", b"\xff\xfe"), 400),
        ("a JSON value that is no object", ("POST", "/containers/create?name=xx", b"null"), 400),
        ("an image that is no text", ("POST", "/containers/create?name=xx", b'{"Image": 5}'), 400),
        ("an image without a name", ("POST", "/containers/create?name=xx", b'{"Image": ""}'), 400),
        ("a command that is no list", ("POST", "/containers/create?name=xx", b'{"Image": "a", "Cmd": "b"}'), 400),
        ("a command of numbers", ("POST", "/containers/create?name=xx", b'{"Image": "a", "Cmd": [1]}'), 400),
        ("a name of one letter", ("POST", "/containers/create?name=x", b'{"Image": "a"}'), 400),
        ("a name that begins with a dot", ("POST", "/containers/create?name=.xx", b'{"Image": "a"}'), 400),
        ("a name with a newline", ("POST", "/containers/create?name=xx%0A", b'{"Image": "a"}'), 400),
        ("a name with a slash", ("POST", "/containers/create?name=x%2Fx", b'{"Image": "a"}'), 400),
        ("what was refused was not made", ("GET", "/containers/xx/json"), 404),
        ("a taken name", ("POST", f"/v1.30/containers/create?name={word}", fine), 409),
    ]
    try:
        found = bench.run(
            ANSWERS, definitions=[api], values={"asked": [one for _, one, _ in cases]}, wanted=("statuses",)
        )["statuses"]
        for (concept, _, right), status in zip(cases, found, strict=True):
            expect(status == right, concept, status, right, "see the table")
        wanted = (
            "made", "ambiguous", "by_name", "exact", "whole", "removed", "free_again", "names", "default", "distinct"
        )  # fmt: skip
        seen = bench.run(ANSWERS + IDS, definitions=[api], values={"asked": []}, wanted=wanted)
        expect(seen["distinct"] == 43, "IDs are random", seen["distinct"], 43, "secrets")
        expect(seen["ambiguous"] == 400, "a beginning of several IDs", seen["ambiguous"], 400, "count them")
        expect(seen["by_name"] == f"/{seen['exact']}", "a whole name comes first", seen["by_name"], "it", "names first")
        expect(seen["whole"] == "/n3", "the whole ID", seen["whole"], "/n3", "compare IDs")
        expect(seen["removed"] == [204, 404, 200], "only one is removed", seen["removed"], "204 404 200", "del")
        expect(seen["free_again"] == 201, "its name is free again", seen["free_again"], 201, "forget it")
        names = seen["names"]
        expect(len(set(names)) == 3 and all(len(name) > 2 for name in names), "names are made up", names, "three", "x")
        expect(seen["default"] == {"Image": "busybox", "Cmd": []}, "no command", seen["default"], "[]", "a default")
        crowd = bench.run(ANSWERS + CROWD, definitions=[api], values={"asked": []}, wanted=("outcomes",))["outcomes"]
        expect(crowd == [[201] + [409] * 7] * 5, "one name for eight clients at once", crowd, "one 201", "a lock")
    finally:
        bench.close()


FRAMES = """
def joined(parts):
    found = {}
    for stream, payload in parts:
        found[stream] = found.get(stream, b"") + payload
    return found


def order(parts):
    merged = []
    for stream, payload in parts:
        if not payload:
            return "an empty part"
        if merged and merged[-1][0] == stream:
            merged[-1] = (stream, merged[-1][1] + payload)
        else:
            merged.append((stream, payload))
    return merged


def refused(work):
    try:
        work()
    except ValueError:
        return True
    return False


results = []
for cuts in cuttings:
    one, parts, held = Demultiplexer(), [], []
    begin = 0
    for end in [*cuts, len(wire)]:
        parts += one.feed(wire[begin:end])
        held.append(sum(len(payload) for _, payload in parts))
        begin = end
    one.finish()
    results.append((order(parts), held))
middle = []
for end in ends:
    one = Demultiplexer()
    one.feed(wire[:end])
    middle.append(refused(one.finish))
two = Demultiplexer(), Demultiplexer()
two[0].feed(wire[:3])
apart = order(two[1].feed(wire))
bad = [refused(lambda: Demultiplexer().feed(head)) for head in heads]
late = Demultiplexer()
late.feed(wire + b"\\x07\\0\\0")
late_bad = refused(lambda: late.feed(b"\\0\\0\\0\\0\\x01x"))
"""


def the_frames(demultiplexer):
    """Random frames, cut anywhere; nothing held back; what is no frame; ends in the middle."""
    bench = Bench()
    sizes = [0, 1, 7, 8, 9, 300, 70_000, 0, random.randrange(10, 60)]
    random.shuffle(sizes)
    frames = [(random.choice([1, 2, 2, 3, 0]), random.randbytes(size)) for size in sizes]
    wire, given = b"", [0]  # given: payload bytes that have come with each byte of the wire
    for stream, payload in frames:
        wire += bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload
        given += [given[-1]] * 8 + list(range(given[-1] + 1, given[-1] + 1 + len(payload)))
    merged = []
    for stream, payload in frames:
        if payload and merged and merged[-1][0] == stream:
            merged[-1] = (stream, merged[-1][1] + payload)
        elif payload:
            merged.append((stream, payload))
    anywhere = [sorted(random.sample(range(1, len(wire)), 200)) for _ in range(3)]
    cuttings = [[], list(range(1, 2000)), *anywhere, list(range(5, len(wire), 4096))]
    begin, boundaries = 0, {0}
    for _, payload in frames:
        begin += 8 + len(payload)
        boundaries.add(begin)
    ends = random.sample(range(1, len(wire)), 40) + sorted(boundaries)
    heads = [b"\x04\0\0\0\0\0\0\x01x", b"\x01\0\1\0\0\0\0\x01x", b"GET / HTTP", b"\xff" * 8]
    wanted = ("results", "middle", "apart", "bad", "late_bad")
    try:
        seen = bench.run(
            FRAMES,
            definitions=[demultiplexer],
            values={"wire": wire, "cuttings": cuttings, "ends": ends, "heads": heads},
            wanted=wanted,
        )
        for cuts, (parts, held) in zip(cuttings, seen["results"], strict=True):
            concept = "frames cut anywhere" if cuts else "frames all at once"
            expect(parts == merged, concept, "other bytes or streams", "what was sent", "keep what is not used up")
            right = [given[end] for end in [*cuts, len(wire)]]
            expect(held == right, "nothing is held back", "less than has come", "all that has come", "give parts")
        right = [end not in boundaries for end in ends]
        expect(seen["middle"] == right, "an end in the middle is told, another is not", "not so", "so", "finish")
        expect(seen["apart"] == merged, "two of them do not disturb each other", "they do", "apart", "use self")
        expect(seen["bad"] == [True] * 4, "what is no frame is refused", seen["bad"], "ValueError", "the header")
        expect(seen["late_bad"], "also when its header is cut", "taken", "ValueError", "look when all eight are there")
    finally:
        bench.close()


ROOM = """
import hashlib, json, os, signal
from minidocker.linux import process
from minidocker.linux.mounts import mount
mount("tmpfs", "/mnt", "tmpfs")


def sleeper():
    if (pid := os.fork()) == 0:
        while True:
            signal.pause()
    return pid


def record(name, state=None, exit=None):
    os.makedirs(f"/mnt/{name}", exist_ok=True)
    for file, document in (("state.json", state), ("exit.json", exit)):
        if document is not None:
            text = document if isinstance(document, str) else json.dumps(document)
            open(f"/mnt/{name}/{file}", "w").write(text)


def prints():
    found = []
    for place, folders, files in os.walk("/mnt"):
        for name in sorted(files):
            path = os.path.join(place, name)
            found.append((path, os.path.islink(path), os.lstat(path).st_mtime_ns, os.lstat(path).st_size))
    return sorted(found)


lives, zombie, other = sleeper(), sleeper(), sleeper()
times = {pid: process.start_time(pid) for pid in (lives, zombie, other)}
os.kill(zombie, signal.SIGKILL)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
begun = {"pid": lives, "start_time": times[lives]}
half = json.dumps(begun)[:-4]
record(tag + "runs", begun)
record(tag + "zombie", {"pid": zombie, "start_time": times[zombie]})
record(tag + "reused", {"pid": other, "start_time": times[other] + 50})
record(tag + "told", begun, {"code": code})  # its number is somebody else's now
record(tag + "zero", {"pid": 4_000_000, "start_time": 1}, {"code": 0})
record(tag + "half", half)
record(tag + "empty", "", "")
record(tag + "exit-cut", begun, '{"co')
record(tag + "exit-cut-dead", {"pid": 4_000_000, "start_time": 1}, '{"code": ')
record(tag + "list", "[1, 2]")
record(tag + "no-state", None, {"code": 3})
open("/mnt/lock", "w").write("x")
os.symlink(f"/mnt/{tag}runs", "/mnt/link")
before, fds = prints(), len(os.listdir("/proc/self/fd"))
found = find_again("/mnt")
unchanged = prints() == before
left = len(os.listdir("/proc/self/fd")) - fds
there = [os.path.exists(f"/proc/{pid}") for pid in (lives, other, zombie)]
right = {
    tag + "runs": ("running", lives), tag + "zombie": ("exited", 137), tag + "reused": ("exited", 137),
    tag + "told": ("exited", code), tag + "zero": ("exited", 0), tag + "half": ("created", 0),
    tag + "empty": ("created", 0), tag + "exit-cut": ("running", lives), tag + "exit-cut-dead": ("exited", 137),
    tag + "list": ("created", 0), tag + "no-state": ("exited", 3),
}
"""
IDEAS = {
    "runs": "a process that runs",
    "zombie": "a zombie is not alive",
    "reused": "a number that somebody else has now",
    "told": "the exit's file is the last word",
    "zero": "status 0 is a status",
    "half": "a record that ends in the middle",
    "empty": "files that are empty",
    "exit-cut": "an exit that ends in the middle, of a process that runs",
    "exit-cut-dead": "an exit that ends in the middle, of one that is gone",
    "list": "a record of another form",
    "no-state": "an exit without a record of the start",
}


def the_return(find_again):
    """Processes that run, are zombies or have another's number; files that a crash has cut; nothing is touched."""
    bench = Bench()
    values = {"tag": f"{random.getrandbits(32):08x}", "code": random.randrange(1, 120)}
    try:
        wanted = ("found", "right", "unchanged", "left", "there")
        seen = bench.run(ROOM, definitions=[find_again], values=values, wanted=wanted)
        for name, idea in IDEAS.items():
            observed = seen["found"].get(values["tag"] + name)
            right = seen["right"][values["tag"] + name]
            expect(observed is not None and tuple(observed) == right, idea, observed, right, "see the table")
        expect(len(seen["found"]) == len(IDEAS), "files and links are passed over", len(seen["found"]), 11, "is_dir")
        expect(seen["unchanged"], "nothing is written", "something", "nothing", "only look")
        expect(seen["there"] == [True] * 3, "nobody is killed or reaped", seen["there"], "all there", "only look")
        expect(seen["left"] == 0, "no descriptor is left open", seen["left"], 0, "close files")
    finally:
        bench.close()


CASES = {"ex13-api": the_api, "ex13-frames": the_frames, "ex13-again": the_return}
