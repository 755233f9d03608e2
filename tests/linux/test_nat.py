"""Address translation in a network namespace, seen by sockets in it and by nft."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable

import pytest

from minidocker.linux import namespaces, nat, netlink
from minidocker.linux.namespaces import CloneFlag


def in_a_namespace(work: Callable[[], None]) -> None:
    """Run `work` in a process with a network namespace of its own; its failure is the test's."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare(CloneFlag.NEWNET)
            netlink.configure_interfaces({})
            work()
        except BaseException as error:
            os.write(writing, repr(error).encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        problem = pipe.read().decode()
    os.waitpid(pid, 0)
    assert not problem, problem


def test_a_service_is_reached_at_its_port_while_that_port_is_free_for_others() -> None:
    def work() -> None:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.11", 0))
        tcp = socket.create_server(("127.0.0.11", 0))
        nat.redirect("names", "127.0.0.11", 53, {"udp": udp.getsockname()[1], "tcp": tcp.getsockname()[1]})
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        own.bind(("0.0.0.0", 53))
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(("127.0.0.11", 53))
        client.send(b"question")
        question, sender = udp.recvfrom(100)
        udp.sendto(b"answer", sender)
        assert (question, client.recv(100)) == (b"question", b"answer")
        with socket.create_connection(("127.0.0.11", 53)) as caller:
            caller.sendall(b"by tcp")
            assert tcp.accept()[0].recv(100) == b"by tcp"
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.sendto(b"to another", ("127.0.0.1", 53))
        assert own.recv(100) == b"to another"

    in_a_namespace(work)


def test_doing_it_again_replaces_it() -> None:
    if shutil.which("nft") is None:
        pytest.skip("needs nft to look at the rules")

    def work() -> None:
        for port in (4000, 5000):
            nat.redirect("names", "127.0.0.11", 53, {"udp": port, "tcp": port + 1})
        rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
        assert "ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:5000" in rules
        assert "ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:5001" in rules
        assert "4000" not in rules

    in_a_namespace(work)


def test_a_transaction_that_is_refused_names_its_message_and_leaves_nothing() -> None:
    def work() -> None:
        with pytest.raises(OSError, match="NFT_MSG_NEWTABLE"):
            nat.redirect("n" * 300, "127.0.0.11", 53, {"udp": 4000})

    in_a_namespace(work)
