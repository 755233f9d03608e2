"""JSON, against the standard library's."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidocker.client.documents import dumps, indent, loads, scan

VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                      | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_what_goes_out_comes_back(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert json.loads(dumps(value)) == value
    assert loads(json.dumps(value, ensure_ascii=False).encode()) == value


@given(VALUES)
def test_indenting_changes_blanks_only(value: Any) -> None:
    assert json.loads(indent(json.dumps(value))) == value
    if not (isinstance(value, float) and math.isinf(value)):
        assert indent(json.dumps(value)) == json.dumps(value, indent=4)


@pytest.mark.parametrize("text", ["", " ", "{", '{"a":', '"x', "[1,", "tru"])
def test_an_unfinished_document_is_incomplete(text: str) -> None:
    assert scan(text, 0)[1] == -1
    with pytest.raises(ValueError, match="JSON"):
        loads(text)


def test_only_what_json_can_hold_is_written() -> None:
    with pytest.raises(TypeError, match="bytes cannot be written as JSON"):
        dumps({"a": b"x"})
