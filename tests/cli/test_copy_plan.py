"""Where `cp` puts what, as docker's command decides it."""

import pytest

from minidocker.cli import copy_plan
from minidocker.cli.copy_plan import End, land
from minidocker.cli.session import CommandFailure

FILE, TREE = End("/s/name", exists=True), End("/s/name", exists=True, is_directory=True)
CONTENTS = End("/s/name/.", exists=True, is_directory=True)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (FILE, End("/t", exists=True, is_directory=True), ("/t", "", "")),
        (FILE, End("/t/new"), ("/t", "name", "new")),
        (FILE, End("/t/old", exists=True), ("/t", "name", "old")),
        (TREE, End("/t/new"), ("/t", "name", "new")),
        (TREE, End("/t/new/"), ("/t", "name", "new")),
        (CONTENTS, End("/t/new"), ("/t", ".", "new")),
        (CONTENTS, End("/t", exists=True, is_directory=True), ("/t", "", "")),
    ],
)
def test_a_copy_lands_where_docker_puts_it(source: End, target: End, expected: tuple[str, str, str]) -> None:
    assert land(source, target) == expected


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (TREE, End("/t/file", exists=True), "cannot copy directory"),
        (CONTENTS, End("/t/file", exists=True), "cannot copy directory"),
        (FILE, End("/t/new/"), "no such directory"),
        (FILE, End("/t/new/."), "no such directory"),
    ],
)
def test_a_copy_that_cannot_be_is_refused(source: End, target: End, words: str) -> None:
    with pytest.raises(CommandFailure, match=words):
        land(source, target)


def test_a_followed_link_keeps_its_own_name() -> None:
    assert copy_plan.kept_ending("/a/link", "/x/dir") == ("/x/dir", "link")
    assert copy_plan.kept_ending("/a/link/", "/x/dir") == ("/x/dir/", "link")
    assert copy_plan.kept_ending("/a/link/.", "/x/dir") == ("/x/dir/.", "")
    assert copy_plan.kept_ending("/a/same", "/x/same") == ("/x/same", "")


def test_only_the_first_component_is_renamed() -> None:
    assert copy_plan.renamed("name/name/x", "name", "new") == "new/name/x"
    assert copy_plan.renamed("./a", ".", "new") == "new/a"
    assert copy_plan.renamed("/etc/x", "/", "new") == "new/etc/x"
    assert copy_plan.renamed("a", "", "new") == "a"
