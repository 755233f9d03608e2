"""Cutting and replacing by shell patterns: what `${x#pattern}`, `${x%pattern}` and `${x/pattern/text}` do.

Source  Dockerfile reference, "Environment replacement"; POSIX shell, "Parameter Expansion".
Rules   - `*` is any text, `?` any one character, a backslash takes the next character as it is; brackets mean nothing.
        - all that a pattern can match is found in one pass over it, so no pattern is slow.
"""

_ANY_TEXT, _ANY_CHARACTER = "*", "?"
_Token = tuple[str, bool]  # a character, and whether it is a wildcard


def _tokens(pattern: str) -> list[_Token]:
    found: list[_Token] = []
    characters = iter(pattern)
    for char in characters:
        if char == "\\":
            found.append((next(characters, "\\"), False))
        else:
            found.append((char, char in (_ANY_TEXT, _ANY_CHARACTER)))
    return found


def _ends(value: str, tokens: list[_Token], starts: int) -> int:
    """Where matches that begin at one of `starts` end; sets of places are numbers, bit n for place n."""
    everywhere = (1 << len(value) + 1) - 1
    of_character: dict[str, int] = {}
    for at, char in enumerate(value):
        of_character[char] = of_character.get(char, 0) | 1 << at
    places = starts
    for char, wild in tokens:
        if wild and char == _ANY_TEXT:
            lowest = places & -places
            places = everywhere & ~(lowest - 1) if lowest else 0
        else:
            places = (places if wild else places & of_character.get(char, 0)) << 1 & everywhere
    return places


def _length(value: str, tokens: list[_Token], *, longest: bool) -> int | None:
    """How much of the beginning of `value` the pattern matches; None: it does not."""
    ends = _ends(value, tokens, 1)
    if not ends:
        return None
    return ends.bit_length() - 1 if longest else (ends & -ends).bit_length() - 1


def without_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """`value` without the beginning that the pattern matches.

    >>> without_prefix("/a/b/c", "*/", longest=True)
    'c'
    """
    return value[_length(value, _tokens(pattern), longest=longest) or 0 :]


def without_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """`value` without the end that the pattern matches.

    >>> without_suffix("app.tar.gz", ".*", longest=False)
    'app.tar'
    """
    length = _length(value[::-1], _tokens(pattern)[::-1], longest=longest) or 0
    return value[: len(value) - length]


def replaced(value: str, pattern: str, text: str, *, all: bool) -> str:
    """`value` with `text` for the first match of the pattern, or for all; each is as long as it can be.

    >>> replaced("a-b-c", "-", "_", all=True)
    'a_b_c'
    """
    tokens = _tokens(pattern)
    done, rest = "", value
    while rest and tokens:
        # Read backwards, the places where matches end are those where they begin.
        begins = _ends(rest[::-1], tokens[::-1], (1 << len(rest) + 1) - 1)
        if not begins:
            break
        start = len(rest) - (begins.bit_length() - 1)
        length = _length(rest[start:], tokens, longest=True) or 0
        done += rest[:start] + text
        rest = rest[start + length :]
        if not all or not length:
            break
    return done + rest
