"""The hidden cases of exercise 07. Instructors keep this file; it is in no release."""

from minidocker.lab.checks import Bench, expect

ROOM = """
import json, os, resource, signal, time
from minidocker.linux import process as look
from minidocker.linux.mounts import mount
mount("tmpfs", "/mnt", "tmpfs")


def sleeper(name=None):
    if (pid := os.fork()) == 0:
        if name is not None:
            open("/proc/self/comm", "w").write(name)
        while True:
            signal.pause()
    while name is not None and open(f"/proc/{pid}/comm").read() != name + "\\n":
        time.sleep(0.001)
    return pid


def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def state_of(pid):
    try:
        text = open(f"/proc/{pid}/stat").read()
    except OSError:
        return "-"
    return text[text.rindex(")") + 2]


def zombie():
    pid = sleeper()
    began = look.start_time(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid, began


def take_number(pid):
    "A new process with a number that was somebody else's, if this kernel lets us choose (CONFIG_CHECKPOINT_RESTORE)."
    time.sleep(0.03)
    for _ in range(20):
        try:
            open("/proc/sys/kernel/ns_last_pid", "w").write(str(pid - 1))
        except OSError:
            return sleeper()
        if (got := sleeper()) == pid:
            return got
        end(got)
    raise SystemExit("the number was not given out again")


def tell(function, *arguments):
    try:
        return ["fine", function(*arguments)]
    except NotImplementedError:
        raise
    except Exception as error:
        kinds = [kind.__name__ for kind in (LookupError, ValueError, OSError) if isinstance(error, kind)]
        return [(kinds or [type(error).__name__])[0], str(error)]
"""


def _run(code, definitions, wanted, **values):
    bench = Bench()
    try:
        return bench.run(ROOM + code, definitions=definitions, values=values, wanted=wanted)
    finally:
        bench.close()


def living(alive):
    """Zombies, odd names, numbers that are used again."""
    seen = _run(
        """
pid, began = zombie()
dead = [alive(pid, began)]
os.waitpid(pid, 0)
dead.append(alive(pid, began))
named = []
for name in ("a b", "x) Z (y", ") R 1 1"):
    odd = sleeper(name)
    named.append(alive(odd, look.start_time(odd)))
    os.kill(odd, signal.SIGKILL)
    os.waitid(os.P_PID, odd, os.WEXITED | os.WNOWAIT)
    dead.append(alive(odd, look.start_time(odd)))
    os.waitpid(odd, 0)
first = sleeper()
began = look.start_time(first)
end(first)
second = take_number(first)
stranger, itself = alive(second, began), alive(second, look.start_time(second))
never = alive(4_000_000, 1)
""",
        [alive],
        ("dead", "named", "stranger", "itself", "never"),
    )
    expect(seen["dead"][0] is False, "a zombie is not alive", seen["dead"][0], False, "")
    expect(not any(seen["dead"]), "a zombie is not alive, whatever its name", seen["dead"], "never", "")
    expect(seen["named"] == [True] * 3, "names with spaces and parentheses", seen["named"], True, "")
    expect(seen["stranger"] is False, "a stranger that has its number is somebody else", seen["stranger"], False, "")
    expect(seen["itself"] is True, "the stranger itself is alive", seen["itself"], True, "")
    expect(seen["never"] is False, "a number that nobody has", seen["never"], False, "")


def lives(containers):
    """Another engine on the same root; ends that nobody ordered; strangers; crashes in the middle."""
    _transitions(containers)
    _crashes(containers)


