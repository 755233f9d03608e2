"""Boxes are network namespaces that can be wired up: an answer comes exactly when all of the way is there."""

from collections.abc import Iterator

import pytest

from minidocker.lab.isolated import Isolation
from minidocker.lab.props.boxes import describe

needs_root = pytest.mark.needs_root
pytest.importorskip("IPython", reason="needs the notebooks: pip install minidocker[notebooks]")

WORLD = """
from minidocker.lab.props.boxes import Box, Capture, ask, ping
from minidocker.linux import netlink
import os
box, other = Box(), Box()
netlink.create_bridge("br0", "10.1.0.1/24", "02:42:00:00:00:01", 1500)
box.plug("veth2", "10.1.0.2/24", bridge="br0")
other.plug("veth3", "10.1.0.3/24", bridge="br0", gateway="10.1.0.1")
"""


@pytest.fixture
def isolation() -> Iterator[Isolation]:
    made = Isolation()
    yield made
    made.close()


@needs_root
def test_a_ping_tells_an_answer_from_silence_and_from_no_route(isolation: Isolation) -> None:
    code = WORLD + 'told = [box.ping(f"10.1.0.{n}") for n in (3, 1, 9)] + [box.ping("10.2.0.1"), ping("10.1.0.2")]'
    told = isolation.run(code, wanted=("told",))["told"]
    assert told == ["answered", "answered", "no answer", "Network is unreachable", "answered"]


@needs_root
def test_what_is_done_in_a_box_is_done_in_its_network_and_only_there(isolation: Isolation) -> None:
    code = (
        WORLD
        + """
home = os.readlink("/proc/self/ns/net")
with box:
    inside, links = os.readlink("/proc/self/ns/net"), sorted(link.name for link in netlink.links())
after, outer = os.readlink("/proc/self/ns/net"), os.readlink(f"/proc/{box.pid}/ns/net")
outside = sorted(link.name for link in netlink.links())
"""
    )
    seen = isolation.run(code, wanted=("home", "inside", "links", "after", "outer", "outside"))
    assert seen["inside"] == seen["outer"] != seen["home"] == seen["after"]
    assert seen["links"] == ["eth0", "lo"] and seen["outside"] == ["br0", "lo", "veth2", "veth3"]


@needs_root
def test_a_server_tells_whom_it_sees_and_a_capture_hears_it(isolation: Isolation) -> None:
    code = (
        WORLD
        + """
box.serve(80)
with other:
    wire = Capture("eth0")
told = [other.ask("10.1.0.2", 80), other.ask("10.1.0.2", 81), ask("10.1.0.2", 80), other.ask("10.1.0.9", 80)]
heard = wire.lines()
nothing = wire.lines()
wire.close()
"""
    )
    seen = isolation.run(code, wanted=("told", "heard", "nothing"))
    assert seen["told"] == ["10.1.0.3", "Connection refused", "10.1.0.1", "no answer"]
    assert any(line.startswith("10.1.0.3:") and line.endswith("> 10.1.0.2:80 TCP") for line in seen["heard"])
    assert seen["nothing"] == []


@needs_root
def test_a_plug_in_no_bridge_and_one_with_a_gateway(isolation: Isolation) -> None:
    code = (
        WORLD
        + """
lone = Box()
lone.plug("cable", "203.0.113.9/24")
netlink.add_address("cable", "203.0.113.1/24")
masters = {link.name: link.master for link in netlink.links()}
plugged = [masters["cable"], masters["veth2"] == netlink.link_index("br0")]
told = [lone.ping("203.0.113.1"), other.ping("203.0.113.1"), box.ping("203.0.113.1")]
"""
    )
    seen = isolation.run(code, wanted=("plugged", "told"))
    assert seen == {"plugged": [0, True], "told": ["answered", "answered", "Network is unreachable"]}


def test_packets_are_told_in_words() -> None:
    def packet(protocol: int, rest: str) -> bytes:
        return bytes.fromhex(f"4500001c0000000040{protocol:02x}00000102030405060708{rest}")

    assert describe(packet(1, "0000")) == "1.2.3.4 > 5.6.7.8 echo reply"
    assert describe(packet(17, "00351f90")) == "1.2.3.4:53 > 5.6.7.8:8080 UDP"
    assert describe(packet(2, "")) == "1.2.3.4 > 5.6.7.8 protocol 2"
