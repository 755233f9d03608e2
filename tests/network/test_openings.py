"""Which chains of others get a rule of ours, from rulesets as data."""

from typing import Any

import pytest

from minidocker.network.openings import dropping_chains, marked, missing

Item = dict[str, Any]


def chain(table: str, *, policy: str = "accept", hook: str = "forward", family: str = "ip") -> Item:
    return {"chain": {"family": family, "table": table, "name": "FORWARD", "hook": hook, "policy": policy}}


def rule(table: str, *expressions: Item, comment: str | None = None, handle: int = 7) -> Item:
    found = {"family": "ip", "table": table, "chain": "FORWARD", "handle": handle, "expr": list(expressions)}
    return {"rule": found | ({"comment": comment} if comment else {})}


def accept(side: str, bridge: str, mark: str) -> Item:
    match = {"match": {"op": "==", "left": {"meta": {"key": side}}, "right": bridge}}
    return rule("filter", match, {"accept": None}, comment=mark)


@pytest.mark.parametrize(
    ("ruleset", "found"),
    [
        ([chain("filter", policy="drop")], 1),
        ([chain("filter"), rule("filter", {"drop": None})], 1),
        ([chain("filter"), rule("filter", {"xt": {"type": "target", "name": "REJECT"}})], 1),
        ([chain("filter"), rule("filter", {"xt": {"type": "match", "name": "comment"}}, {"accept": None})], 0),
        ([chain("filter"), rule("another", {"drop": None})], 0),
        ([chain("filter", policy="drop", hook="input")], 0),
        ([chain("filter", policy="drop", family="ip6")], 0),
        ([chain("minidocker-other", policy="drop")], 0),
    ],
)
def test_a_chain_is_opened_where_its_table_may_drop(ruleset: list[Item], found: int) -> None:
    assert len(dropping_chains(ruleset)) == found
    assert len(missing(ruleset, "mark", ["b0"])) == 2 * found


def test_a_rule_that_is_there_is_not_put_in_again() -> None:
    ruleset = [chain("filter", policy="drop"), accept("iifname", "b0", "mark"), accept("oifname", "b0", "others")]
    (command,) = missing(ruleset, "mark", ["b0"])
    assert command == 'insert rule ip filter FORWARD oifname "b0" counter accept comment "mark"'


def test_only_our_marked_rules_are_removed() -> None:
    ruleset = [accept("iifname", "b0", "mark"), accept("iifname", "b0", "others"), rule("filter", {"drop": None})]
    assert marked(ruleset, "mark") == ["delete rule ip filter FORWARD handle 7"]
    assert marked(ruleset, "mark", "b1") == []
