"""Changes to an image's configuration, written as Dockerfile instructions: `commit --change`, `import --change`.

Source  Dockerfile reference; Docker Engine API 1.44, ImageCommit and ImageCreate; texts recorded from dockerd.
Rules   - pure: a configuration in, another one out.
        - only instructions that change nothing but the configuration are allowed.
        - an ENTRYPOINT without a CMD beside it takes the old CMD away: that was meant for another program.
"""

from collections.abc import Sequence

import msgspec

from minidocker.build import configuration, dockerfile, instructions
from minidocker.build.expansion import Lexer
from minidocker.errors import InvalidArgument
from minidocker.oci.image_config import ExecutionConfig

_ALLOWED = frozenset(
    ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
)


def apply(config: ExecutionConfig, changes: Sequence[str]) -> ExecutionConfig:
    """`config` after these instructions.

    Raises  InvalidArgument: not an instruction that may stand here, or a wrong argument.

    >>> changed = apply(ExecutionConfig(cmd=["sh"]), ["ENV A=1 B=2", 'ENTRYPOINT ["/x"]'])
    >>> changed.env, changed.entrypoint, changed.cmd
    (['A=1', 'B=2'], ['/x'], None)
    """
    if not changes:
        return config
    lines = dockerfile.lines_of("\n".join(changes))
    if not lines:
        raise InvalidArgument("file with no instructions")
    wrong = next((line.name for line in lines if line.name not in _ALLOWED), None)
    if wrong is not None:
        raise InvalidArgument(f"{wrong.lower()} is not a valid change command")
    read = [instructions.interpret(line) for line in lines]
    for at, instruction in enumerate(read):
        found = configuration.expanded(instruction, Lexer(), configuration.environment(config))
        if isinstance(found, instructions.Text) and found.name == "WORKDIR":
            path = configuration.working_directory(found.text, config)
            config = msgspec.structs.replace(config, working_dir=path)
            continue
        command_given = any(isinstance(before, instructions.Cmd) for before in read[:at])
        outcome = configuration.apply(found, config, command_given=command_given)
        assert outcome is not None, f"{found} changes more than the configuration"
        config = outcome.config
    return config
