"""Hooks: programs that others want to be run at points of a container's life.

Source  OCI runtime-spec, config.md, "POSIX-platform Hooks".
Rules   - the container's state is their standard input, as JSON; their environment is what config.json gives, nothing
          more.
        - the first that fails ends the container's creation; those after its end (poststop) only warn.
"""

import subprocess
from collections.abc import Iterable

import msgspec

from minidocker.errors import MinidockerError
from minidocker.oci import runtime_spec


def run(hooks: Iterable[runtime_spec.Hook], state: object) -> None:
    """Run all in order, each to its end.

    Raises  MinidockerError: one cannot be started, fails, or takes longer than its timeout.
    """
    for hook in hooks:
        environment = {name: value for name, _, value in (line.partition("=") for line in hook.env)}
        try:
            done = subprocess.run(
                hook.args or [hook.path],
                executable=hook.path,
                input=msgspec.json.encode(state),
                env=environment,
                timeout=hook.timeout,
                capture_output=True,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MinidockerError(f"hook {hook.path}: {error}") from None
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()
            raise MinidockerError(f"hook {hook.path} ended with {done.returncode}: {words}")
