"""Accept rules of ours in other tables whose FORWARD drops: put in with a mark, taken out at the end.

Source  nft(8), iptables-nft(8). An accept is final in its own chain only, a drop everywhere.
Rules   - a rule of ours accepts what a bridge of ours sends or gets; who may talk to whom is decided by drops in our
          own table.
        - it is known by its comment, the mark, and only rules with our mark are ever removed; others' stay as they are.
        - the old iptables' tables are no nftables tables: iptables.py does the same there.
        - tables of other minidocker daemons are left out: they drop what goes to their own bridges only.
"""

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from minidocker.network import iptables
from minidocker.network.nftables import Nftables, NftablesError

log = logging.getLogger(__name__)

_PREFIX = "minidocker-"


def dropping_chains(ruleset: Sequence[dict[str, Any]], family: str = "ip") -> list[tuple[str, str, str]]:
    """(family, table, chain) of the base chains at the forward hook that may drop: by policy or a rule of their table.

    ruleset  as `Nftables.list("ruleset")` gives it
    family   whose packets: "ip" or "ip6"; tables of the family inet see both
    """
    dropping = {(r["family"], r["table"]) for r in _rules(ruleset) if _drops(r)}
    return [
        (chain["family"], chain["table"], chain["name"])
        for chain in (item["chain"] for item in ruleset if "chain" in item)
        if chain.get("hook") == "forward"
        and chain["family"] in (family, "inet")
        and not chain["table"].startswith(_PREFIX)
        and (chain.get("policy") == "drop" or (chain["family"], chain["table"]) in dropping)
    ]


def _rules(ruleset: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return (item["rule"] for item in ruleset if "rule" in item)


def _drops(rule: dict[str, Any]) -> bool:
    return any(
        "drop" in expression or "reject" in expression or expression.get("xt", {}).get("name") == "REJECT"
        for expression in rule.get("expr", ())
    )


def missing(ruleset: Sequence[dict[str, Any]], mark: str, bridges: Iterable[str], family: str = "ip") -> list[str]:
    """Commands, each a transaction of its own, that put our rules where they are missing."""
    there = {(r["family"], r["table"], r["chain"], *_interface(r)) for r in _rules(ruleset) if r.get("comment") == mark}
    return [
        f'insert rule {kind} {table} {chain} {side} "{bridge}" counter accept comment "{mark}"'
        for kind, table, chain in dropping_chains(ruleset, family)
        for bridge in bridges
        for side in ("iifname", "oifname")
        if (kind, table, chain, side, bridge) not in there
    ]


def marked(
    ruleset: Sequence[dict[str, Any]], mark: str, bridge: str | None = None, families: Collection[str] = ("ip", "inet")
) -> list[str]:
    """Commands that delete our rules in tables of these families: all with the mark, or those about one bridge."""
    return [
        f"delete rule {rule['family']} {rule['table']} {rule['chain']} handle {rule['handle']}"
        for rule in _rules(ruleset)
        if rule.get("comment") == mark
        and rule["family"] in families
        and (bridge is None or _interface(rule)[1] == bridge)
    ]


def _interface(rule: dict[str, Any]) -> tuple[str, str]:
    """("iifname", "minidocker0") of a rule of ours."""
    for expression in rule.get("expr", ()):
        match = expression.get("match")
        if match and "meta" in match["left"]:
            return match["left"]["meta"]["key"], str(match["right"])
    return "", ""


def open_for(nftables: Nftables, mark: str, bridges: Sequence[str], family: str = "ip") -> None:
    """Put our rules into every table that may drop what our bridges forward; those already there are left.

    A table that lets nobody else write (its owner's) is reported in the log, and the rest goes on.
    """
    for command in missing(nftables.list("ruleset"), mark, bridges, family):
        try:
            nftables.run(command)
        except NftablesError as error:
            log.warning("a forward chain takes no rule of ours", extra={"rule": command, "reason": str(error)})
    iptables.open_for(mark, bridges, family)


def close_for(nftables: Nftables, mark: str, bridge: str | None = None, family: str = "ip") -> None:
    """Take our rules out again, of one bridge or all; a table that went meanwhile is fine.

    family  "ip6" leaves tables of the family inet alone: IPv4 still needs what is there.
    """
    families = ("ip", "inet") if family == "ip" else (family,)
    for command in marked(nftables.list("ruleset"), mark, bridge, families):
        try:
            nftables.run(command)
        except NftablesError as error:
            log.warning("a marked rule could not be removed", extra={"rule": command, "reason": str(error)})
    iptables.close_for(mark, bridge, family)
