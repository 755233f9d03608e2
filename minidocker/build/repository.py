"""A build context from a git repository: the one place where `git` is run.

Source  docker build's reference, "Git repositories" (URL fragments `#ref:directory`); git(1), githooks(5).
Rules   - git gets no configuration of this machine, no hooks, no prompt, and only the protocols that the URL may have.
        - what was fetched is packed as an archive and indexed like every other context; `.git` is left out.
        - submodules come along, but never from a path of this machine: a repository does not name what lies here.
        - the directory of a fragment is looked up within the checkout: a link does not lead out.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path

from minidocker.build.context import Context
from minidocker.errors import InvalidArgument, KernelError, MinidockerError, Unavailable
from minidocker.linux.mounts import open_in_root
from minidocker.storage import trees
from minidocker.storage.tar_writer import TarWriter
from minidocker.storage.walk import walk, write

_GIT_TIMEOUT_SECONDS = 600
_TRANSPORTS = ("http", "https", "git", "ssh", "file")
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_TERMINAL_PROMPT": "0",
}
_SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.symlinks=true", "safe.directory=*",
             "advice.detachedHead=false", "init.defaultBranch=main", "protocol.ext.allow=never")  # fmt: skip
_GIT_URL = re.compile(r"(?:git://|ssh://|file://|https?://.*\.git(?:#.*)?\Z|git@[\w.-]+:|github\.com/)")


def is_repository(remote: str) -> bool:
    """Whether a remote context is a git repository (else it is an archive or a Dockerfile)."""
    return _GIT_URL.match(remote) is not None


def fetch(remote: str, directory: Path) -> Context:
    """Fetch a repository and index its files. Blocks: for a thread.

    remote     URL with `#ref:directory`, both optional.
    directory  where the checkout is made, and removed again.
    Raises     InvalidArgument: not a URL, no such directory. Unavailable: git is missing or failed (its last words).
    """
    url, _, fragment = remote.partition("#")
    ref, _, below = fragment.partition(":")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    if ref.startswith("-") or url.startswith("-"):
        raise InvalidArgument(f"invalid git URL: {remote[:300]}")
    checkout = Path(tempfile.mkdtemp(prefix="git-", dir=directory))
    try:
        _git(checkout, "init", "--quiet")
        _git(checkout, "remote", "add", "origin", url)
        _fetch(checkout, ref or "HEAD")
        _git(checkout, "checkout", "--quiet", "FETCH_HEAD")
        if (checkout / ".gitmodules").is_file():
            _git(checkout, "submodule", "--quiet", "update", "--init", "--recursive", allowed=_TRANSPORTS[:-1])
        return _packed(checkout, below.strip("/"), directory)
    finally:
        trees.remove(checkout)


def _fetch(checkout: Path, ref: str) -> None:
    """One commit without its past; all of it from a plain web server, which cannot cut."""
    try:
        _git(checkout, "fetch", "--quiet", "--depth", "1", "origin", "--", ref)
    except Unavailable as error:
        if "shallow" not in str(error):
            raise
        _git(checkout, "fetch", "--quiet", "origin", "--", ref)


def _git(checkout: Path, *words: str, allowed: tuple[str, ...] = _TRANSPORTS) -> None:
    environment = {**_ENVIRONMENT, "GIT_ALLOW_PROTOCOL": ":".join(allowed)}
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    try:
        done = subprocess.run(
            ["git", *settings, *words], cwd=checkout, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_GIT_TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise Unavailable("unable to prepare context: git is not installed on the daemon's machine") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"git {words[0]} did not end in {_GIT_TIMEOUT_SECONDS} seconds") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise Unavailable(f"unable to prepare context: git {words[0]} failed: {said or done.returncode}")


def _packed(checkout: Path, below: str, directory: Path) -> Context:
    root = os.open(checkout, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        top = open_in_root(root, below or "/", os.O_RDONLY | os.O_DIRECTORY)
    except KernelError:
        raise InvalidArgument(f"error setting git context, not a directory: {below}") from None
    finally:
        os.close(root)
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            writer = TarWriter(file.write)
            for found in walk(top, ".", ""):
                if ".git" not in found.entry.name.split("/") and found.leaf:
                    found.entry.uid = found.entry.gid = 0
                    write(writer, found)
            writer.close()
        except OSError as error:
            raise MinidockerError(f"the repository cannot be packed: {error}") from error
        finally:
            os.close(top)
        file.seek(0)
        return Context(file, directory)
