"""The hidden cases of exercise 09. Instructors keep this file; it is in no release."""

import itertools
import random

from minidocker.build.expansion import Lexer
from minidocker.lab.checks import Bench, expect

TELL = """
def tell(function, *arguments):
    try:
        return ["fine", function(*arguments)]
    except ValueError as error:
        return ["ValueError", str(error)]
    except NotImplementedError:
        raise
    except Exception as error:
        return [type(error).__name__, str(error)]
"""
# Each: the text, and what it means (None: a ValueError whose text holds the word that follows).
FILES = [
    ("from a\nrun x", [(1, "FROM", "a"), (2, "RUN", "x")], ""),
    ("  FROM a\n\t# c\n   RUN   x  y  ", [(1, "FROM", "a"), (3, "RUN", "x  y")], ""),
    (
        "FROM a\nRUN x \\  \n\n   # c\n  y \\\n z\nCMD q",
        [(1, "FROM", "a"), (2, "RUN", "x   y  z"), (7, "CMD", "q")],
        "",
    ),
    ("# escape=`\nFROM a\nRUN c:\\\nRUN x `\n y", [(2, "FROM", "a"), (3, "RUN", "c:\\"), (4, "RUN", "x  y")], ""),
    ("# c\n# escape=`\nFROM a\nRUN x \\\n y", [(3, "FROM", "a"), (4, "RUN", "x  y")], ""),
    ("FROM a\nCMD [1, 2]", [(1, "FROM", "a"), (2, "CMD", "[1, 2]")], ""),
    ("FROM a\nCMD ['x']", [(1, "FROM", "a"), (2, "CMD", "['x']")], ""),
    ("FROM a\nCMD []", [(1, "FROM", "a"), (2, "CMD", [])], ""),
    ('FROM a\nLABEL ["x"]', [(1, "FROM", "a"), (2, "LABEL", '["x"]')], ""),
    ('FROM a\nCOPY ["a b", \\\n "c"]', [(1, "FROM", "a"), (2, "COPY", ["a b", "c"])], ""),
    (
        "ARG V=1\nFROM a:$V\nRUN echo # no comment",
        [(1, "ARG", "V=1"), (2, "FROM", "a:$V"), (3, "RUN", "echo # no comment")],
        "",
    ),
    ("FROM a\nRUN x \\", [(1, "FROM", "a"), (2, "RUN", "x")], ""),
    ("FROM a\n\n\nRUM x", None, "4"),
    ("# only\n\n", None, ""),
    ("\nENV a=b\nFROM x", None, "2"),
]


def parsing(parse):
    """Continued lines with gaps, the directive, lists that are none, errors with their line."""
    bench = Bench()
    try:
        seen = bench.run(
            TELL + "found = [tell(parse, text) for text in texts]",
            definitions=[parse],
            values={"texts": [text for text, _, _ in FILES]},
            wanted=("found",),
        )["found"]
    finally:
        bench.close()
    for (text, expected, word), (kind, found) in zip(FILES, seen, strict=True):
        if expected is None:
            expect(kind == "ValueError" and word in found, f"parse({text!r})", f"{kind}: {found}", "ValueError", "")
        else:
            lines = [tuple(line) for line in found] if kind == "fine" else f"{kind}: {found}"
            expect(lines == expected, f"parse({text!r})", lines, expected, "")


