"""Build arguments: which values an ARG has, and what of them a step sees.

Source  Dockerfile reference, "ARG" (scope, ENV wins, predefined arguments, automatic platform arguments).
Rules   - --build-arg wins over a default; one without a value is as if it had not been given.
        - an ARG before the first FROM is for the FROM lines; a stage that names it again without a default has it.
        - the predefined proxies need no ARG, and do not change what the cache compares unless an ARG names them.
"""

from collections.abc import Mapping, Sequence

from minidocker.oci.manifest import Platform

PREDEFINED = tuple(
    spelled
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for spelled in (name, name.lower())
)


def of_platforms(target: Platform, host: Platform) -> dict[str, str]:
    """The automatic arguments (TARGETARCH and so on): values for FROM lines, and for an ARG that names them."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", host)):
        found |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return found


class Arguments:
    """The arguments of one build.

    given      of the command line; None: named without a value.
    automatic  see `of_platforms`.
    """

    def __init__(self, given: Mapping[str, str | None], automatic: Mapping[str, str]) -> None:
        self._given = dict(given)
        self._before_from: dict[str, str | None] = dict(automatic)
        self._in_stage: dict[str, str | None] = {}
        self._named: set[str] = set()

    def add_before_from(self, name: str, value: str | None) -> None:
        """An ARG in front of the first FROM."""
        self._before_from[name] = value

    def add(self, name: str, value: str | None) -> None:
        """An ARG of a stage."""
        self._in_stage[name] = value
        self._named.add(name)

    def begin_stage(self) -> None:
        """Forget the ARGs of the stage before."""
        self._in_stage = {}

    def for_from(self) -> dict[str, str]:
        """What FROM lines see."""
        return self._values(self._before_from)

    def for_step(self, env: Sequence[str]) -> list[str]:
        """`NAME=value` of all that a step sees beside the image's `env`, which hides arguments of the same name."""
        hidden = {entry.partition("=")[0] for entry in env}
        values = self._values(self._in_stage)
        return [f"{name}={values[name]}" for name in sorted(values) if name not in hidden]

    def counting(self, entries: Sequence[str]) -> list[str]:
        """Those of `for_step` that the cache compares, sorted."""
        return sorted(e for e in entries if (name := e.partition("=")[0]) in self._in_stage or name not in PREDEFINED)

    def unused(self) -> list[str]:
        """Given arguments that no ARG named, sorted."""
        return sorted(name for name in self._given if name not in self._named and name not in PREDEFINED)

    def _values(self, defaults: Mapping[str, str | None]) -> dict[str, str]:
        values = {}
        for name in (*defaults, *PREDEFINED):
            sources = (self._given, defaults, self._before_from)
            value = next((found for source in sources if (found := source.get(name)) is not None), None)
            if value is not None:
                values[name] = value
        return values
