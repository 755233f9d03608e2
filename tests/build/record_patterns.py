"""Record what a real dockerd and its command line make of patterns: writes patterns.json beside this file.

    python tests/build/record_patterns.py unix:///path/of/a/dockerd.sock

Each case is a .dockerignore with the files that `COPY . /` then brings, or a pattern of COPY with those that it takes.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FILES = ["a", "b", "ab", "abc", "a.go", "b.go", "README.md", "[x]", "a*b", "a b", "ä", ".hidden", "dir/a", "dir/b.go",
         "dir/c.md", "dir/sub/a", "dir/sub/d.go", "dir/sub/deep/a.go", "dir2/a", "foo/bar/a.go", "foo/bar/baz/x.md",
         "foo/x", "xfoo/y", "xfoo/foo/z", "a-b/c-d", "d.d/e.e", "back\\slash"]  # fmt: skip

IGNORES = [
    "a", "*", "*.go", "**/*.go", "**", "**/a", "a*", "?", "??", "*/*", "*/a", "dir", "dir/", "/dir", "./dir", "dir/*",
    "dir/**", "dir/sub", "**/sub", "**/deep/*.go", "foo/**/a.go", "foo/**/x.md", "**foo", "**/foo", "foo**", "foo*",
    "[ab]", "[a-c]*", "[^a]*", "[^a-c]", "\\*", "a\\*b", "\\[x\\]", "\\a", "a[*]b", ".*", ".hidden", "#a", " a ", "a b",
    "ä", "d?r", "d*r/*a", "dir*/a", "**/*.md", "*.md", "**/b*", "dir/../a", "dir//sub", "../a", "a-b/[c-d]-d", "*.?",
    "d.d", "back\\\\slash", "**/**/a", "foo/**/**", "dir/**/a", "dir/**a", "**/dir/**", "*/**/a.go", "x**o", "{a,b}",
    "*\n!a", "*\n!*.go", "*\n!**/*.go", "*\n!dir", "*\n!dir/sub/a", "*\n!dir/sub", "dir\n!dir/a", "dir\n!dir/sub/d.go",
    "dir/*\n!dir/sub", "**/*.go\n!a.go", "**/*.go\n!dir/b.go", "*.md\n!README*", "!a\na", "a\n!a\na", "*\n!foo/bar",
    "*\n!foo\nfoo/bar", "foo\n!foo/bar/baz", "**\n!**/x.md", "**\n!foo/x", "# comment\n\n  b  \n", "a\n# a\nb", "!*\n*",
]  # fmt: skip

GLOBS = [
    "a", "*", "?", "*.go", "[ab]", "[a-c]*", "[^a]*", "a*", "*b", "d*r", "d*/a", "*/a", "*/*/a", "dir/*", "dir/*.go",
    "dir/sub/*", "**", "**/a", "dir/**", "f?o/*", "\\[x]", "[[]x]", "a\\*b", "a[*]b", "*[x]", "[", "a[", "a[]b", "[a-]",
    "?.go", ".*", "ä", "[ä]", "*/*.md", "a-b/[c-d]-d", "{a,b}*", "x*o/f*", "[!a]", "*\\", "./*.go", "/*.go", "dir*",
]  # fmt: skip


def tree(root: Path, dockerfile: str, ignore: str | None) -> None:
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "Dockerfile").write_text(dockerfile)
    if ignore is not None:
        (root / ".dockerignore").write_text(ignore)


def built(url: str, root: Path) -> list[str] | None:
    """The files of the image that is built; None: it cannot be."""
    environment = {**os.environ, "DOCKER_HOST": url, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", "build", "--no-cache", "-q", str(root)], env=environment, capture_output=True)
    if done.returncode:
        return None
    image = done.stdout.decode().strip()
    saved = subprocess.run(["docker", "save", image], env=environment, capture_output=True).stdout
    subprocess.run(["docker", "rmi", "-f", image], env=environment, capture_output=True, check=True)
    if not saved:  # an image without layers cannot be saved
        return []
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = json.loads(archive.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        layer = archive.extractfile(manifest["Layers"][-1])
        assert layer is not None
        with tarfile.open(fileobj=io.BytesIO(layer.read())) as files:
            names = [member.name for member in files if member.isfile()]
    return sorted(name for name in names if name not in ("Dockerfile", ".dockerignore"))


def main() -> None:
    url = sys.argv[1]
    found: dict[str, dict[str, list[str] | None]] = {"ignore": {}, "glob": {}}
    for kind, patterns in (("ignore", IGNORES), ("glob", GLOBS)):
        for pattern in patterns:
            with tempfile.TemporaryDirectory() as directory:
                copy = "." if kind == "ignore" else json.dumps(pattern)
                text = "FROM scratch\nCOPY . /\n" if kind == "ignore" else f"FROM scratch\nCOPY [{copy}, \"/t/\"]\n"
                tree(Path(directory), text, pattern if kind == "ignore" else None)
                found[kind][pattern] = built(url, Path(directory))
    table = {"files": FILES, **found}
    Path(__file__).with_name("patterns.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
