"""Builds compared with Docker's own: what is said, the image's configuration, its history, every file of its layers."""

import io
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

FROM = "FROM box:1\n"
MKDIR = "busybox mkdir"
FAILED_TO_PARSE = "failed to parse Dockerfile: "

CASES: dict[str, str] = {
    "env": FROM + "ENV A=1 B=\"x y\" C=$A D=${A:-z} E=${NO:-z} F=${A:+y}\nENV G=$B'$A' H=\\$A I=\"\\$A\" J=a\\ b\nENV OLD some  text",
    "env twice": FROM + "ENV A=1\nENV A=2 B=$A\nENV A=${B}x\nRUN echo $A$B",
    "arg": "ARG TAG=1\nARG NAME=box\nFROM ${NAME}:$TAG\nARG TAG\nARG X=5\nARG Y\nRUN echo $TAG $X $Y\nENV X=env\nRUN echo $X",
    "run": FROM + "RUN echo hi\nRUN echo err >&2\nRUN [\"echo\", \"a b\"]\nRUN echo a > /f && busybox chmod 4755 /f && busybox ln /f /g",
    "run changes": FROM + f"RUN {MKDIR} -p /a/b && echo 1 > /a/b/c && busybox ln -s b /a/l\nRUN busybox rm -r /a/b\nRUN busybox rm /etc/passwd",
    "run nothing": FROM + "RUN true\nRUN true",
    "continuation": FROM + "RUN echo one \\\n # a comment\n\t&& echo two \\\n\n && echo three",
    "escape": "# escape=`\n" + FROM + "RUN echo a `\n && echo b\nENV A=`$x B=c:\\d",
    "copy": FROM + "COPY a.txt /x\nCOPY a.txt /d/\nCOPY a.txt b.bin /e/\nCOPY a.txt /tmp\nCOPY dir /dir\nCOPY dir/ /dir2/",
    "copy all": FROM + "COPY . /all",
    "copy links": FROM + "COPY link /l\nCOPY dir/up /m\nCOPY dirlink /n\nCOPY dirlink/c.txt /o",
    "copy globs": FROM + "COPY *.txt /t/\nCOPY dir/?.txt /u/\nCOPY d[a-i]r/* /v/\nCOPY [\"a b.txt\", \"/w/\"]\nCOPY no*.txt a.txt /y/",
    "copy chown": FROM + "COPY --chown=7 a.txt /p\nCOPY --chown=7:8 dir /q\nCOPY --chown=root:0 a.txt /r/s/t\nCOPY --chown=9:9 dir /tmp",
    "copy over": FROM + f"RUN {MKDIR} -p /d/sub && busybox ln -s /d /ld && echo x > /d/c.txt\nCOPY dir /ld\nCOPY a.txt /ld/\nCOPY a.txt /d/sub",
    "copy relative": FROM + "WORKDIR /w\nCOPY a.txt .\nCOPY a.txt ./b\nCOPY a.txt c/\nWORKDIR rel\nCOPY dir ..",
    "copy variables": FROM + "ENV F=a.txt D=/v/\nARG G=b\nCOPY $F ${G}.bin $D",
    "copy twice": FROM + "COPY a.txt /x\nCOPY b.bin /x\nCOPY a.txt /x",
    "add archives": FROM + "ADD plain.tar /p\nADD packed.tgz /g/\nADD packed.tbz /b\nADD packed.txz /x\nADD a.txt /a\nADD --chown=5 plain.tar /c",
    "copy archives": FROM + "COPY packed.tgz /g/",
    "stages": "FROM box:1 AS one\nRUN echo built > /out\nWORKDIR /one\nFROM box:1\nCOPY --from=one /out /o1\nCOPY --from=0 /out /bin/sh /o2/\nCOPY --from=box:1 /etc/passwd /pw\nCOPY --from=one /etc /etc2",
    "stage on stage": "FROM box:1 AS one\nENV A=1\nRUN echo x > /x\nFROM one AS two\nRUN echo $A > /y\nFROM two\nCMD [\"y\"]",
    "stage owners": "FROM box:1 AS one\nCOPY --chown=4:5 dir /d\nFROM box:1\nCOPY --from=one /d /kept\nCOPY --from=one --chown=6 /d /changed",
    "scratch": "FROM scratch\nCOPY a.txt /\nCOPY dir /dir\nCMD [\"/a\"]",
    "workdir": FROM + "WORKDIR /a/b\nWORKDIR c\nWORKDIR ../d\nWORKDIR /tmp\nENV P=/q\nWORKDIR $P/r\nRUN pwd",
    "user": FROM + "USER 5:6\nRUN id\nWORKDIR /w\nCOPY a.txt /w/\nUSER root\nENV U=7\nUSER $U",
    "label": FROM + "LABEL a=b\nLABEL \"c d\"=\"e f\" g='h i' j=k\\ l\nLABEL multi=\"x\\\ny\"\nLABEL old form\nENV V=v\nLABEL w=$V",
    "expose": FROM + "EXPOSE 80\nEXPOSE 90/udp 100-102 80/tcp\nENV P=7\nEXPOSE $P ${P}1",
    "volume": FROM + "VOLUME /v1 /v2\nVOLUME [\"/v3\", \"/v 4\"]\nENV V=/v5\nVOLUME $V\nRUN echo gone > /v1/f",
    "cmd": FROM + "CMD echo hi\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"a\", \"b c\"]",
    "entrypoint resets": FROM + "ENTRYPOINT echo \"x\"",
    "shell": FROM + "SHELL [\"/bin/busybox\", \"sh\", \"-ec\"]\nRUN echo x\nCMD y\nENTRYPOINT z",
    "healthcheck": FROM + "HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 --start-period=2h CMD echo \"ok\"\nHEALTHCHECK CMD [\"a\", \"b\"]\nHEALTHCHECK NONE",
    "stopsignal": FROM + "STOPSIGNAL SIGKILL\nSTOPSIGNAL 9\nENV S=TERM\nSTOPSIGNAL $S",
    "maintainer": FROM + "MAINTAINER A B <a@b>\nENV a=b",
    "onbuild": "FROM box:1 AS base\nONBUILD RUN echo trig\nONBUILD COPY a.txt /a\nFROM base\nENV A=1\nFROM base\n",
    "case": "from box:1 as X\nrun echo low\nFrom x\nCopy --from=X /etc/passwd /p",
    "crlf": "FROM box:1\r\nRUN echo a\r\nENV A=b\r\nCMD [\"x\"]\r\n",
    "comments": "# one\n\n  # two\n" + FROM + "   \n   ENV A=#1\n#RUN false\n",
}  # fmt: skip