KNOWN = {"A": "one", "B2": "$A", "EMPTY": "", "QUOTED": 'it\'s "q"', "BACK": "a\\b"}
TEXTS = [
    "$A$B2",
    "${A}x",
    "$Ax",
    "$B2",
    "$QUOTED",
    "$BACK",
    "$",
    "a$",
    "$ A",
    "\\\\$A",
    "\\$A",
    "\\${A}",
    "a\\ b",
    '"\\$A"',
    '"\\a"',
    '"\\\\"',
    '"\\""',
    "'\"$A\"'",
    "\"'$A'\"",
    "'a\\'",
    "${EMPTY:-x}",
    "${NO:-a b}",
    "${NO:-$A}",
    "${NO:-${EMPTY:-deep}}",
    "${A:+yes}",
    "${NO:+yes}",
    "${EMPTY:+yes}",
    "${A:+${B2}}",
    "${NO:-'}'}",
    '${NO:-"$A}"}',
    "a'b'\"c\"d",
    "",
    "$A/$A:$EMPTY:",
    "${A:-}",
]
MALFORMED = ["${A", "'a", '"a', "${A:-b", '"$A', "a'b\"c'd\"e'"]
SCOPES = [
    # an ARG before FROM is for FROM alone, unless a stage names it
    (
        [(1, "ARG", "V=1"), (2, "FROM", "a:$V"), (3, "LABEL", "l=$V"), (4, "ARG", "V"), (5, "LABEL", "l=$V")],
        {},
        [
            ("ARG", [("V", "1")]),
            ("FROM", "a:1"),
            ("LABEL", [("l", "")]),
            ("ARG", [("V", "1")]),
            ("LABEL", [("l", "1")]),
        ],
    ),
    # a new stage forgets; what is given needs an ARG
    (
        [
            (1, "FROM", "a"),
            (2, "ENV", "E=1"),
            (3, "ARG", "G=d"),
            (4, "USER", "$E$G"),
            (5, "FROM", "b$E$G"),
            (6, "USER", "$E$G"),
        ],
        {"G": "given", "E": "no"},
        [
            ("FROM", "a"),
            ("ENV", [("E", "1")]),
            ("ARG", [("G", "given")]),
            ("USER", "1given"),
            ("FROM", "b"),
            ("USER", ""),
        ],
    ),
    # ENV wins over ARG, before and after it; values of one line see what was before that line
    (
        [
            (1, "FROM", "a"),
            (2, "ENV", "X=env"),
            (3, "ARG", "X=arg"),
            (4, "USER", "$X"),
            (5, "ENV", "X=new Y=$X"),
            (6, "USER", "$X$Y"),
        ],
        {"X": "given"},
        [
            ("FROM", "a"),
            ("ENV", [("X", "env")]),
            ("ARG", [("X", "given")]),
            ("USER", "env"),
            ("ENV", [("X", "new"), ("Y", "env")]),
            ("USER", "newenv"),
        ],
    ),
    # lists, untouched instructions, quotes, escaped dollars, an ARG without any value
    (
        [
            (1, "FROM", "a"),
            (2, "ENV", "A='$x' B=\"b c\""),
            (3, "COPY", ["$A", "${B}/"]),
            (4, "RUN", "echo $A"),
            (5, "CMD", ["$B"]),
            (6, "WORKDIR", r"\$B/$B"),
            (7, "ARG", "N"),
            (8, "EXPOSE", "${N:-80}"),
        ],
        {},
        [
            ("FROM", "a"),
            ("ENV", [("A", "$x"), ("B", "b c")]),
            ("COPY", ["$x", "b c/"]),
            ("RUN", "echo $A"),
            ("CMD", ["$B"]),
            ("WORKDIR", "$B/b c"),
            ("ARG", [("N", None)]),
            ("EXPOSE", "80"),
        ],
    ),
    # an ARG's default may use an ARG before it, in front of FROM too
    (
        [
            (1, "ARG", "A=1"),
            (2, "ARG", "B=${A}0"),
            (3, "FROM", "x:$B"),
            (4, "ARG", "C=2"),
            (5, "ARG", "D=$C$A"),
            (6, "USER", "$D"),
        ],
        {},
        [
            ("ARG", [("A", "1")]),
            ("ARG", [("B", "10")]),
            ("FROM", "x:10"),
            ("ARG", [("C", "2")]),
            ("ARG", [("D", "2")]),
            ("USER", "2"),
        ],
    ),
]


