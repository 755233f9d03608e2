"""Dockerfile instructions on an image's configuration: outcomes recorded from dockerd 20.10."""

import pytest

from minidocker.build import changes
from minidocker.errors import InvalidArgument
from minidocker.oci.image_config import ExecutionConfig, Healthcheck

BASE = ExecutionConfig(cmd=["sh"], env=["A=1"], working_dir="/root", labels={"x": "y"}, exposed_ports={"80/tcp": {}})


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('CMD ["x", "y"]', "cmd", ["x", "y"]),
        ("CMD echo $A", "cmd", ["/bin/sh", "-c", "echo $A"]),
        ("CMD []", "cmd", []),
        ("CMD", "cmd", ["/bin/sh", "-c"]),
        ("ENTRYPOINT", "entrypoint", None),
        ("ENTRYPOINT /bin/foo bar", "entrypoint", ["/bin/sh", "-c", "/bin/foo bar"]),
        ('ENTRYPOINT ["a"]', "cmd", None),
        ('ENV B=2 C="d e" D=$A', "env", ["A=1", "B=2", "C=d e", "D=1"]),
        ("env low=1", "env", ["A=1", "low=1"]),
        ("ENV A=2", "env", ["A=2"]),
        ("ENV old style value", "env", ["A=1", "old=style value"]),
        ("ENV x='a b' y=${B:-q} z=${B:+w} w=${A:+w}", "env", ["A=1", "x=a b", "y=q", "z=", "w=w"]),
        ("ENV e=a\\ b d=\\$A", "env", ["A=1", "e=a b", "d=$A"]),
        ('LABEL l=m "q r"=s', "labels", {"x": "y", "l": "m", "q r": "s"}),
        ('LABEL a="b" \\\n  c=d', "labels", {"x": "y", "a": "b", "c": "d"}),
        ("EXPOSE 81/udp 90-91", "exposed_ports", {"80/tcp": {}, "81/udp": {}, "90/tcp": {}, "91/tcp": {}}),
        ('VOLUME /data "/d2"', "volumes", {"/data": {}, "/d2": {}}),
        ('VOLUME ["/j"]', "volumes", {"/j": {}}),
        ("VOLUME $A /x$A", "volumes", {"1": {}, "/x1": {}}),
        ("USER student", "user", "student"),
        ("WORKDIR sub/..//x", "working_dir", "/root/x"),
        ("WORKDIR /abs", "working_dir", "/abs"),
        ("ONBUILD RUN echo hi", "on_build", ["RUN echo hi"]),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ("HEALTHCHECK NONE", "healthcheck", Healthcheck(test=["NONE"])),
        ("HEALTHCHECK --interval=1m5s --retries=2 CMD true", "healthcheck",
         Healthcheck(test=["CMD-SHELL", "true"], interval=65 * 10**9, retries=2)),
        ("# a comment\nUSER a", "user", "a"),
    ],
)  # fmt: skip
def test_an_instruction_changes_its_field(line: str, field: str, value: object) -> None:
    assert getattr(changes.apply(BASE, [line]), field) == value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("RUN x", "run is not a valid change command"),
        ("COPY a b", "copy is not a valid change command"),
        ("FROM x", "from is not a valid change command"),
        ("NOPE", "nope is not a valid change command"),
        ("", "file with no instructions"),
        ("# c", "file with no instructions"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("ENV =1", "ENV names can not be blank"),
        ("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value"),
        ('ENV A="x', 'failed to process "\\"x": unexpected end of statement while looking for matching double-quote'),
        ("ENV A=${B:~x}", "unsupported modifier"),
        ("ENV A=${B", "missing"),
        ("LABEL a", "LABEL must have two arguments"),
        ("USER", "USER requires exactly one argument"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ('VOLUME ""', "VOLUME specified can not be an empty string"),
        ("ONBUILD ONBUILD x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("EXPOSE abc", "abc"),
        ("EXPOSE 70000", "70000"),
        ("STOPSIGNAL nosuch", "nosuch"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK FOO", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --interval=x CMD true", "invalid duration"),
        ("HEALTHCHECK --nosuch=1 CMD true", "Unknown flag: nosuch"),
    ],
)
def test_what_may_not_stand_there_is_refused_with_the_reason(line: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        changes.apply(BASE, [line])
    assert words in str(caught.value)


def test_an_entrypoint_keeps_a_command_that_is_given_with_it() -> None:
    changed = changes.apply(BASE, ['CMD ["x"]', 'ENTRYPOINT ["a"]'])
    assert (changed.entrypoint, changed.cmd) == (["a"], ["x"])


def test_without_changes_nothing_changes() -> None:
    assert changes.apply(BASE, []) is BASE
