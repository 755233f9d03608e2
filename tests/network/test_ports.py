"""What -p means, and host ports as sockets (on loopback, with ports of the kernel's choice)."""

import socket
from collections.abc import Iterator

import pytest

from minidocker.errors import InvalidArgument
from minidocker.network.ports import HostPorts, PortBinding, PortUnavailable, ephemeral_range, parse_binding

HERE = "127.0.0.1"


@pytest.fixture
def ports() -> Iterator[HostPorts]:
    held = HostPorts()
    yield held
    held.close()


def free_port() -> int:
    with socket.create_server((HERE, 0)) as server:
        return int(server.getsockname()[1])


def one(port: int, protocol: str = "tcp") -> PortBinding:
    return PortBinding(80, protocol, HERE, (port, port))


def test_the_apis_bindings_are_read() -> None:
    assert parse_binding("80/tcp", "", "8080") == PortBinding(80, "tcp", "0.0.0.0", (8080, 8080))
    assert parse_binding("53/UDP", HERE, "5000-5009") == PortBinding(53, "udp", HERE, (5000, 5009))
    assert parse_binding("80", "", "") == parse_binding("80/tcp", "0.0.0.0", "0") == PortBinding(80)


@pytest.mark.parametrize(
    ("port", "address", "host_port", "error"),
    [
        ("80/dccp", "", "", InvalidArgument),
        ("80/icmp", "", "", InvalidArgument),
        ("0/tcp", "", "", InvalidArgument),
        ("65536", "", "", InvalidArgument),
        ("80", "fd00::g", "8080", InvalidArgument),
        ("80", "localhost", "8080", InvalidArgument),
        ("80", "", "9000-8000", InvalidArgument),
        ("80", "", "x", InvalidArgument),
        ("80", "", "-1", InvalidArgument),
    ],
)
def test_what_cannot_be_published_is_refused_with_the_reason(
    port: str, address: str, host_port: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        parse_binding(port, address, host_port)


def test_a_reserved_port_cannot_be_bound_by_anyone_until_released(ports: HostPorts) -> None:
    port = free_port()
    ports.reserve("web", [one(port)])
    with pytest.raises(PortUnavailable, match=f"Bind for {HERE}:{port} failed: port is already allocated"):
        ports.reserve("late", [one(port)])
    with pytest.raises(OSError):
        socket.create_server((HERE, port))  # with SO_REUSEADDR, as servers do
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, port), 5)
    ports.release("web")
    socket.create_server((HERE, port)).close()


def test_tcp_and_udp_of_one_number_are_two_ports(ports: HostPorts) -> None:
    port = free_port()
    assert [p.protocol for p in ports.reserve("web", [one(port), one(port, "udp")])] == ["tcp", "udp"]


def test_the_port_of_another_program_is_refused(ports: HostPorts) -> None:
    with socket.create_server((HERE, 0)) as server, pytest.raises(PortUnavailable, match="already allocated"):
        ports.reserve("web", [one(server.getsockname()[1])])


def test_a_port_in_time_wait_is_still_usable(ports: HostPorts) -> None:
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection((HERE, port))
        accepted, _ = server.accept()
        accepted.close()  # the server's side closes first and keeps TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    with socket.socket() as strict, pytest.raises(OSError):
        strict.bind((HERE, port))
    assert ports.reserve("web", [one(port)])[0].host_port == port


def test_all_or_none_is_reserved(ports: HostPorts) -> None:
    free = free_port()
    with socket.create_server((HERE, 0)) as server, pytest.raises(PortUnavailable):
        ports.reserve("web", [one(free), one(server.getsockname()[1])])
    assert ports.reserve("web", [one(free)])[0].host_port == free


def test_a_range_gives_its_first_free_port_and_no_range_an_ephemeral_one(ports: HostPorts) -> None:
    with socket.create_server((HERE, 0)) as server:
        taken = server.getsockname()[1]
        (chosen,) = ports.reserve("web", [PortBinding(80, "tcp", HERE, (taken, taken + 20))])
        assert taken < chosen.host_port <= taken + 20
    first, last = ephemeral_range()
    bound = ports.reserve("other", [PortBinding(80, "tcp", HERE), PortBinding(81, "tcp", HERE)])
    assert all(first <= port.host_port <= last for port in bound)
    assert bound[0].host_port != bound[1].host_port


def test_an_address_that_is_not_the_hosts_is_named(ports: HostPorts) -> None:
    with pytest.raises(PortUnavailable, match=r"listen tcp4 192\.0\.2\.99:8080: bind: cannot assign requested address"):
        ports.reserve("web", [PortBinding(80, "tcp", "192.0.2.99", (8080, 8080))])


def test_a_port_is_held_on_both_families_and_handed_over_in_part(ports: HostPorts) -> None:
    port = free_port()
    bound = ports.reserve("web", [PortBinding(80, "tcp", "127.0.0.1", (port, port), also="::1")])
    assert [(one.host_address, one.host_port) for one in bound] == [("127.0.0.1", port), ("::1", port)]
    with pytest.raises(PortUnavailable, match=rf"Bind for \[::1\]:{port} failed: port is already allocated"):
        ports.reserve("late", [PortBinding(80, "tcp", "::1", (port, port))])
    ports.hand_over("web", "heir", [one for one in bound if one.family == "ip"])
    ports.release("web")
    with pytest.raises(OSError):
        socket.create_server(("127.0.0.1", port))
    ports.reserve("late", [PortBinding(80, "tcp", "::1", (port, port))])


def test_one_number_is_chosen_that_is_free_on_both_families(ports: HostPorts) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        taken = server.getsockname()[1]
        wish = PortBinding(80, "tcp", "127.0.0.1", (taken, taken + 20), also="::1")
        bound = ports.reserve("web", [wish])
    assert len({one.host_port for one in bound}) == 1 and bound[0].host_port != taken


def test_sctp_ports_of_one_number_clash_though_the_kernel_has_no_such_sockets(ports: HostPorts) -> None:
    ports.reserve("web", [PortBinding(80, "sctp", "0.0.0.0", (8080, 8080))])
    ports.reserve("web", [PortBinding(80, "sctp", "::", (8080, 8080))])
    with pytest.raises(PortUnavailable, match=r"Bind for 127\.0\.0\.1:8080 failed: port is already allocated"):
        ports.reserve("late", [PortBinding(80, "sctp", "127.0.0.1", (8080, 8080))])
    ports.release("web")
    ports.reserve("late", [PortBinding(80, "sctp", "127.0.0.1", (8080, 8080))])
