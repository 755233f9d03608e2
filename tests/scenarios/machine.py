"""A network namespace that stands for a machine of its own."""

import json
import os
import shutil
import subprocess
from ipaddress import IPv4Interface

from .conftest import wait_until


class Machine:
    """Nothing in it but loopback; its old iptables drop what nobody lets through. `end()` it."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        own = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != own)
        self.run("ip", "link", "set", "lo", "up")
        if shutil.which("iptables-legacy"):
            self.run("iptables-legacy", "-P", "FORWARD", "DROP")

    @property
    def prefix(self) -> list[str]:
        """Words that start a program in it."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net"]

    def run(self, *words: str) -> str:
        return subprocess.run([*self.prefix, *words], capture_output=True, text=True, check=True, timeout=60).stdout

    def bridges(self) -> dict[str, IPv4Interface]:
        """Bridge -> its address, as the kernel lists them."""
        links = json.loads(self.run("ip", "-json", "-4", "address", "show", "type", "bridge"))
        return {
            link["ifname"]: IPv4Interface(f"{link['addr_info'][0]['local']}/{link['addr_info'][0]['prefixlen']}")
            for link in links
            if link.get("addr_info")
        }

    def tables(self) -> list[str]:
        return [line.split()[-1] for line in self.run("nft", "list", "tables").splitlines()]

    def marked(self, mark: str) -> list[str]:
        """Rules with our mark in the old FORWARD chain."""
        if not shutil.which("iptables-legacy"):
            return []
        rules = self.run("iptables-legacy", "-S", "FORWARD").replace('"', "").splitlines()
        return [rule for rule in rules if mark in rule.split()]

    def fetch(self, address: str, port: int) -> str:
        """What answers there, asked from the machine itself."""
        done = subprocess.run(
            [*self.prefix, "busybox", "nc", "-w", "3", address, str(port)], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=20,
        )  # fmt: skip
        return done.stdout

    def end(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(10)
