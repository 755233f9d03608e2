"""Programs that are not Python: compiled in a stage with a C compiler, run where there is none."""

import http.client
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Daemon, make_daemon

pytestmark = pytest.mark.needs_root
REGISTRY = "127.0.0.1:5050"

HELLO = '#include <stdio.h>\n' \
    'int main(void) { printf("hello from C, %d bit\\n", (int) sizeof(void *) * 8); return 3; }\n'
MAKEFILE = "CFLAGS = -Wall -Werror\nstack: main.o stack.o\n\t$(CC) -o $@ $^\nmain.o stack.o: stack.h\n"
STACK_H = "void push(long);\nlong pop(void);\n"
STACK_C = '#include "stack.h"\nstatic long kept[99];\nstatic int top;\n' \
    "void push(long value) { kept[top++] = value; }\nlong pop(void) { return kept[--top]; }\n"
MAIN_C = """#include <stdio.h>
#include <stdlib.h>
#include "stack.h"
int main(int count, char **words) {
    for (int at = 1; at < count; at++) {
        if (words[at][0] == '+') push(pop() + pop());
        else if (words[at][0] == 'x') push(pop() * pop());
        else push(atol(words[at]));
    }
    printf("%ld\\n", pop());
    return 0;
}
"""
FORGE = "git init -q -b main /srv/stack && cd /srv/stack && cp /in/* . && git add . && " \
    "git -c user.name=a -c user.email=a@b commit -q -m stack && git tag v1 && " \
    "exec git daemon --base-path=/srv --export-all --reuseaddr"
CLONED = """FROM debian AS build
ARG VERSION=v1
RUN git clone --quiet --depth 1 --branch $VERSION git://forge/stack /src 2>&1
WORKDIR /src
RUN make
FROM debian
COPY --from=build /src/stack /usr/local/bin/
ENTRYPOINT ["stack"]
CMD ["6", "7", "x"]
"""


@pytest.fixture(scope="module")
def debian(image_root: Path) -> Iterator[Daemon]:
    """A daemon of its own with the base image of `./lab setup --full`."""
    connection = http.client.HTTPConnection(REGISTRY, timeout=5)
    try:
        connection.request("GET", "/v2/library/debian/tags/list")
        there = connection.getresponse().status == 200
    except OSError:
        there = False
    finally:
        connection.close()
    if not there:
        pytest.skip("no base image debian: ./lab setup --full makes it")
    for daemon in make_daemon(image_root, [f"--registry-mirror=http://{REGISTRY}"]):
        assert daemon.cli("pull", "debian", timeout=120).returncode == 0
        yield daemon


def _build(daemon: Daemon, context: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    program = ["docker", "-H", daemon.url, "build", *words, str(context)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, env={"DOCKER_BUILDKIT": "0",
                          "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(context)}, check=False)  # fmt: skip


def test_a_c_program_is_compiled_in_one_stage_and_runs_alone_in_another(debian: Daemon, tmp_path: Path) -> None:
    (tmp_path / "hello.c").write_text(HELLO)
    (tmp_path / "Dockerfile").write_text(
        "FROM debian AS build\nCOPY hello.c /\nRUN gcc -static -O2 -o /hello /hello.c\n"
        'FROM scratch\nCOPY --from=build /hello /hello\nENTRYPOINT ["/hello"]\n'
    )
    done = _build(debian, tmp_path, "-t", "hello-c")
    assert done.returncode == 0, done.stdout + done.stderr
    ran = debian.cli("run", "--rm", "--network", "none", "hello-c")
    assert (ran.stdout, ran.returncode) == ("hello from C, 64 bit\n", 3)
    listed = debian.cli("image", "ls", "--format", "{{.Size}}", "hello-c").stdout
    assert "kB" in listed  # the program alone, no compiler


def test_a_compilers_error_ends_the_build_and_is_shown(debian: Daemon, tmp_path: Path) -> None:
    (tmp_path / "hello.c").write_text("int main(void) { return nothing; }\n")
    (tmp_path / "Dockerfile").write_text("FROM debian\nCOPY hello.c /\nRUN gcc -o /hello /hello.c\n")
    done = _build(debian, tmp_path)
    assert done.returncode == 1
    assert "'nothing' undeclared" in (done.stdout + done.stderr).replace("\u2018", "'").replace("\u2019", "'")


def test_a_program_is_cloned_from_a_git_server_on_a_network_and_made(debian: Daemon, tmp_path: Path) -> None:
    sources = tmp_path / "in"
    sources.mkdir()
    for name, text in (("Makefile", MAKEFILE), ("stack.h", STACK_H), ("stack.c", STACK_C), ("main.c", MAIN_C)):
        (sources / name).write_text(text)
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(CLONED)
    debian.cli("network", "create", "forges")
    try:
        started = debian.cli("run", "-d", "--name", "forge", "--network", "forges", "--init", "-v", f"{sources}:/in:ro",
                             "debian", "sh", "-c", FORGE)
        assert started.returncode == 0, started.stderr
        ready = "until git ls-remote git://forge/stack v1 2>/dev/null | grep -q v1; do sleep 0.1; done"
        debian.cli("run", "--rm", "--network", "forges", "debian", "sh", "-c", ready)
        done = _build(debian, context, "-t", "stack", "--network", "forges")
        assert done.returncode == 0, done.stdout + done.stderr
        assert debian.cli("run", "--rm", "stack").stdout == "42\n"
        assert debian.cli("run", "--rm", "stack", "1", "2", "+", "30", "x").stdout == "90\n"
    finally:
        debian.cli("rm", "-fv", "forge")
        debian.cli("network", "rm", "forges")