def _transitions(containers):
    seen = _run(
        """
first = Containers("/mnt/deep/run")
pids = [sleeper() for _ in range(3)]
for number, pid in enumerate(pids):
    first.create(f"c{number}", pid)
first.start("c1")
second = Containers("/mnt/deep/run")
found = [second.state(f"c{number}") for number in range(3)]
second.start("c2")
shared = first.state("c2")
end(pids[2])
by_itself = second.state("c2")
unstarted = tell(second.kill, "c0", signal.SIGTERM)[0]
os.waitpid(pids[0], 0)
ended = [second.state("c0"), tell(second.start, "c0")[0]]
refused = [tell(second.delete, "c1")[0], second.state("c1"), state_of(pids[1])]
stopping = [tell(second.kill, "c1", signal.SIGSTOP)[0], state_of(pids[1])]
while state_of(pids[1]) not in "T-":
    time.sleep(0.001)
stopping[1] = state_of(pids[1])
second.kill("c1", signal.SIGKILL)
os.waitpid(pids[1], 0)
gone = [tell(second.delete, "c1")[0], tell(first.state, "c1")[0]]
gone += [tell(first.delete, "c1")[0], tell(first.kill, "c1", 9)[0]]
left = os.path.exists("/mnt/deep/run/c1")
fresh = sleeper()
second.create("c1", fresh)
anew = second.state("c1")
bad = {id: tell(second.create, id, fresh)[0] for id in ("../out", "a/b", "", ".hidden", "..")}
bad["look"] = tell(second.state, "../run/c1")[0]
outside = os.path.exists("/mnt/deep/out")
""",
        [containers],
        (
            "found",
            "shared",
            "by_itself",
            "unstarted",
            "ended",
            "refused",
            "stopping",
            "gone",
            "left",
            "anew",
            "bad",
            "outside",
        ),
    )
    right = ["created", "running", "created"]
    expect(seen["found"] == right, "another engine on the same root goes on", seen["found"], right, "")
    expect(seen["shared"] == "running", "what one has started the other sees", seen["shared"], "running", "")
    expect(seen["by_itself"] == "stopped", "a process that ended by itself", seen["by_itself"], "stopped", "")
    expect(seen["unstarted"] == "fine", "kill before start is allowed", seen["unstarted"], "fine", "")
    expect(
        seen["ended"] == ["stopped", "ValueError"], "start after the end is refused", seen["ended"], "ValueError", ""
    )
    right = ["ValueError", "running"]
    unchanged = seen["refused"][:2] == right and seen["refused"][2] in ("S", "R", "D")
    expect(unchanged, "a refused delete changes nothing", seen["refused"], right, "")
    expect(seen["stopping"] == ["fine", "T"], "the signal that was asked for is sent", seen["stopping"], "T", "")
    right = ["fine", *["LookupError"] * 3]
    expect(seen["gone"] == right and not seen["left"], "deleted is deleted", seen["gone"], right, "")
    expect(seen["anew"] == "created", "the id may be used again", seen["anew"], "created", "")
    wrong = {id: kind for id, kind in seen["bad"].items() if kind != "ValueError"}
    expect(not wrong and not seen["outside"], "an id that would leave the directory", wrong, "ValueError", "")


def _crashes(containers):
    seen = _run(
        """
root = "/mnt/run"
containers = Containers(root)
pid = sleeper()
containers.create("old", pid)
containers.start("old")
end(pid)
stranger = take_number(pid)
reused = [containers.state("old"), tell(containers.kill, "old", 9)[0]]
time.sleep(0.05)
spared = state_of(stranger)
dead, _ = zombie()
containers.create("zombie", stranger)
os.kill(stranger, 9)
os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOWAIT)
unreaped = [containers.state("zombie"), tell(containers.delete, "zombie")[0]]
halves = {}
living = sleeper()
for name, content in {"empty": None, "blank": b"", "cut": b'{"pid": 1', "odd": b"\\xff\\xfe"}.items():
    os.makedirs(f"{root}/{name}")
    if content is not None:
        open(f"{root}/{name}/state.json", "wb").write(content)
    halves[name] = [tell(containers.state, name)[0], tell(containers.create, name, living)[0]]
    halves[name].append(tell(containers.state, name)[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (8, resource.RLIM_INFINITY))
full = tell(containers.create, "full", living)[0]
half = tell(Containers(root).state, "full")[0]
containers_start = tell(containers.start, "cut")[0]
kept = tell(Containers(root).state, "cut")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
retried = tell(containers.create, "full", living)[0]
fds = len(os.listdir("/proc/self/fd"))
for _ in range(5):
    containers.kill("full", 0)
leaked = len(os.listdir("/proc/self/fd")) - fds
""",
        [containers],
        ("reused", "spared", "unreaped", "halves", "full", "half", "containers_start", "kept", "retried", "leaked"),
    )
    right = ["stopped", "ValueError"]
    expect(seen["reused"] == right, "a number that somebody else has now", seen["reused"], right, "")
    expect(seen["spared"] in ("S", "R", "D"), "the stranger is not hit", seen["spared"], "alive", "")
    expect(seen["unreaped"] == ["stopped", "fine"], "a zombie has stopped", seen["unreaped"], "stopped", "")
    right = ["LookupError", "fine", "created"]
    wrong = {name: kinds for name, kinds in seen["halves"].items() if kinds != right}
    expect(not wrong, "what a crash in create has left is no container", wrong, right, "")
    expect(seen["full"] == "OSError", "a note that cannot be written is an error", seen["full"], "OSError", "")
    expect(seen["half"] == "LookupError", "half a note does not exist", seen["half"], "LookupError", "")
    expect(
        seen["kept"] == ["fine", "created"], "a failed change leaves the old note whole", seen["kept"], "created", ""
    )
    expect(seen["retried"] == "fine", "the next create goes well", seen["retried"], "fine", "")
    expect(seen["leaked"] == 0, "no descriptor is left open", seen["leaked"], 0, "")


