"""A child that takes one step at a time."""

import os
from pathlib import Path

import pytest

from minidocker.lab.props.stepwise import StepRaised, Stepwise


def _raise(error: Exception) -> None:
    raise error


def test_a_child_takes_one_step_at_each_go_and_is_gone_afterwards(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Stepwise(lambda: os.chdir(tmp_path), lambda: os.chdir("/")) as child:
        place = f"/proc/{child.pid}/cwd"
        assert os.readlink(place) == os.getcwd()
        child.go()
        assert os.readlink(place) == str(tmp_path)
        child.go()
        assert os.readlink(place) == "/"
    assert not os.path.exists(place)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_a_step_raises_is_told() -> None:
    with Stepwise(lambda: _raise(ValueError("a reason")), lambda: _raise(NotImplementedError())) as child:
        with pytest.raises(StepRaised, match="ValueError: a reason"):
            child.go()
        with pytest.raises(NotImplementedError):
            child.go()
    with Stepwise(lambda: os._exit(3)) as child, pytest.raises(StepRaised, match="ended in the middle"):
        child.go()
