"""Accept rules of ours in the old iptables' (and ip6tables') FORWARD chain, where the host still uses it.

Source  iptables-legacy(8); /proc/net/ip_tables_names and ip6_tables_names list the old tables that are in use.
Rules   - the old tables have no interface but their program, so this is an edge where one is started: at a network's
          set-up and removal and after others changed the ruleset, not at every start of a container.
        - what iptables-nft writes are nftables tables, which openings.py sees.
"""

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

# by nftables' name of the family: the tables in use, and the program that knows them
_TABLES = {"ip": Path("/proc/net/ip_tables_names"), "ip6": Path("/proc/net/ip6_tables_names")}
_PROGRAMS = {"ip": "iptables-legacy", "ip6": "ip6tables-legacy"}


def open_for(mark: str, bridges: Sequence[str], family: str = "ip") -> None:
    """Put our rules in, if the chain may drop; those already there are left."""
    rules = _rules(family)
    if not any(rule[:3] == ["-P", "FORWARD", "DROP"] or rule[-1] in ("DROP", "REJECT") for rule in rules):
        return
    for bridge in bridges:
        for side in ("-i", "-o"):
            wanted = ["FORWARD", side, bridge, "-m", "comment", "--comment", mark, "-j", "ACCEPT"]
            if ["-A", *wanted] not in rules:
                _run(family, "-I", *wanted)


def close_for(mark: str, bridge: str | None, family: str = "ip") -> None:
    """Take our rules out: those about one bridge, or (None) all."""
    for rule in _rules(family):
        if mark in rule and (bridge is None or bridge in rule):
            _run(family, "-D", *rule[1:])


def _rules(family: str) -> list[list[str]]:
    """The FORWARD chain, a list of words a rule; empty where the old tables are not in use."""
    try:
        if "filter" not in _TABLES[family].read_text().split():
            return []
    except OSError:
        return []
    return [[word.strip('"') for word in line.split()] for line in _run(family, "-S", "FORWARD").splitlines()]


def _run(family: str, *arguments: str) -> str:
    program = _PROGRAMS[family]
    try:
        done = subprocess.run([program, "-w", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        log.warning("old iptables rules are in use and their program is not installed", extra={"program": program})
        return ""
    if done.returncode:
        log.warning(f"{program} failed", extra={"arguments": arguments, "reason": done.stderr.strip()})
    return done.stdout