# ---------------------------------------------------------------- config.json

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KINDS = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
NONE = {"Entrypoint": None, "Cmd": None, "Env": None, "WorkingDir": ""}
ARGUMENTS = [
    ({"Cmd": ["sh"]}, {}, ["sh"]),
    ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"command": []}, ["e"]),
    ({"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": [], "command": ["x", "y z"]}, ["x", "y z"]),
    ({"Entrypoint": ["e", "1"], "Cmd": ["c"]}, {"entrypoint": ["f"], "command": None}, ["f"]),
    (NONE, {"command": ["only", "this"]}, ["only", "this"]),
    ({"Entrypoint": ["e"], "Cmd": None}, {"entrypoint": None}, ["e"]),
]
NOTHING = [(NONE, {}), ({"Cmd": ["c"]}, {"entrypoint": []}), ({"Cmd": ["c"]}, {"command": []})]
VARIABLES = [
    (["A=1=2", "B="], ["B=x=y"], {PATH, "A=1=2", "B=x=y"}),
    (["A=1", "B=2"], ["A"], {PATH, "B=2"}),
    (["PATH=/own"], [], {"PATH=/own"}),
    ([], ["PATH", "NEVER"], set()),
    (None, None, {PATH}),
    (["A=1", "A=2"], ["A", "A=3"], {PATH, "A=3"}),
]


def configuration(generate):
    """Commands, environments, what is missing or None, and what nobody asked for."""
    seen = _run(
        """
argued = [generate(image, options, "r")["process"]["args"] for image, options in arguments]
nothing = [tell(generate, image, options, "r")[0] for image, options in empty]
variables = [generate({"Cmd": ["x"], "Env": one}, {"env": two}, "r")["process"]["env"] for one, two in environments]
wishes = {"hostname": "h", "host": ["network", "uts"], "memory_bytes": 1 << 25}
one = generate({"Cmd": ["x"], "WorkingDir": "/srv"}, wishes, "/a/b")
two = generate({"Cmd": ["y"]}, {"working_dir": "/w", "read_only": True}, "rootfs")
three = generate({"Cmd": ["z"], "WorkingDir": "/srv"}, {"working_dir": "/w"}, "rootfs")
unknown = [tell(generate, {"Cmd": ["x"]}, {"host": [name]}, "r")[0] for name in ("PID", "net", "user", "")]
given = [{"Cmd": ["x"], "Env": ["A=1"], "Entrypoint": ["e"]}, {"command": ["y"], "env": ["B=2"], "host": ["ipc"]}]
before = json.dumps(given)
generate(*given, "r")
untouched = json.dumps(given) == before
""",
        [generate],
        ("argued", "nothing", "variables", "one", "two", "three", "unknown", "untouched"),
        arguments=[case[:2] for case in ARGUMENTS],
        empty=NOTHING,
        environments=[case[:2] for case in VARIABLES],
    )
    for (image, options, right), args in zip(ARGUMENTS, seen["argued"], strict=True):
        expect(args == right, f"the command of {image} with {options}", args, right, "")
    expect(set(seen["nothing"]) == {"ValueError"}, "nothing to run is an error", seen["nothing"], "ValueError", "")
    for (_, _, right), env in zip(VARIABLES, seen["variables"], strict=True):
        expect(set(env) == right and len(env) == len(right), "the environment", env, right, "")
    _whole(seen)
    expect(set(seen["unknown"]) == {"ValueError"}, "a misspelt namespace is refused", seen["unknown"], "ValueError", "")
    expect(seen["untouched"], "the arguments are left as they were", "changed", "unchanged", "")


def _whole(seen):
    one, two, three = seen["one"], seen["two"], seen["three"]
    cwds = [each["process"]["cwd"] for each in (one, two, three)]
    expect(cwds == ["/srv", "/w", "/w"], "the working directory", cwds, "/srv, /w, /w", "")
    roots = [{"path": "/a/b", "readonly": False}, {"path": "rootfs", "readonly": True}]
    expect([one["root"], two["root"]] == roots, "the root", [one["root"], two["root"]], roots, "")
    expect((one["hostname"], two["hostname"]) == ("h", "minidocker"), "the hostname", one["hostname"], "h", "")
    kinds = [sorted(entry["type"] for entry in each["linux"]["namespaces"]) for each in (one, two)]
    right = [sorted(set(KINDS) - {"network", "uts"}), sorted(KINDS)]
    expect(kinds == right, "new namespaces, all that are not the host's", kinds, right, "")
    limits = [each["linux"].get("resources", {}).get("memory", {}).get("limit") for each in (one, two)]
    expect(limits == [1 << 25, None], "a memory limit only where one is asked for", limits, "one, none", "")
    kept = [
        bool(each["mounts"] and each["process"]["capabilities"] and each["linux"]["maskedPaths"]) for each in (one, two)
    ]
    expect(kept == [True, True], "the rest is as base_config has it", "something is missing", "all of it", "")


CASES = {"ex07-alive": living, "ex07-life": lives, "ex07-config": configuration}