def expanding(expand, resolve):
    """As the engine's own lexer does; who sees which variable."""
    bench = Bench()
    try:
        seen = bench.run(
            TELL
            + """
values = [tell(expand, text, known) for text in texts]
bad = [tell(expand, text, known) for text in malformed]
scopes = [tell(resolve, steps, given) for steps, given in cases]
""",
            definitions=[expand, resolve],
            values={
                "texts": TEXTS,
                "known": KNOWN,
                "malformed": MALFORMED,
                "cases": [(steps, given) for steps, given, _ in SCOPES],
            },
            wanted=("values", "bad", "scopes"),
        )
    finally:
        bench.close()
    for text, found in zip(TEXTS, seen["values"], strict=True):
        expected = Lexer().word(text, KNOWN)
        expect(found == ["fine", expected], f"expand({text!r})", found, expected, "")
    for text, found in zip(MALFORMED, seen["bad"], strict=True):
        expect(found[0] == "ValueError", f"expand({text!r})", found, "ValueError", "")
    for (steps, _, expected), (kind, found) in zip(SCOPES, seen["scopes"], strict=True):
        done = [(name, _tuples(argument)) for name, argument in found] if kind == "fine" else f"{kind}: {found}"
        expect(done == expected, f"resolve of {[step[1:] for step in steps]}", done, expected, "")


def _tuples(argument):
    """Pairs may come as lists or as tuples."""
    return (
        [tuple(pair) if isinstance(pair, list) else pair for pair in argument]
        if isinstance(argument, list)
        else argument
    )


def _file(name, content=b"x", mode=0o644, mtime=1.0):
    return {"name": name, "content": content, "mode": mode, "mtime": mtime}


# No two of these are the same step.
DIFFERENT = [
    ("p", "t", []),
    ("pt", "", []),
    ("", "pt", []),
    ("p", "t", [_file("a", b"bc")]),
    ("p", "t", [_file("ab", b"c")]),
    ("p", "ta", [_file("", b"bc")]),
    ("p", "t", [_file("a", b"bc", 0o755)]),
    ("p", "t", [_file("a", b"\xff")]),
    ("p", "t", [_file("a", b"\xfe")]),
    ("p", "t", [_file("a", b"b"), _file("c", b"d")]),
    ("p", "t", [_file("a", b"d"), _file("c", b"b")]),
    ("p", "t", [_file("a", b""), _file("bc", b"")]),
    ("p", "t", [_file("a", b"b\nc\0d")]),
    ("p", "t", [_file("a", b"b"), _file("c\0d", b"")]),
    ("p", "t", [_file("\u00e9", b"")]),
    ("p", "t", [_file("e\u0301", b"")]),
]


def keys(cache_key, decide):
    """Different steps have different keys, the same step the same one; nothing is known after the first miss."""
    dice = random.Random()
    files = [_file(f"f{number}", dice.randbytes(20)) for number in range(6)]
    shuffled = [file | {"mtime": dice.random()} for file in dice.sample(files, len(files))]
    steps = [(f"RUN {dice.random()}", []) for _ in range(5)]
    bench = Bench()
    try:
        seen = bench.run(
            """
different = [cache_key(*one) for one in inputs]
one, other = cache_key("p", "COPY . /", files), cache_key("p", "COPY . /", shuffled)
kept = files == before
first = decide("base", steps, set())
known = {key for key, _ in first}
again = decide("base", steps, known)
forgotten = decide("base", steps, known - {first[2][0]})
elsewhere = decide("other", steps, known)
chain = cache_key(cache_key("base", *steps[0]), *steps[1])
""",
            definitions=[cache_key, decide],
            values={"inputs": DIFFERENT, "files": files, "before": files, "shuffled": shuffled, "steps": steps},
            wanted=("different", "one", "other", "kept", "first", "again", "forgotten", "elsewhere", "chain"),
        )
    finally:
        bench.close()
    for (one, its), (two, others) in itertools.combinations(zip(DIFFERENT, seen["different"], strict=True), 2):
        expect(its != others, f"{one} and {two} are different steps", "the same key", "two keys", "")
    expect(seen["one"] == seen["other"], "the order and the times of files", "another key", "the same key", "")
    expect(seen["kept"], "the list of files stays as it is", "it was changed", "unchanged", "")
    expect([verdict for _, verdict in seen["again"]] == ["hit"] * 5, "all known", seen["again"], "hits", "")
    verdicts = [verdict for _, verdict in seen["forgotten"]]
    expect(verdicts == ["hit", "hit", "miss", "miss", "miss"], "after a miss there is no hit", verdicts, "2 hits", "")
    strangers = {verdict for _, verdict in seen["elsewhere"]}
    expect(strangers == {"miss"}, "another base", strangers, "misses", "")
    expect(
        seen["first"][1][0] == seen["chain"],
        "a step's key is the next one's parent",
        seen["first"][1],
        seen["chain"],
        "",
    )


