"""The hidden cases of exercise 14. Instructors keep this file; it is in no release."""

import random

from minidocker.lab.checks import Bench, expect

TELL = """
def tell(function, *arguments):
    try:
        return ["fine", function(*arguments)]
    except NotImplementedError:
        raise
    except Exception as error:
        return [type(error).__name__, str(error)]
"""


def order(up_order):
    """Random graphs; circles are named whole and alone, also where a way leads into them."""
    bench = Bench()
    try:
        names = [f"s{number}" for number in range(8)]
        random.shuffle(names)
        services = {name: random.sample(names[:at], min(at, random.randrange(3))) for at, name in enumerate(names)}
        found = bench.call(up_order, services).value
        expect(found == _expected(services), "a larger file", found, _expected(services), "alphabet among the ready")
        expect(bench.call(up_order, {}).value == [], "an empty file", "something", [], "return a list")
        code = TELL + "circle = tell(up_order, circles)\nunknown = tell(up_order, {'web': ['database']})"
        circles = {"alpha": ["beta"], "beta": ["gamma"], "gamma": ["beta"], "delta": []}
        seen = bench.run(code, definitions=[up_order], values={"circles": circles}, wanted=("circle", "unknown"))
        kind, text = seen["circle"]
        named = {name for name in circles if name in text}
        expect(
            kind == "ValueError" and named == {"beta", "gamma"}, "the circle alone is named", text, "beta, gamma", ""
        )
        kind, text = seen["unknown"]
        good = kind in ("LookupError", "KeyError") and "web" in text and "database" in text
        expect(good, "both names of an unknown dependency", seen["unknown"], "web, database", "")
        alone = bench.run(TELL + "seen = tell(up_order, {'a': ['a']})", definitions=[up_order], wanted=("seen",))[
            "seen"
        ]
        expect(alone[0] == "ValueError", "a service that depends on itself", alone, "ValueError", "")
    finally:
        bench.close()


def _expected(services):
    order = []
    while len(order) < len(services):
        ready = [name for name in services if name not in order and set(services[name]) <= set(order)]
        order.append(min(ready))
    return order


ROLL_BACK = """
said = []


def start(name):
    said.append(("start", name))
    if name == failing:
        raise failure("it failed")


def stop(name):
    said.append(("stop", name))
    if name == stubborn:
        raise OSError("it does not stop")


def attempt(failure_):
    global failure
    said.clear()
    failure = failure_
    try:
        bring_up(["a", "b", "c", "d"], start, stop)
        return ["nothing", list(said)]
    except BaseException as error:
        return [type(error).__name__, list(said)]


ordinary = attempt(RuntimeError)
interrupt = attempt(KeyboardInterrupt)
failing = ""
well = attempt(RuntimeError)
"""


def up(bring_up):
    """A stop that fails, an interrupt, and the case in which all is well."""
    bench = Bench()
    try:
        seen = bench.run(
            ROLL_BACK,
            definitions=[bring_up],
            values={"failing": "d", "stubborn": "b"},
            wanted=("ordinary", "interrupt", "well"),
        )
        tried = [("start", name) for name in "abcd"] + [("stop", name) for name in "cba"]
        for case, kind in (("ordinary", "RuntimeError"), ("interrupt", "KeyboardInterrupt")):
            found, said = seen[case]
            expect(found == kind, "the same error reaches the caller", found, kind, "")
            expect([tuple(one) for one in said] == tried, "all that were started are stopped", said, tried, "")
        found, said = seen["well"]
        expect(found == "nothing" and len(said) == 4, "nothing is stopped where all is well", said, "four starts", "")
    finally:
        bench.close()


def _replica(name, digest="d", state="running", restarts=0, ended=0.0):
    service = name.rpartition("-")[0]
    return {
        "name": name, "service": service, "digest": digest, "state": state, "restarts": restarts, "ended": ended
    }  # fmt: skip


def step(next_actions):
    """Back-off, numbers above nine, gaps, zero replicas, changed services alone, and that it comes to rest."""
    bench = Bench()

    def ask(desired, found, now=1000.0):
        return [tuple(action) for action in bench.call(next_actions, desired, found, now).value]

    try:
        two = {"api": {"replicas": 2, "digest": "d"}}
        for restarts, ended, wanted in (
            (6, 994.0, []),  # 6.4 seconds
            (6, 993.0, [("restart", "api-1")]),
            (30, 941.0, []),  # a minute at most
            (30, 940.0, [("restart", "api-1")]),
        ):
            crashed = _replica("api-1", state="exited", restarts=restarts, ended=ended)
            found = ask(two, [crashed, _replica("api-2")])
            expect(found == wanted, "a crash loop waits, and is not replaced", found, wanted, "")
        many = [_replica(f"api-{number}") for number in range(1, 13)]
        found = ask({"api": {"replicas": 10, "digest": "d"}}, many)
        expect(found == [("remove", "api-11"), ("remove", "api-12")], "numbers, not letters", found, "11 and 12", "")
        found = ask({"api": {"replicas": 3, "digest": "d"}}, [_replica("api-2")])
        expect(found == [("start", "api-1"), ("start", "api-3")], "gaps are filled", found, "api-1, api-3", "")
        found = ask({"api": {"replicas": 0, "digest": "d"}}, [_replica("api-1")])
        expect(found == [("remove", "api-1")], "no replicas at all", found, "remove api-1", "")
        both = {"api": {"replicas": 1, "digest": "new"}, "db-main": {"replicas": 1, "digest": "d"}}
        found = ask(both, [_replica("api-1"), _replica("db-main-1")])
        expect(found == [("remove", "api-1"), ("start", "api-1")], "only what has changed", found, "api alone", "")
        _comes_to_rest(ask)
    finally:
        bench.close()


def _comes_to_rest(ask):
    desired = {
        name: {"replicas": random.randrange(4), "digest": random.choice("xy")} for name in ("a", "b", "c")
    }  # fmt: skip
    found = [
        _replica(f"{name}-{number}", digest=random.choice("xy"), state=random.choice(["running", "exited"]))
        for name in ("a", "b", "d")
        for number in range(1, 5)
    ]
    for kind, name in ask(desired, found):
        found = [one for one in found if one["name"] != name]
        if kind != "remove":
            found.append(_replica(name, digest=desired[name.rpartition("-")[0]]["digest"]))
    again = ask(desired, found)
    expect(again == [], "a second step has nothing to do", again, [], "")


CASES = {"ex14-order": order, "ex14-up": up, "ex14-step": step}
