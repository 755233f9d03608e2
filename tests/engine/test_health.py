"""What results of probes lead to; how long to wait for the next."""

import pytest

from minidocker.engine.containers.config import ContainerConfig, Healthcheck
from minidocker.engine.containers.defaults import merge_image
from minidocker.engine.containers.health import Health, Result, command_of, next_delay_seconds
from minidocker.oci.image_config import ExecutionConfig
from minidocker.oci.image_config import Healthcheck as ImageHealthcheck

SECOND = 1_000_000_000


def after(codes: list[int], *, retries: int = 3, counts: bool = True) -> Health:
    health = Health()
    for code in codes:
        health.take(Result("a", "b", code, ""), retries=retries, counts=counts)
    return health


def test_it_takes_several_failures_in_a_row_to_be_unhealthy() -> None:
    assert (after([1, 1]).status, after([1, 1]).failing_streak) == ("starting", 2)
    assert after([1, 1, 1]).status == "unhealthy"
    assert after([0, 1, 1, 0, 1, 1]).status == "healthy"
    assert (after([1, 1, 1, 0]).status, after([1, 1, 1, 0]).failing_streak) == ("healthy", 0)
    assert after([-1], retries=1).status == "unhealthy"


def test_failures_within_the_start_period_count_only_after_a_success() -> None:
    assert (after([1] * 9, counts=False).status, after([1] * 9, counts=False).failing_streak) == ("starting", 0)
    assert after([0, 1, 1, 1], counts=False).status == "unhealthy"


def test_words_of_the_list() -> None:
    assert [after(codes).words for codes in ([], [0], [1, 1, 1])] == ["health: starting", "healthy", "unhealthy"]


def test_the_start_interval_holds_within_the_start_period_until_it_is_healthy() -> None:
    check = Healthcheck(interval=60 * SECOND, start_period=10 * SECOND, start_interval=2 * SECOND)
    assert next_delay_seconds(check, "starting", 5 * SECOND) == 2
    assert next_delay_seconds(check, "healthy", 5 * SECOND) == 60
    assert next_delay_seconds(check, "starting", 15 * SECOND) == 60
    assert next_delay_seconds(Healthcheck(), "starting", 0) == 30
    assert next_delay_seconds(Healthcheck(start_period=SECOND), "starting", 0) == 5


@pytest.mark.parametrize(
    ("test", "shell", "command"),
    [
        (["CMD", "a", "b c"], None, ["a", "b c"]),
        (["CMD-SHELL", "a b"], None, ["/bin/sh", "-c", "a b"]),
        (["CMD-SHELL", "a b"], ["/bin/ash", "-ec"], ["/bin/ash", "-ec", "a b"]),
        (["NONE"], None, None),
        ([], None, None),
        (None, None, None),
    ],
)
def test_commands(test: list[str] | None, shell: list[str] | None, command: list[str] | None) -> None:
    assert command_of(ContainerConfig(healthcheck=Healthcheck(test=test), shell=shell)) == command


def test_an_image_fills_in_what_the_request_leaves_open() -> None:
    image = ExecutionConfig(cmd=["sh"], healthcheck=ImageHealthcheck(test=["CMD", "x"], interval=5, retries=7))
    assert merge_image(ContainerConfig(), image).healthcheck == Healthcheck(test=["CMD", "x"], interval=5, retries=7)
    asked = ContainerConfig(healthcheck=Healthcheck(interval=9))
    assert merge_image(asked, image).healthcheck == Healthcheck(test=["CMD", "x"], interval=9, retries=7)
    off = ContainerConfig(healthcheck=Healthcheck(test=["NONE"]))
    assert command_of(merge_image(off, image)) is None
