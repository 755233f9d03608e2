"""Records of any content, as a full disk or a bent machine may leave them: read as none, and nobody is harmed."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidocker.errors import MinidockerError
from minidocker.linux.cgroups import Cgroup
from minidocker.runtime import records
from minidocker.storage import records as durable

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                    max_leaves=6)  # fmt: skip
STATE: dict[str, Any] = {"id": "a", "pid": 1, "start_time": 1, "monitor_pid": 1, "monitor_start_time": 1,
                         "cgroup": "/x"}  # fmt: skip
EXIT: dict[str, Any] = {"code": 0, "signal": None, "oom_killed": False, "finished_at": "2026-01-01T00:00:00Z"}


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    document = dict(draw(st.sampled_from([STATE, EXIT])))
    for name in draw(st.lists(st.sampled_from(sorted(document)), max_size=3)):
        if draw(st.booleans()):
            document.pop(name, None)
        else:
            document[name] = draw(JSON | st.sampled_from([-1, 1 << 31, 1 << 70, "/", "/..", "../..", "\0"]))
    content = json.dumps(document).encode()
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=60) | bent())
@example(b'{"x":' + b"[" * 100_000)
@example(b'{"id":"\xff"}')
@example(b"\0" * 4096)
def test_any_file_is_a_record_or_none(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.json"
        path.write_bytes(content)
        for kind in (records.State, records.Exit):
            found = records.read(path, kind)
            assert found is None or isinstance(found, kind)
            try:
                durable.read(path, kind)
            except MinidockerError as error:
                str(error).encode("utf-8", "surrogateescape")


@settings(max_examples=500, deadline=None)
@given(st.integers() | st.sampled_from([0, -1, 1 << 31, 1 << 63, 1 << 64]), st.integers())
def test_any_pid_of_a_record_is_a_process_or_none(pid: int, start_time: int) -> None:
    assert records.open_process(pid, start_time) is None  # no process started at such a time


@pytest.mark.parametrize("path", ["", "/", "//", "/..", "/../x", "x", "/a/../..", "/a b", "/a\n", "/.", "/a//b"])
def test_a_bent_record_never_names_all_groups_of_the_machine(path: str) -> None:
    with pytest.raises(MinidockerError):
        Cgroup.open(path)
