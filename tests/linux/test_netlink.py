"""Links and addresses by our messages, compared with what `ip` and the kernel say."""

import ctypes
import errno
import json
import os
import subprocess
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from minidocker.errors import KernelError
from minidocker.linux import netlink

_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def apart(work: Callable[[], None]) -> None:
    """Run in a forked process with a network namespace of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            assert _libc.unshare(_NEWNET) == 0
            work()
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        problem = pipe.read()
    os.waitpid(pid, 0)
    assert not problem, problem


def ip(*words: str) -> Any:
    return json.loads(subprocess.run(["ip", "-j", "-d", *words], capture_output=True, text=True, check=True).stdout)


def other_namespace(work: Callable[[], None]) -> tuple[int, Callable[[], None]]:
    """A process in one more namespace; the second value lets it work, and waits for it."""
    ready, born = os.pipe()
    start, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert _libc.unshare(_NEWNET) == 0
            os.write(born, b"x")
            os.read(start, 1)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.read(ready, 1)

    def run() -> None:
        os.write(go, b"x")
        assert os.waitpid(pid, 0)[1] == 0

    return pid, run


PLAN = {
    "interfaces": [
        {
            "name": "eth0",
            "mac": "02:42:ac:1f:00:02",
            "mtu": 1400,
            "addresses": ["172.31.0.2/24"],
            "gateway": "172.31.0.1",
        }
    ]
}


def test_a_pair_is_made_and_configured_as_ip_shows_it() -> None:
    def inside() -> None:
        netlink.configure_interfaces(PLAN)
        (eth0,) = ip("address", "show", "eth0")
        assert (eth0["address"], eth0["mtu"], eth0["operstate"]) == ("02:42:ac:1f:00:02", 1400, "UP")
        assert [(a["local"], a["prefixlen"], a["broadcast"]) for a in eth0["addr_info"]] == [
            ("172.31.0.2", 24, "172.31.0.255")  # and no fe80:: address
        ]
        assert "UP" in ip("link", "show", "lo")[0]["flags"]
        assert [(r["gateway"], r["dev"]) for r in ip("route", "show", "default")] == [("172.31.0.1", "eth0")]

    def outside() -> None:
        index = netlink.create_bridge("bridge9", "172.31.0.1/24", "02:42:00:00:00:09", 1400, "a mark")
        pid, run = other_namespace(inside)
        netlink.create_veth("veth9", index, "eth0", pid, "02:42:ac:1f:00:02", 1400, hairpin=True)
        (host,) = ip("link", "show", "veth9")
        assert (host["master"], host["mtu"], "UP" in host["flags"]) == ("bridge9", 1400, True)
        assert host["linkinfo"]["info_slave_data"]["hairpin"] is True
        bridge = netlink.link("bridge9")
        assert bridge is not None
        assert (bridge.kind, bridge.mac, bridge.alias, bridge.up) == ("bridge", "02:42:00:00:00:09", "a mark", True)
        run()

    apart(outside)


def test_deleting_one_end_deletes_the_pair_and_a_missing_one_is_said() -> None:
    def outside() -> None:
        netlink.create_veth("veth9", 0, "peer9", os.getpid(), "", 1500)
        assert netlink.exists("veth9") and netlink.exists("peer9")
        assert netlink.delete_link("veth9") and not netlink.delete_link("veth9")
        assert not netlink.exists("peer9") and netlink.link("peer9") is None
        assert not netlink.set_hairpin("veth9")

    apart(outside)


def test_the_kernels_own_sentence_and_errno_are_in_the_error() -> None:
    def outside() -> None:
        netlink.create_bridge("bridge9", "172.31.0.1/24", "02:42:00:00:00:09", 1500)
        with pytest.raises(KernelError) as taken:
            netlink.create_bridge("bridge9", "172.31.0.1/24", "02:42:00:00:00:09", 1500)
        assert (taken.value.errno, taken.value.path) == (errno.EEXIST, "bridge9")
        with pytest.raises(KernelError) as gone:
            netlink.create_veth("veth9", 0, "eth0", 2**22 + 1, "", 1500)
        assert gone.value.errno == errno.ESRCH
        netlink.create_veth("veth9", 0, "eth9", os.getpid(), "", 1500)
        wrong = {"interfaces": [{"name": "veth9", "addresses": ["10.1.0.2/24"], "gateway": "10.2.0.1"}]}
        with pytest.raises(KernelError, match=r"default via 10\.2\.0\.1: ENETUNREACH .*; Nexthop has invalid gateway"):
            netlink.configure_interfaces(wrong)
        with pytest.raises(KernelError, match="eth7: ENODEV"):
            netlink.configure_interfaces({"interfaces": [{"name": "eth7"}]})

    apart(outside)


def test_a_refused_address_leaves_no_bridge() -> None:
    def outside() -> None:
        with pytest.raises(KernelError):
            netlink.create_bridge("bridge9", "127.0.0.1/64", "02:42:00:00:00:09", 1500)
        assert netlink.link("bridge9") is None

    apart(outside)


def test_lists_agree_with_ip() -> None:
    def outside() -> None:
        netlink.configure_interfaces({})
        for number in range(1, 60):  # more than one answer of the kernel
            netlink.create_bridge(f"b{number}", f"10.{number}.0.1/16", f"02:42:00:00:00:{number:02x}", 1500)
        subprocess.run(["ip", "route", "add", "192.0.2.0/24", "via", "10.1.0.9"], check=True)
        assert {(link.index, link.name, link.mac) for link in netlink.links()} == {
            (link["ifindex"], link["ifname"], link["address"]) for link in ip("link")
        }
        assert {text for _, text in netlink.addresses()} == {
            f"{a['local']}/{a['prefixlen']}" for link in ip("-4", "address") for a in link["addr_info"]
        }
        assert sorted(netlink.routes()) == sorted(route["dst"] for route in ip("-4", "route"))

    apart(outside)


def test_an_ipv6_address_and_gateway_of_a_plan_are_set() -> None:
    def outside() -> None:
        netlink.create_veth("veth9", 0, "eth9", os.getpid(), "", 1500)
        subprocess.run(["ip", "link", "set", "eth9", "up"], check=True)
        plan = {"interfaces": [{"name": "veth9", "addresses": ["fd00:9::2/64"], "gateway6": "fd00:9::1"}]}
        netlink.configure_interfaces(plan)
        assert [r["gateway"] for r in ip("-6", "route", "show", "default")] == ["fd00:9::1"]
        assert "fd00:9::2/64" in [text for _, text in netlink.addresses(family=10)]

    apart(outside)
