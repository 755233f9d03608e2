"""The examples in the docstrings of the builder are true."""

import doctest
import importlib
import pkgutil

import pytest

import minidocker.build


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(minidocker.build.__path__)])
def test_the_examples_of_a_module_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"minidocker.build.{name}"))
    assert result.failed == 0
