"""References: the familiar and the full form, and what is refused."""

import pytest

from minidocker.errors import InvalidArgument
from minidocker.oci.reference import Reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("typed", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:v1", "localhost:5000/a/b:v1", "localhost:5000/a/b:v1"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest", "127.0.0.1:5000/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        (f"busybox@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}", f"busybox@sha256:{HEX}"),
        (f"busybox:1@sha256:{HEX}", f"docker.io/library/busybox:1@sha256:{HEX}", f"busybox:1@sha256:{HEX}"),
        ("library/x/y", "docker.io/library/x/y:latest", "library/x/y:latest"),
        ("a__b/c-d.e_f", "docker.io/a__b/c-d.e_f:latest", "a__b/c-d.e_f:latest"),
    ],
)
def test_a_reference_has_a_full_and_a_familiar_form(typed: str, full: str, familiar: str) -> None:
    reference = Reference.parse(typed)
    assert (str(reference), reference.familiar) == (full, familiar)
    assert Reference.parse(full) == reference == Reference.parse(familiar)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "Busybox",
        "a//b",
        "/a",
        "a/",
        "a:",
        "a:b:c",
        "a@sha256:1",
        "a@md5:" + HEX,
        "-a",
        "a_-b",
        "a" * 256,
        HEX,
        "a:" + "t" * 129,
        "a b",
        "a\n",
        "../a",
        "a/../b",
        "localhost:port/x",
    ],
)
def test_what_is_no_reference_is_refused(typed: str) -> None:
    with pytest.raises(InvalidArgument):
        Reference.parse(typed)
