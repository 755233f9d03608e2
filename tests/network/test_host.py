"""Names of a daemon's things on the host."""

from pathlib import Path

import pytest

from minidocker.errors import InvalidArgument
from minidocker.network.bridge import default_network
from minidocker.network.host import names


def test_the_default_daemon_has_plain_names_and_every_other_a_hash_of_its_exec_root() -> None:
    plain = names(Path("/run/minidocker"))
    assert (plain.bridge, plain.table) == ("minidocker0", "minidocker-minidocker0")
    one, two = names(Path("/run/a")), names(Path("/run/b"))
    assert one == names(Path("/run/../run/a"))
    assert len({one.bridge, two.bridge, "minidocker0"}) == 3
    assert all(len(name.bridge) <= 15 for name in (one, two))


def test_bridge_none_means_no_network_and_bad_flags_are_refused() -> None:
    assert default_network(Path("/run/a"), bridge="none") is None
    with pytest.raises(InvalidArgument, match="at most 15 letters"):
        default_network(Path("/run/a"), bridge="a-name-that-is-long")
    with pytest.raises(InvalidArgument, match="no address with a prefix"):
        default_network(Path("/run/a"), bip="10.0.0.300/24")
