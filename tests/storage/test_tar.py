"""The tar reader and writer against Python's tarfile and GNU tar."""

import io
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from builders import directory, hardlink, make_tar, member, symlink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidocker.errors import InvalidArgument
from minidocker.storage import tar_extensions
from minidocker.storage.streams import ByteStream
from minidocker.storage.tar import DIRECTORY, FILE, HARDLINK, SYMLINK, TarEntry, TarError, TarReader
from minidocker.storage.tar_writer import TarWriter


def read_all(archive: bytes, piece_bytes: int = 1000) -> list[tuple[TarEntry, bytes]]:
    pieces = (archive[at : at + piece_bytes] for at in range(0, len(archive), piece_bytes))
    reader = TarReader(ByteStream(pieces))
    return [(entry, reader.read(1 << 24)) for entry in reader]


def as_tarfile_sees(archive: bytes) -> list[tuple[object, ...]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found: list[tuple[object, ...]] = []
        for info in opened:
            file = opened.extractfile(info) if info.isreg() else None
            content = file.read() if file else b""
            numbers = (info.mode, info.uid, info.gid, info.size if info.isreg() else 0, int(info.mtime))
            found.append(
                (info.name.rstrip("/"), *numbers, info.linkname if info.issym() or info.islnk() else "", content)
            )
        return found


def as_we_see(archive: bytes, piece_bytes: int = 1000) -> list[tuple[object, ...]]:
    return [
        (e.name.rstrip("/"), e.mode, e.uid, e.gid, e.size, e.mtime_ns // 10**9, e.link, content)
        for e, content in read_all(archive, piece_bytes)
    ]


LONG = "d" * 90 + "/" + "e" * 90 + "/" + "f" * 90
MEMBERS = [
    member("plain", b"x" * 700, mode=0o644, uid=1, gid=2, mtime=1_600_000_000),
    member("empty", b"", mode=0o4755),
    member(LONG, b"long name", mode=0o600),
    directory("dir/", mode=0o1777),
    symlink("link", "t" * 150),
    hardlink("hard", "plain"),
    member("block-sized", b"y" * 512),
    member("bünyan", b"unicode"),
    member("big-owner", b"", uid=3_000_000, gid=2_999_999),
    member("last", b"z"),
]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("piece_bytes", [1, 511, 512, 10_000])
def test_reads_what_tarfile_wrote(format: int, piece_bytes: int) -> None:
    members = (
        MEMBERS if format != tarfile.USTAR_FORMAT else [m for m in MEMBERS if m[0].name in ("plain", "empty", "dir/")]
    )
    archive = make_tar(*members, format=format)
    assert as_we_see(archive, piece_bytes) == as_tarfile_sees(archive)


def test_tarfile_reads_what_we_write() -> None:
    output = io.BytesIO()
    writer = TarWriter(output.write)
    for info, content in MEMBERS:
        kind = {b"0": FILE, b"5": DIRECTORY, b"2": SYMLINK, b"1": HARDLINK}[info.type]
        entry = TarEntry(info.name, kind, info.mode, info.uid, info.gid, 0, int(info.mtime) * 10**9, info.linkname)
        writer.add_file(entry, content)
    writer.close()
    archive = output.getvalue()
    assert as_tarfile_sees(archive) == as_tarfile_sees(make_tar(*MEMBERS))
    assert as_we_see(archive) == as_tarfile_sees(archive)
    assert len(archive) % 10240 == 0


def test_keeps_xattrs_and_nanoseconds_of_pax_records() -> None:
    headers = {"SCHILY.xattr.user.note": "hé=llo", "mtime": "1350244992.023960108"}
    ((entry, _),) = read_all(make_tar(member("f", pax_headers=headers)))
    assert entry.xattrs == {"user.note": "hé=llo".encode()}
    assert entry.mtime_ns == 1350244992_023960108


def test_ignores_a_global_header_as_docker_does() -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "77", "comment": "x"}
    ) as made:
        made.addfile(tarfile.TarInfo("f"))
    ((entry, _),) = read_all(buffer.getvalue())
    assert (entry.name, entry.uid) == ("f", 0)


