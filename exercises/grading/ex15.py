"""The hidden cases of exercise 15, the capstone. Instructors keep this file; it is in no release."""

import hashlib
import json
import random

from minidocker.build import dockerfile
from minidocker.lab.checks import Bench, expect


def _digest(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def recipe(recipe):
    """Any version, in page and label; nothing of the kitchen but the page gets into the second stage."""
    bench = Bench()
    try:
        version = f"{random.randrange(10, 99)}-rc.{random.randrange(10)}"
        lines = dockerfile.parse(bench.call(recipe, version).value.encode()).lines
    finally:
        bench.close()
    begins = [number for number, line in enumerate(lines) if line.name == "FROM"]
    expect(len(begins) == 2, "two stages", len(begins), 2, "")
    first, last = lines[: begins[1]], lines[begins[1] :]
    begun = first[begins[0]].rest.lower().split()
    expect(begun == ["busybox", "as", "kitchen"], "the kitchen", begun, "busybox AS kitchen", "")
    expect(last[0].rest.lower().split()[0] == "busybox", "the second stage", last[0].rest, "busybox", "")
    made = " ".join(line.original for line in first if line.name == "RUN")
    for word in (f"shop {version}", "/shop/page", "/shop/notes"):
        expect(word in made, "the kitchen makes page and notes", made, word, "")
    copied = [(line.flags, line.rest.split()) for line in last if line.name in ("COPY", "ADD")]
    wanted = [(("--from=kitchen",), ["/shop/page", "/page"])]
    expect(copied == wanted, "the page, and nothing else, is taken from the kitchen", copied, wanted, "")
    labels = [line.rest.replace('"', "").split() for line in last if line.name == "LABEL"]
    expect([f"version={version}"] in labels, "the label tells the version", labels, version, "")
    commands = [dockerfile.json_words(line.rest) for line in last if line.name == "CMD"]
    expect(commands == [["sleep", "600"]], "process 1 is sleep", commands, "sleep 600", "")


PIN = """
asked = []


def ask(repository, tag):
    asked.append([repository, tag])
    if (repository, tag) not in known:
        raise LookupError(f"{repository}:{tag} is not there")
    return known[repository, tag]


before = repr(plan)
pinned = pin(plan, ask)
same = repr(plan) == before
try:
    pin({"web": {"image": "registry.test/gone:1"}}, ask)
    gone = "nothing"
except LookupError:
    gone = "LookupError"
"""


def pin(pin):
    """Ports, paths, names without a host, digests that are there, shared images, and a tag that is not."""
    bench = Bench()
    one, two, three = (_digest(random.randbytes(8)) for _ in range(3))
    plan = {
        "web": {"image": "registry.test:5000/a/shop:1.2", "replicas": 2, "command": ["x:y"]},
        "till": {"image": "registry.test:5000/a/shop:1.2", "replicas": 1},
        "store": {"image": "registry.test:5000/a/shop"},
        "mail": {"image": "postfix"},
        "fixed": {"image": f"registry.test:5000/a/shop@{three}"},
        "both": {"image": f"registry.test:5000/a/shop:1.2@{three}"},
    }
    known = {
        ("registry.test:5000/a/shop", "1.2"): one,
        ("registry.test:5000/a/shop", "latest"): two,
        ("postfix", "latest"): two,
    }
    try:
        seen = bench.run(
            PIN, definitions=[pin], values={"plan": plan, "known": known}, wanted=("asked", "pinned", "same", "gone")
        )
    finally:
        bench.close()
    wanted = {name: dict(service) for name, service in plan.items()}
    wanted["web"]["image"] = wanted["till"]["image"] = f"registry.test:5000/a/shop@{one}"
    wanted["store"]["image"], wanted["mail"]["image"] = f"registry.test:5000/a/shop@{two}", f"postfix@{two}"
    for name, service in wanted.items():
        found = seen["pinned"].get(name)
        expect(found == service, "each image by its digest, all else as it was", found, service, "")
    expect(len(seen["asked"]) == 4, "each image is asked for once, a pinned one never", seen["asked"], "four", "")
    expect(seen["same"], "the given plan stays as it is", "it was changed", "untouched", "")
    expect(seen["gone"] == "LookupError", "the caller hears of a tag that is not there", seen["gone"], "an error", "")


DAMAGED = """
looked = []


def read(digest):
    looked.append(digest)
    return blobs.get(digest)


found = damaged(digest, read)
"""


def damaged(damaged):
    """An index with shared layers, blobs that look like manifests, changed manifests that are not believed."""
    bench = Bench()
    blobs, gone = {}, _digest(random.randbytes(8))

    def keep(content):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        blobs[_digest(content)] = content
        return {"digest": _digest(content), "size": len(content)}

    def ask(digest, changed):
        values = {"digest": digest, "blobs": blobs | changed}
        seen = bench.run(DAMAGED, definitions=[damaged], values=values, wanted=("found", "looked"))
        expect(len(set(seen["looked"])) == len(seen["looked"]), "each digest is read once", seen["looked"], "once", "")
        return [tuple(one) for one in seen["found"]], seen["looked"]

    def manifest(*layers):
        config = keep({"os": "linux", "salt": random.random(), "layers": [{"digest": gone}]})
        return keep({"config": config, "layers": list(layers)}), config["digest"]

    try:
        shared, sly = keep(random.randbytes(50)), keep({"config": {"digest": gone}, "layers": [], "manifests": []})
        own = keep(random.randbytes(50))
        (first, config), (other, other_config) = manifest(shared, own, sly), manifest(shared)
        index = keep({"manifests": [first, other]})["digest"]
        found, looked = ask(index, {})
        expect(found == [], "a whole index", found, [], "")
        order = [index, first["digest"], config, shared["digest"], own["digest"], sly["digest"], other["digest"]]
        expect(looked == [*order, other_config], "depth first", looked, order, "")
        expect(gone not in looked, "a blob is only a blob", looked, "not looked at", "")
        found, _ = ask(index, {shared["digest"]: b"short", other_config: None})
        wanted = [(shared["digest"], "changed"), (other_config, "missing")]
        expect(found == wanted, "two damages, one of them shared", found, wanted, "")
        evil = json.dumps({"config": {"digest": gone}, "layers": []}).encode()
        found, looked = ask(index, {first["digest"]: evil})
        expect(found == [(first["digest"], "changed")], "a changed manifest is not believed", found, "it alone", "")
        expect(own["digest"] not in looked and gone not in looked, "what it names is not looked at", looked, "not", "")
        same_size = bytearray(blobs[own["digest"]])
        same_size[0] ^= 1
        found, _ = ask(first["digest"], {own["digest"]: bytes(same_size)})
        expect(found == [(own["digest"], "changed")], "one bit", found, "changed", "")
    finally:
        bench.close()


def _one(name, image="s@d", running=True):
    return {"name": name, "service": name.rpartition("-")[0], "image": image, "running": running}


def _node(*found, usable=True):
    return {"usable": usable, "found": list(found)}


def step(next_actions):
    """Stopped ones, numbers above nine, several services, no usable node, and random clusters that come to rest."""
    bench = Bench()

    def ask(plan, nodes):
        return [tuple(action) for action in bench.call(next_actions, plan, nodes).value]

    def look(concept, plan, nodes, wanted):
        found = ask(plan, nodes)
        expect(found == wanted, concept, found, wanted, "")

    api = {"api": {"image": "s@d", "replicas": 1}}
    try:
        twice = [("remove", "a", "api-1"), ("start", "a", "api-1")]
        look("a stopped one is made anew", api, {"a": _node(_one("api-1", running=False))}, twice)
        stopped = {"a": _node(_one("api-1", running=False)), "b": _node(_one("api-1"))}
        look("a stopped one does not keep a good one out", api, stopped, [("remove", "a", "api-1")])
        drained = {"a": _node(_one("api-1"), usable=False), "b": _node(_one("api-1"))}
        look("nor does one on a drained node", api, drained, [("remove", "a", "api-1")])
        alone = {"a": _node(_one("api-1"), _one("old-1"), usable=False), "b": None}
        look("the last shop is not closed", api, alone, [])
        many = {"a": _node(*(_one(f"api-{number}") for number in (1, 2, 10, 11)))}
        ten = {"api": {"image": "s@d", "replicas": 10}}
        started = [("start", "a", f"api-{number}") for number in range(3, 10)]
        look("numbers, not letters", ten, many, [("remove", "a", "api-11"), *started])
        look("no longer in the plan", {}, {"a": _node(_one("x-1"))}, [("remove", "a", "x-1")])
        none = {"api": {"image": "s@d", "replicas": 0}}
        look("no replicas at all", none, {"a": _node(_one("api-1"))}, [("remove", "a", "api-1")])
        long = {"till-front": {"image": "s@d", "replicas": 1}}
        look("a service with a dash", long, {"a": _node(_one("till-front-1"))}, [])
        for _ in range(6):
            _comes_to_rest(ask)
    finally:
        bench.close()


def _comes_to_rest(ask):
    plan = {name: {"image": random.choice(["s@d", "s@e"]), "replicas": random.randrange(5)} for name in ("api", "web")}
    nodes = {"a": _random_node(True), "b": None, "c": _random_node(True), "d": _random_node(False)}
    for kind, node, name in ask(plan, nodes):
        expect(nodes[node] is not None, "a node that does not answer is left alone", node, "no action", "")
        found = nodes[node]["found"]
        if kind == "remove":
            found[:] = [one for one in found if one["name"] != name]
        else:
            expect(all(one["name"] != name for one in found), "a name is free before it is used", name, "removed", "")
            found.append(_one(name, plan[name.rpartition("-")[0]]["image"]))
    names = sorted(one["name"] for state in nodes.values() if state for one in state["found"])
    wanted = sorted(f"{name}-{number + 1}" for name, one in plan.items() for number in range(one["replicas"]))
    expect(names == wanted, "what is wanted, each once", names, wanted, "")
    again = ask(plan, nodes)
    expect(again == [] and not nodes["d"]["found"], "a second step has nothing to do", again, [], "")


def _random_node(usable):
    every = [f"{name}-{number}" for name in ("api", "web", "old") for number in range(1, 6)]
    images, running = ["s@d", "s@d", "s@e"], [True, True, False]
    names = random.sample(every, 6)
    return _node(*(_one(name, random.choice(images), random.choice(running)) for name in names), usable=usable)


CASES = {"ex15-recipe": recipe, "ex15-pin": pin, "ex15-damaged": damaged, "ex15-next": step}