FAILURES: dict[str, str] = {
    "no file": FROM + "COPY nope /x",
    "no file in glob": FROM + "COPY q*z /x/",
    "outside": FROM + "COPY ../x /x",
    "outside by link": FROM + "COPY outside /x",
    "many into one": FROM + "COPY a.txt b.bin /x",
    "false": FROM + "RUN exit 7",
    "no such program": FROM + "RUN [\"/nope\"]",
    "no stage": FROM + "COPY --from=5 /x /y",
    "own stage": FROM + "COPY --from=0 /x /y",
    "not in stage": "FROM box:1 AS a\nFROM box:1\nCOPY --from=a /nope /y",
    "no such user": FROM + "COPY --chown=nope a.txt /x",
    "no unset": FROM + "ENV A=${B:?missing}",
    "open brace": FROM + "ENV A=${B",
    "open quote": FROM + "ENV A=\"x",
    "bad substitution": FROM + "ENV A=${}",
    "modifier": FROM + "ENV A=${B:=x}",
    "port": FROM + "EXPOSE 99999",
    "signal": FROM + "STOPSIGNAL foo",
    "unknown": FROM + "FOO bar",
    "unknown flag": FROM + "COPY --bad=1 a /x",
    "duplicate flag": FROM + "COPY --chown=1 --chown=2 a /x",
    "flag without value": FROM + "COPY --chown a.txt /x",
    "env": FROM + "ENV a",
    "env equals": FROM + "ENV a=b c",
    "env blank": FROM + "ENV =b",
    "workdir": FROM + "WORKDIR",
    "user": FROM + "USER",
    "cmd of numbers": FROM + "CMD [1]",
    "copy one": FROM + "COPY a.txt",
    "onbuild onbuild": FROM + "ONBUILD ONBUILD RUN x",
    "onbuild from": FROM + "ONBUILD FROM x",
    "healthcheck": FROM + "HEALTHCHECK FOO",
    "healthcheck unit": FROM + "HEALTHCHECK --interval=1 CMD x",
    "healthcheck none": FROM + "HEALTHCHECK NONE x",
    "healthcheck empty": FROM + "HEALTHCHECK CMD",
    "shell form": FROM + "SHELL sh",
    "volume": FROM + "VOLUME [\"\"]",
    "stage name": "FROM box:1 AS 1x",
    "stage twice": "FROM box:1 AS x\nFROM box:1 AS x",
    "from words": "FROM box:1 x",
    "from nothing": "FROM $X",
    "no from": "ENV a=b",
    "scratch only": "FROM scratch",
    "empty": "",
    "comment only": "# nothing",
    "bad escape": "# escape=x\nFROM box:1",
    "url in copy": FROM + "COPY http://127.0.0.1:1/x /y",
    "add nothing": FROM + "ADD",
}  # fmt: skip