PARENT = {
    "architecture": "arm64",
    "variant": "v8",
    "os": "linux",
    "author": "somebody",
    "org.example.unknown": {"deep": [1]},
    "created": "2001-01-01T00:00:00Z",
    "config": {"Env": ["A=1"], "Labels": {"l": "1"}},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64]},
}


def commits(commit, build, identity):
    """What is not touched is kept, the parent too; a failed step leaves nothing, those before stay."""
    bench = Bench()
    try:
        seen = bench.run(
            """
import copy
before = copy.deepcopy(parent)
config = {"Env": ["A=2"]}
made = commit(parent, config, layer, "RUN x", "now")
made["rootfs"]["diff_ids"].append("changed later")
made["org.example.unknown"]["deep"].append(2)
made["config"]["Env"].append("B=3")
kept, given = parent == before, config == {"Env": ["A=2"]}
clean = commit(parent, config, layer, "RUN x", "now")
empty = commit(commit(parent, config, None, "ENV A=2", "now"), config, None, "CMD x", "later")
calls, images = [], {"base": parent}


def run(id, text):
    calls.append((id, text))
    if text == "bad":
        raise RuntimeError("the command failed")
    return {"Cmd": [text]}, layer if text == "files" else None


try:
    build("base", ["one", "files", "bad", "never"], images, run, "now")
    raised = ""
except RuntimeError as error:
    raised = str(error)
right = all(identity(document) == id for id, document in images.items() if id != "base")
last = images[calls[-1][0]]
untouched = images["base"] == before
""",
            definitions=[commit, build, identity],
            values={"parent": PARENT, "layer": "sha256:" + "2" * 64},
            wanted=("kept", "given", "clean", "empty", "calls", "images", "raised", "right", "last", "untouched"),
        )
    finally:
        bench.close()
    clean, empty, last = seen["clean"], seen["empty"], seen["last"]
    expect(seen["kept"], "the parent stays, whatever becomes of the new image", "it changed", "a copy of all of it", "")
    expect(seen["given"], "the given configuration stays as well", "it changed", "a copy", "")
    others = {name: clean.get(name) for name in PARENT if name not in ("config", "rootfs", "created")}
    expected = {name: PARENT[name] for name in others}
    expect(others == expected, "all other fields are kept", others, expected, "")
    expect(clean.get("created") == "now", "the time of creation is the new one", clean.get("created"), "now", "")
    expect(clean["config"] == {"Env": ["A=2"]}, "the configuration is the given one", clean["config"], "Env", "")
    history = clean["history"]
    expect(len(history) == 1 and "empty_layer" not in history[0], "a step with a layer", history, "no empty_layer", "")
    texts = [(entry.get("created_by"), entry.get("empty_layer"), entry.get("created")) for entry in empty["history"]]
    wanted = [("ENV A=2", True, "now"), ("CMD x", True, "later")]
    expect(texts == wanted, "two steps without a layer", texts, wanted, "")
    expect(empty["rootfs"] == PARENT["rootfs"], "they add no diff ID", empty["rootfs"], PARENT["rootfs"], "")
    expect(seen["raised"] == "the command failed", "the failure comes out", seen["raised"], "the command's error", "")
    expect(
        [text for _, text in seen["calls"]] == ["one", "files", "bad"],
        "nothing is run after it",
        seen["calls"],
        "3 calls",
        "",
    )
    expect(len(seen["images"]) == 3 and seen["right"], "the steps before have left images", len(seen["images"]), 3, "")
    expect(seen["untouched"], "the base is as it was", "changed", "unchanged", "")
    expect(
        len(last["rootfs"]["diff_ids"]) == 2 and last["config"] == {"Cmd": ["files"]},
        "and they can be gone on from",
        last["config"],
        "Cmd",
        "",
    )


CASES = {"ex09-parse": parsing, "ex09-expand": expanding, "ex09-key": keys, "ex09-commit": commits}