@pytest.mark.parametrize(
    "options", [["--format=gnu"], *(["--format=pax", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_sparse_files_of_gnu_tar_keep_their_content(tmp_path: Path, options: list[str]) -> None:
    content = bytearray(3 << 20)
    for at in range(0, len(content), 100_000):  # 32 pieces: more than old GNU's header and one extension block hold
        content[at : at + 100] = random.Random(at).randbytes(100)
    with open(tmp_path / "holes", "wb") as file:
        for at in range(0, len(content), 100_000):
            file.seek(at)
            file.write(content[at : at + 100])
        file.truncate(len(content))
    done = subprocess.run(["tar", *options, "-S", "-cf", "-", "holes"], cwd=tmp_path, capture_output=True, check=True)
    assert len(done.stdout) < 1 << 20, "tar did not write it as sparse"
    ((entry, found),) = read_all(done.stdout)
    assert entry.name == "holes"
    assert entry.size == len(content)
    assert found == bytes(content)


def header(**fields: bytes) -> bytes:
    """A header block with raw fields replaced and the checksum mended."""
    places = {"name": 0, "mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "type": 156, "link": 157}
    block = bytearray(make_tar(member("victim"), format=tarfile.USTAR_FORMAT)[:512])
    for name, value in fields.items():
        block[places[name] : places[name] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


END = bytes(1024)
HOSTILE_HEADERS = {
    "negative size in base 256": header(size=b"\xff" * 12) + END,
    "size over 2^63": header(size=b"\x80" + b"\xff" * 11) + END,
    "size with a sign": header(size=b"-0000000001\0") + END,
    "size with an underscore": header(size=b"0000_000010\0") + END,
    "size that is no octal": header(size=b"00000000089\0") + END,
    "uid of 2^32-1, chown's 'leave it'": header(uid=b"\x80\0\0\0\xff\xff\xff\xff") + END,
    "negative uid": header(uid=b"\xff" * 8) + END,
    "unknown type": header(type=b"M") + END,
    "wrong checksum": header()[:148] + b"0000001\0" + header()[156:] + END,
    "no data": header(size=b"00000001000\0"),
    "cut in the data": header(size=b"00000001000\0") + b"x" * 100,
    "cut in the header": header()[:300],
    "lone zero block": bytes(512) + header() + END,
    "extended header at the end": header(type=b"x", size=b"00000000000\0") + END,
    "huge extended header": header(type=b"x", size=b"00077777777\0") + END,
    "huge long name": header(type=b"L", size=b"00077777777\0") + END,
}


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_refuses_a_malformed_archive(name: str) -> None:
    with pytest.raises(TarError):
        read_all(HOSTILE_HEADERS[name])


PAX_RECORDS = {
    "no length": b"path=x\n",
    "length too long": b"99 path=x\n",
    "length too short": b"5 path=xyz\n",
    "length zero": b"0 path=x\n",
    "no equals sign": b"8 path\n\n",
    "no newline": b"9 path=xx",
    "zero byte in a path": b"11 path=a\0b\n",
    "negative size": b"11 size=-1\n",
    "huge size": b"28 size=99999999999999999999\n",
    "uid of 2^32-1": b"18 uid=4294967295\n",
    "mtime that is no time": b"13 mtime=1e9\n",
    "sparse without size": b"25 GNU.sparse.map=0,1,5,6\n",
    "sparse pieces that overlap": b"22 GNU.sparse.size=10\n25 GNU.sparse.map=5,4,0,1\n",
    "sparse piece outside the file": b"22 GNU.sparse.size=10\n22 GNU.sparse.map=9,4\n",
    "sparse map out of order": b"22 GNU.sparse.size=10\n26 GNU.sparse.numbytes=10\n23 GNU.sparse.offset=0\n",
}


@pytest.mark.parametrize("name", PAX_RECORDS)
def test_refuses_a_malformed_pax_record(name: str) -> None:
    records = PAX_RECORDS[name]
    size = b"%011o\0" % len(records)
    archive = header(type=b"x", size=size) + records + bytes(-len(records) % 512) + header() + END
    with pytest.raises(TarError):
        read_all(archive)


def test_an_archive_may_end_without_zero_blocks() -> None:
    assert [entry.name for entry, _ in read_all(header())] == ["victim"]
    assert read_all(b"") == []


def test_times_that_no_filesystem_holds_become_1970() -> None:
    ((entry, _),) = read_all(header(mtime=b"\xff" * 12) + END)
    assert entry.mtime_ns == 0


names = st.text(st.characters(blacklist_characters="\0", codec="utf-8"), min_size=1, max_size=300)
entries = st.builds(
    TarEntry,
    name=names.filter(lambda text: not text.endswith("/")),
    kind=st.just(FILE),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 32) - 2),
    gid=st.integers(0, (1 << 32) - 2),
    mtime_ns=st.integers(0, (1 << 33) * 10**9),
    xattrs=st.dictionaries(st.just("user.a"), st.binary(max_size=50)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(entries, st.binary(max_size=1500)), max_size=5), st.integers(1, 2000))
def test_reader_gets_back_what_the_writer_was_given(
    given_entries: list[tuple[TarEntry, bytes]], piece_bytes: int
) -> None:
    output = io.BytesIO()
    writer = TarWriter(output.write)
    for entry, content in given_entries:
        writer.add_file(entry, content)
    writer.close()
    found = read_all(output.getvalue(), piece_bytes)
    assert [(e.name, e.mode, e.uid, e.gid, e.mtime_ns, e.xattrs, c) for e, c in found] == [
        (e.name, e.mode, e.uid, e.gid, e.mtime_ns, e.xattrs, c) for e, c in given_entries
    ]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_archives_give_an_error_or_entries_and_never_crash(data: st.DataObject) -> None:
    archive = bytearray(make_tar(*MEMBERS, format=data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))))
    for _ in range(data.draw(st.integers(1, 6))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # make the damage pass the checksum, else little of the parser is reached
        for at in range(0, len(archive) - 511, 512):
            if archive[at + 257 : at + 262] == b"ustar":
                block = archive[at : at + 512]
                block[148:156] = b" " * 8
                archive[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    try:
        for entry, content in read_all(bytes(archive)):
            assert entry.size >= 0 and len(content) == entry.size
            assert 0 <= entry.uid < 1 << 32 and entry.mtime_ns >= 0
    except InvalidArgument:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_random_bytes_are_no_archive(content: bytes) -> None:
    try:
        assert all(entry.size >= 0 for entry, _ in read_all(content))
    except InvalidArgument:
        pass


@given(st.binary(min_size=8, max_size=12))
def test_numbers_are_bounded(field: bytes) -> None:
    try:
        assert 0 <= tar_extensions.number(field, "size") <= tar_extensions.SIZE_LIMIT
    except tar_extensions.Malformed:
        pass


def test_a_file_of_one_gigabyte_needs_little_memory() -> None:
    """A pull of a huge file must not need its size in memory: 64 MiB are enough for the process."""
    code = (
        "import sys\n"
        "from minidocker.storage.streams import ByteStream\n"
        "from minidocker.storage.tar import TarReader, TarEntry\n"
        "from minidocker.storage.tar_writer import header\n"
        "def pieces():\n"
        "    yield header(TarEntry('big', size=1 << 30))\n"
        "    for _ in range(1 << 10): yield bytes(1 << 20)\n"
        "reader = TarReader(ByteStream(pieces()))\n"
        "for entry in reader:\n"
        "    assert sum(len(piece) for _, piece in reader.data()) == 1 << 30\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "assert int(peak.split()[1]) < 64 << 10, peak\n"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