def _archive(path: Path, mode: str) -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, kind, content in (("in", tarfile.DIRTYPE, b""), ("in/f", tarfile.REGTYPE, b"packed"),
                                    ("in/l", tarfile.SYMTYPE, b""), ("g", tarfile.REGTYPE, b"top")):
            member = tarfile.TarInfo(name)
            member.type, member.size, member.mode, member.uid, member.gid = kind, len(content), 0o750, 11, 12
            member.linkname = "f" if kind == tarfile.SYMTYPE else ""
            member.mtime = 1_600_000_000
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("context")
    (root / "dir/sub").mkdir(parents=True)
    for name in ("a.txt", "b.bin", "a b.txt", "dir/c.txt", "dir/sub/d.txt"):
        (root / name).write_text(name)
    (root / "a.txt").chmod(0o4711)
    (root / "dir").chmod(0o2770)
    (root / "dir/sub").chmod(0o700)
    os.symlink("a.txt", root / "link")
    os.symlink("../b.bin", root / "dir/up")
    os.symlink("dir", root / "dirlink")
    os.symlink("../../../../etc/hostname", root / "outside")
    os.link(root / "dir/c.txt", root / "dir/hard.txt")
    for name, mode in (("plain.tar", "w"), ("packed.tgz", "w:gz"), ("packed.tbz", "w:bz2"), ("packed.txz", "w:xz")):
        _archive(root / name, mode)
    return root


@pytest.mark.parametrize("name", CASES)
def test_makes_the_same_image(name: str, context: Path, alike: Callable[..., tuple[object, object]]) -> None:
    (context / "Dockerfile").write_text(CASES[name])
    theirs, ours = alike(context, "--no-cache")
    assert ours.said == theirs.said  # type: ignore[attr-defined]
    assert ours.config == theirs.config  # type: ignore[attr-defined]
    assert ours.history == theirs.history  # type: ignore[attr-defined]
    assert ours.layers == theirs.layers  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FAILURES)
def test_fails_with_the_same_words(name: str, context: Path, alike: Callable[..., tuple[object, object]]) -> None:
    (context / "Dockerfile").write_text(FAILURES[name])
    theirs, ours = alike(context)
    assert theirs.status, "Docker builds it"  # type: ignore[attr-defined]
    said = ours.said  # type: ignore[attr-defined]
    if "dockerfile parse error" not in theirs.said:  # type: ignore[attr-defined]  # ours always tells the line
        said = re.sub(r"dockerfile parse error line \d+: ", FAILED_TO_PARSE if FAILED_TO_PARSE in theirs.said else "", said)  # type: ignore[attr-defined]
    assert (ours.status, said) == (theirs.status, theirs.said)  # type: ignore[attr-defined]
