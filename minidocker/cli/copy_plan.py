"""Where a copied file lands: the rules of `docker cp`, as pure work on paths.

Source  docker cp's reference; the rules of moby's archive/copy.go, which follow `cp -a`.
Rules   - a trailing "/" or "/." says that a path is a directory; "/." also that its contents are meant.
        - an archive's entries begin with the source's last component: landing under another name is renaming that.
"""

import posixpath

from minidocker.cli.session import CommandFailure


class End:
    """One end of a copy. `rename`: what its entries are called instead of its last component; "" keeps that."""

    __slots__ = ("exists", "is_directory", "path", "rename")

    def __init__(self, path: str, *, exists: bool = False, is_directory: bool = False, rename: str = "") -> None:
        self.path = path
        self.exists = exists
        self.is_directory = is_directory
        self.rename = rename


def means_contents(path: str) -> bool:
    """`SRC/.`"""
    return path == "." or path.endswith("/.")


def asserts_directory(path: str) -> bool:
    """True if the path itself says that it is a directory."""
    return path.endswith("/") or means_contents(path)


def clean(path: str) -> str:
    """The path without "//", "." and "..", not more than one slash in front.

    >>> clean("//a/./b/../c/")
    '/a/c'
    """
    shown = posixpath.normpath(path)
    return shown[1:] if shown.startswith("//") else shown


def split(path: str) -> tuple[str, str]:
    """Directory and last component, which is "." where the contents are meant.

    >>> split("/a/b/"), split("/a/b/."), split("/")
    (('/a', 'b'), ('/a/b', '.'), ('/', '/'))
    """
    shown = clean(path)
    if means_contents(path):
        return shown, "."
    return posixpath.dirname(shown) or ("/" if shown.startswith("/") else "."), posixpath.basename(shown) or "/"


def kept_ending(path: str, resolved: str) -> tuple[str, str]:
    """`resolved`, a link's end, with the ending that `path` had, and the name that its entries are to keep.

    >>> kept_ending("/a/link/", "/x/dir")
    ('/x/dir/', 'link')
    """
    if means_contents(path) and not means_contents(resolved):
        resolved += "/."
    if path.endswith("/") and not resolved.endswith("/"):
        resolved += "/"
    before, after = clean(path).rpartition("/")[2], clean(resolved).rpartition("/")[2]
    if means_contents(path):
        before, after = ".", "."
    return resolved, "" if before == after else before


def land(source: End, target: End) -> tuple[str, str, str]:
    """Where to unpack, and which first component of the entries becomes which.

    Returns  (directory, old, new); old and new are "" where nothing is renamed.
    Raises   CommandFailure: a directory onto a file, a file under a name that says it is a directory.
    """
    directory, name = split(target.path)
    old = source.rename or split(source.path)[1]
    if target.exists and target.is_directory:
        return target.path, "", ""
    if target.exists and source.is_directory:
        raise CommandFailure("cannot copy directory")
    if not target.exists and not source.is_directory and asserts_directory(target.path):
        raise CommandFailure("no such directory")
    return directory, old, name


def renamed(name: str, old: str, new: str) -> str:
    """An entry's name with its first component exchanged.

    >>> renamed("a/b", "a", "x"), renamed("./b", ".", "x"), renamed("b", "/", "x")
    ('x/b', 'x/b', 'x/b')
    """
    if not old:
        return name
    rest = name if old == "/" else name.removeprefix(old)
    return posixpath.join(new, rest.lstrip("/")) if rest.strip("/") else new
