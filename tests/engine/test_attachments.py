"""Which networks a container wants, which leads out, and what pid 1 configures."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from minidocker.engine.containers import etc_files
from minidocker.engine.containers.config import EndpointIPAM, EndpointRequest, HostConfig, PortBinding
from minidocker.engine.containers.container import Record
from minidocker.engine.networks import attachments, links
from minidocker.engine.networks.network import Network, Pool
from minidocker.errors import InvalidArgument, MinidockerError
from minidocker.network import ports
from minidocker.network.endpoint import Endpoint

STATIC = Network("own", "a" * 64, "bridge", "", pools=[Pool("10.5.0.0/24")], static=True, address="10.5.0.1/24")
CHOSEN = Network("any", "b" * 64, "bridge", "", pools=[Pool("10.6.0.0/24")], address="10.6.0.1/24")
DEFAULT = Network("bridge", "c" * 64, "bridge", "", builtin=True)


def endpoint(network: str, address: str, *, gateway: str = "10.0.0.1", interface: str = "eth0") -> Endpoint:
    return Endpoint(id=network * 9, network=network, container_id="c", interface=interface, host_interface="veth0",
                    address=address, prefix=24, gateway=gateway, mac="02:42:00:00:00:01")  # fmt: skip


def record(*names: str, mode: str = "default", **more: Any) -> Record:
    config = SimpleNamespace(network_disabled=False, hostname="box", domainname="", exposed_ports=None, mac_address="")
    host = HostConfig(network_mode=mode)
    plain = SimpleNamespace(config=config, host=host, networks={name: EndpointRequest() for name in names}, **more)
    return cast(Record, plain)


def test_the_network_of_the_mode_comes_first_and_others_as_they_were_named() -> None:
    assert attachments.wanted(record("z", "b", "a", mode="a")) == ["a", "z", "b"]
    assert attachments.wanted(record("bridge", "z")) == ["bridge", "z"]
    assert attachments.wanted(record("host", mode="host")) == attachments.wanted(record("none", mode="none")) == []


def test_the_first_by_name_that_has_a_gateway_leads_out_unless_another_has_priority() -> None:
    places = {name: endpoint(name, f"10.0.{n}.2") for n, name in enumerate("zb")}
    places["a"] = endpoint("a", "10.0.2.2", gateway="")
    assert attachments.gateway_network({}, places) == "b"
    assert attachments.gateway_network({"z": EndpointRequest(gateway_priority=1)}, places) == "z"
    assert attachments.gateway_network({}, {"a": places["a"]}) == ""


def test_only_the_network_that_leads_out_gives_a_default_route() -> None:
    places = {"b": endpoint("b", "10.0.1.2"), "a": endpoint("a", "10.0.2.2", interface="eth1")}
    plan = attachments.plan(record("a", "b"), places)
    assert plan is not None
    shown = [(i["name"], i.get("gateway")) for i in cast(list[dict[str, Any]], plan["interfaces"])]
    assert shown == [("eth0", None), ("eth1", "10.0.0.1")]
    assert attachments.plan(record("host", mode="host"), {}) is None
    assert attachments.plan(record("none", mode="none"), {}) == {"interfaces": []}


def test_interfaces_get_the_first_free_number() -> None:
    assert attachments.free_interface("eth", {"eth0", "eth2"}) == "eth1"
    assert attachments.free_interface("lan", {"eth0"}) == "lan0"


@pytest.mark.parametrize(
    ("network", "request_", "words"),
    [
        (DEFAULT, EndpointRequest(aliases=["x"]), "network-scoped alias"),
        (DEFAULT, EndpointRequest(EndpointIPAM("10.5.0.7")), "on user defined networks only"),
        (CHOSEN, EndpointRequest(EndpointIPAM("10.6.0.7")), "with user configured subnets"),
        (STATIC, EndpointRequest(EndpointIPAM("10.6.0.7")), "does not belong"),
        (STATIC, EndpointRequest(EndpointIPAM("ten")), "invalid IPv4 address"),
        (STATIC, EndpointRequest(aliases=["two words"]), "invalid network alias"),
        (STATIC, EndpointRequest(mac_address="02:42"), "not a valid mac address"),
        (STATIC, EndpointRequest(EndpointIPAM(link_local_ips=["x"])), "Invalid link-local IP address: x"),
        (STATIC, EndpointRequest(links=["a:b:c"]), "bad format for links: a:b:c"),
    ],
)
def test_what_the_network_does_not_allow_is_refused(network: Network, request_: EndpointRequest, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words.replace("does not belong", "[Dd]oes not belong")):
        attachments.check_request(network, request_)


def test_what_is_allowed_passes_also_options_that_the_driver_does_not_know() -> None:
    attachments.check_request(STATIC, EndpointRequest(EndpointIPAM("10.5.0.7"), aliases=["x"], links=["a:b", "c"]))
    attachments.check_request(DEFAULT, EndpointRequest(driver_opts={"a": "b"}))


def test_an_address_of_ipv6_is_noted_where_its_subnet_is_not_switched_on() -> None:
    six = EndpointRequest(EndpointIPAM(ipv6_address="fd00::7"))
    noted = Network("six", "d" * 64, "bridge", "", pools=[Pool("10.7.0.0/24"), Pool("fd00::/64")])
    attachments.check_request(noted, six)
    with pytest.raises(InvalidArgument, match="user configured subnets"):
        attachments.check_request(STATIC, six)


def test_further_addresses_have_the_prefix_of_their_class() -> None:
    asked = EndpointIPAM(link_local_ips=["169.254.8.8", "10.1.2.3", "192.0.2.7", "fe80::7"])
    found = attachments.link_local(asked)
    assert found == ("169.254.8.8/16", "10.1.2.3/8", "192.0.2.7/24", "fe80::7/64")
    one = msgspec.structs.replace(endpoint("a", "10.0.1.2"), link_local=found[:1])
    assert one.interface_plan()["addresses"] == ["10.0.1.2/24", "169.254.8.8/16"]


def test_ports_without_an_address_are_bound_to_the_networks_own() -> None:
    one = record("a")
    one.host.port_bindings = {"80/tcp": [PortBinding(host_port="8080")], "81/tcp": [PortBinding("0.0.0.0", "8081")]}
    assert attachments.bindings(one, "127.0.0.1") == [
        ports.PortBinding(80, "tcp", "127.0.0.1", (8080, 8080)), ports.PortBinding(81, "tcp", "0.0.0.0", (8081, 8081)),
    ]  # fmt: skip


def test_with_the_embedded_server_it_is_the_only_one_and_names_are_tried_as_they_are() -> None:
    one = record("a")
    host = "search lan\nnameserver 192.0.2.1\noptions timeout:1\n"
    text = etc_files.resolv_conf(one, host, own_network=True, embedded=True)
    assert text == "search lan\nnameserver 127.0.0.11\noptions timeout:1 ndots:0\n"
    one.host.dns_options = ["ndots:2"]
    text = etc_files.resolv_conf(one, host, own_network=True, embedded=True)
    assert text.endswith("options ndots:2\n")
    one.host.dns = ["192.0.2.9"]
    assert etc_files.upstreams(one) == ["192.0.2.9"]


@pytest.mark.parametrize(("text", "found"), [("db", ("db", "db")), ("/db:x", ("db", "x")), ("a:/me/x", ("a", "x"))])
def test_links_are_read_as_docker_writes_them(text: str, found: tuple[str, str]) -> None:
    assert links.parse(text) == found


@pytest.mark.parametrize("text", ["", ":x", "a:", "a:b:c", "a b"])
def test_links_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"bad format for links|empty string"):
        links.parse(text)


def test_a_link_to_what_does_not_run_is_refused_and_one_to_a_neighbour_tells_where_its_ports_are() -> None:
    config = SimpleNamespace(hostname="c8438adccd35", exposed_ports={"80/tcp": {}}, env=["FOO=bar", "PATH=/bin"])
    other = SimpleNamespace(
        id="o", name="d1", state=SimpleNamespace(running=True),
        record=SimpleNamespace(name="d1", config=config, attached={"bridge": endpoint("bridge", "172.30.0.2")}),
    )  # fmt: skip
    found = links.Links(lambda text: cast(Any, other), list)
    (link,) = found.of(record("bridge", links={"db": "o"}, name="d2"))
    assert link.hosts_line == "172.30.0.2\tdb c8438adccd35 d1"
    assert link.environment == (  # recorded from dockerd
        "DB_PORT=tcp://172.30.0.2:80", "DB_PORT_80_TCP=tcp://172.30.0.2:80", "DB_PORT_80_TCP_ADDR=172.30.0.2",
        "DB_PORT_80_TCP_PORT=80", "DB_PORT_80_TCP_PROTO=tcp", "DB_NAME=/d2/db", "DB_ENV_FOO=bar",
    )  # fmt: skip
    other.state.running = False
    with pytest.raises(MinidockerError, match="Cannot link to a non running container: /d1 AS /d2/db"):
        found.of(record("bridge", links={"db": "o"}, name="d2"))
