"""Names and IDs of containers: random ones, valid ones, and what a prefix means.

Source  Docker: container names match [a-zA-Z0-9][a-zA-Z0-9_.-]+; IDs are 64 hexadecimal digits.
"""

import re
import secrets
from collections.abc import Collection

from minidocker.errors import InvalidArgument

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_ADJECTIVES = (
    "able amber agile brave brisk bright calm clever cosmic curious daring eager earnest fancy fluent frosty gentle "
    "golden happy honest humble jolly keen kind lively lucid mellow merry modest nimble noble patient placid polite "
    "proud quick quiet rapid serene sharp silent sleek smart solid steady sunny swift tidy upbeat vivid warm wise witty"
)
_SURNAMES = (
    "allen babbage backus bernerslee boole borg brinch cerf church clarke codd curie dijkstra easley engelbart euler "
    "floyd gauss goldberg goldwasser gosling hamilton hamming hoare hopper hypatia johnson kahn kay keller kernighan "
    "knuth lamport lampson lamarr liskov lovelace matsumoto mccarthy meitner minsky moore naur noether perlman "
    "ritchie shannon stroustrup tanenbaum thompson torvalds turing wilkes wing wirth wozniak yao"
)


def new_id() -> str:
    """64 random hexadecimal digits, the first 12 not all decimal (a short ID must not look like a number)."""
    while True:
        text = secrets.token_hex(32)
        if not text[:12].isdecimal():
            return text


def random_name(taken: Collection[str]) -> str:
    """An unused adjective_surname; a digit is added when many are taken."""
    for attempt in range(100):
        digit = str(secrets.randbelow(10)) if attempt > 5 else ""
        name = f"{secrets.choice(_ADJECTIVES.split())}_{secrets.choice(_SURNAMES.split())}{digit}"
        if name not in taken:
            return name
    return f"{secrets.choice(_ADJECTIVES.split())}_{secrets.token_hex(6)}"


def check_name(name: str) -> str:
    """`name` without a leading slash. Raises InvalidArgument in Docker's words."""
    plain = name.removeprefix("/")
    if not _NAME.match(plain):
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return plain
