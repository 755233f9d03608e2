"""Names and addresses of strangers never become words of nftables: what is not plainly one is refused before."""

import re
import string
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidocker.errors import MinidockerError
from minidocker.network import bridge, host, ports, rules

NASTY = st.text(st.sampled_from('abz09./:-_ "\'{};,#\n\t\0\\@$é'), max_size=24) | st.text(max_size=24)
WORD = re.compile(r"(tcp|udp)( \. \d+\.\d+\.\d+\.\d+)? \. \d{1,5} : \d+\.\d+\.\d+\.\d+ \. \d{1,5}\Z")


@settings(max_examples=3000, deadline=None)
@given(NASTY | st.just("80/tcp"), NASTY | st.sampled_from(["", "0.0.0.0", "127.0.0.1"]), NASTY | st.just("8080"))
@example("80/tcp", "0.0.0.0 }\nflush ruleset\n#", "80")
@example("80/tcp\n", "127.0.0.1", "80")
@example("80/tcp; flush ruleset", "", "")
@example("٣", "", "٣")
@example("9" * 5000, "", "9" * 5000)
def test_a_port_binding_is_numbers_and_an_address_or_refused(port: str, address: str, host_port: str) -> None:
    try:
        binding = ports.parse_binding(port, address, host_port)
    except MinidockerError as error:
        str(error).encode("utf-8", "surrogateescape")
        return
    number = binding.host_ports[0] if binding.host_ports else 32768
    published = rules.Published(binding.container_port, binding.protocol, binding.host_address, number)
    assert 1 <= published.container_port <= 65535
    assert WORD.match(rules.port_element("172.17.0.2", published)[1])


@settings(max_examples=3000, deadline=None)
@given(NASTY)
@example('x";reset all#')
@example("minidocker0")
@example("..")
def test_a_bridge_name_is_a_plain_word_or_refused(name: str) -> None:
    try:
        network = bridge.default_network(Path("/run/x"), bridge=name)
    except MinidockerError:
        return
    if network is not None:
        assert set(network.config.bridge) <= set(string.ascii_letters + string.digits + "._-")
        assert 0 < len(network.config.bridge) <= 15


@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=40).filter(lambda text: "\0" not in text))
def test_any_exec_root_makes_a_plain_name(root: str) -> None:
    found = host.names(Path("/") / root)
    assert re.fullmatch(r"[a-z0-9-]{1,15}", found.bridge) and found.table == f"minidocker-{found.bridge}"
