"""Typed JSON, read by several threads at once."""

import subprocess
import sys

import msgspec
import pytest

from minidocker import typed

# Structs that nobody has used yet, each with the one before it inside; eight threads read the same one at once.
FIRST_USES = r"""
import sys, threading, types
sys.setswitchinterval(1e-6)
import msgspec
from minidocker import typed

SOURCE = "import msgspec\n" + "".join(
    f"class S{depth}(msgspec.Struct):\n" + "".join(f"    f{n}: 'int | None' = None\n" for n in range(10))
    + f"    inner: 'S{depth - 1} | None' = None\n" * (depth > 0)
    for depth in range(6)
)
TEXT = b'{"f1": 1, "inner": {"f2": 2, "inner": {"f3": 3}}}'
barrier = threading.Barrier(8)
for number in range(100):
    module = sys.modules[f"m{number}"] = types.ModuleType(f"m{number}")
    exec(SOURCE, module.__dict__)

    def read():
        barrier.wait()
        for depth in range(5, -1, -1):
            kind = getattr(module, f"S{depth}")
            READ

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("survived")
"""


def test_eight_threads_may_read_a_type_for_the_first_time_at_once() -> None:
    code = FIRST_USES.replace("READ", """typed.decode(TEXT, kind)""")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "survived\n", (done.returncode, done.stderr)


def test_a_type_has_one_decoder() -> None:
    assert typed.decoder(dict[str, int]) is typed.decoder(dict[str, int])
    assert typed.decode(b'{"a": 1}', dict[str, int]) == {"a": 1}


class _Inner(msgspec.Struct):
    name: str = "default"
    flag: bool | None = None


class _Outer(msgspec.Struct):
    parts: list[_Inner] = []
    named: dict[str, _Inner] = {}
    count: int = 7
    kept: dict[str, str | None] = {}


def test_null_is_not_said_where_a_type_has_none() -> None:
    raw = {"parts": [{"name": None, "flag": None}, None, {"name": "x"}], "named": {"a": {"name": None}, "b.c": None},
           "count": None, "kept": {"k": None}}
    assert typed.convert_loosely(raw, _Outer) == _Outer(
        parts=[_Inner(), _Inner("x")], named={"a": _Inner()}, count=7, kept={"k": None}
    )
    with pytest.raises(msgspec.ValidationError, match="Expected `int`, got `str`"):
        typed.convert_loosely({**raw, "count": "7"}, _Outer)
