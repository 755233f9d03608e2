"""The examples in the docstrings of the kernel interfaces are true."""

import doctest
import importlib
import pkgutil

import pytest

import minidocker.linux


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(minidocker.linux.__path__)])
def test_the_examples_of_a_module_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"minidocker.linux.{name}"))
    assert result.failed == 0
