"""`docker top`: the processes of a container, as the host's ps shows them.

Source  Docker Engine API 1.44, ContainerTop; ps(1); moby daemon/top_unix.go.
Rules   - ps runs on the host, so pids are the host's; its output is cut down to the container's pids.
        - ps must print a PID column; everything from the last title on is one field (the command may hold spaces).
"""

import re
import subprocess
from collections.abc import Collection

from minidocker.errors import InvalidArgument, MinidockerError, Unavailable

_TITLED_PID = re.compile(r"\s+([^\s=]*)=\s*(PID\S*)")
TIMEOUT_SECONDS = 20


def parse(output: str, pids: Collection[int]) -> dict[str, list[str] | list[list[str]]]:
    """Titles and rows of `ps` output, only rows of `pids`. Raises MinidockerError: no PID column."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise MinidockerError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdecimal() and int(fields[column]) in pids:
            rows.append(fields)
    return {"Titles": titles, "Processes": rows}


def top(pids: Collection[int], ps_args: str) -> dict[str, list[str] | list[list[str]]]:
    """Run ps with `ps_args` ("" means -ef). Blocks: for threads.

    Raises  InvalidArgument: another column would be called PID. MinidockerError: ps refuses the arguments.
            Unavailable: there is no ps.
    """
    if "\0" in ps_args:
        raise InvalidArgument("ps_args must not hold a NUL byte")
    for column, title in _TITLED_PID.findall(f" {ps_args}"):
        if column != "pid":
            raise InvalidArgument(f'specifying "{column}={title}" is not allowed')
    words = ps_args.split() or ["-ef"]
    done = _ps([*words, f"-q{','.join(map(str, pids))}"])
    if done.returncode != 0:  # some options, such as f, cannot go together with -q
        done = _ps(words)
    if done.returncode != 0:
        first = next((line for line in done.stderr.splitlines() if line.strip()), f"exit status {done.returncode}")
        raise MinidockerError(f"ps: {first}")
    return parse(done.stdout, pids)


def _ps(words: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["ps", *words], capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise Unavailable("ps is not installed on this host (package procps)") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"ps did not end within {TIMEOUT_SECONDS} seconds") from None
