"""Which blob points to which: indexes, manifests, configs and layers of an image archive, and what images share.

Source  OCI image-spec, descriptor.md.
Rules   - drawn from the bytes: the digest of each blob is computed anew and compared with its name.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from minidocker.lab.diagrams.picture import OWN, SHARED, Picture, count, quoted
from minidocker.lab.props.image_archive import REFERENCE_NOTE, ImageArchive, descriptors_in, kind_of
from minidocker.oci.digest import Digest

TOP = "index.json"
KINDS = ("index", "manifest", "config", "layer")
COLUMNS = ("kind", "name or platform", "digest", "bytes", "pointed to by", "digest computed anew")


@dataclass
class Blob:
    """One blob of the graph. `holders`: who points to it; `note`: what a reader wants to see of it."""

    digest: str
    kind: str
    size: int
    note: str = ""
    holders: list[str] = field(default_factory=list)

    @property
    def short(self) -> str:
        """The first 12 digits."""
        return self.digest.partition(":")[2][:12]


def blobs_of(archive: ImageArchive) -> dict[str, Blob]:
    """Every blob that can be reached from index.json, in the order in which the descriptors lead there."""
    found: dict[str, Blob] = {}
    for holder, entry in _edges(archive, TOP, archive.index):
        digest = entry["digest"]
        blob = found.setdefault(digest, Blob(digest, kind_of(entry["mediaType"]), entry["size"]))
        blob.note = blob.note or _note(entry)
        if holder not in blob.holders:
            blob.holders.append(holder)
    return found


def _edges(archive: ImageArchive, holder: str, document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in descriptors_in(document):
        yield holder, entry
        if kind_of(entry["mediaType"]) in ("index", "manifest") and entry["digest"] in archive.blobs:
            yield from _edges(archive, entry["digest"], archive.read_json(entry["digest"]))


def _note(entry: dict[str, Any]) -> str:
    name = str(entry.get("annotations", {}).get(REFERENCE_NOTE, "")).removeprefix("docker.io/library/")
    place = entry.get("platform") or {}
    return name or "/".join(part for part in (place.get("os"), place.get("architecture")) if part)


def state_of(archive: ImageArchive, digest: str) -> str:
    """Whether the bytes still have the digest that names them: "verified", "changed" or "missing"."""
    if digest not in archive.blobs:
        return "missing"
    return "verified" if Digest.of(archive.blobs[digest]) == digest else "changed"


def image_graph(archive: ImageArchive) -> Picture:
    """The descriptors as arrows, from index.json to the layers; a blob that several point to is drawn once.

    Raises  ValueError: an index or a manifest is no JSON.
    """
    blobs = blobs_of(archive)
    lines, rows = [f'top [label={quoted(TOP)} style="filled,bold"]'], []
    for blob in blobs.values():
        state = state_of(archive, blob.digest)
        shared = len(blob.holders) > 1
        text = [f"{blob.kind} {blob.note}".strip(), blob.short, _bytes(blob.size)]
        text += [f"shared by {len(blob.holders)}"] if shared else []
        text += [f"{state.upper()}!"] if state != "verified" else []
        style = "filled" if state == "verified" else "filled,dashed,bold"
        fill = SHARED if shared else OWN if blob.kind == "layer" else "white"
        lines.append(f'{quoted(blob.digest)} [label={quoted(*text)} style="{style}" fillcolor="{fill}"]')
        for holder in blob.holders:
            lines.append(f"{'top' if holder == TOP else quoted(holder)} -> {quoted(blob.digest)}")
        by = ", ".join(holder if holder == TOP else blobs[holder].short for holder in blob.holders)
        rows.append((blob.kind, blob.note or "-", blob.short, str(blob.size), by, state))
    return Picture("\n".join(lines), _alt(archive, blobs), COLUMNS, tuple(rows))


def _alt(archive: ImageArchive, blobs: dict[str, Blob]) -> str:
    kinds = [blob.kind for blob in blobs.values()]
    counted = ", ".join(_count(kinds.count(kind), kind) for kind in KINDS if kind in kinds)
    shared = sum(len(blob.holders) > 1 for blob in blobs.values())
    bad = sum(state_of(archive, digest) != "verified" for digest in blobs)
    return f"{TOP} leads to {counted}; {shared or 'none'} of these blobs shared, " + (
        f"{bad} not what their names promise" if bad else "all of them what their names promise"
    )


def _count(number: int, kind: str) -> str:
    return f"{number} indexes" if kind == "index" and number != 1 else count(number, kind)


def _bytes(size: int) -> str:
    return f"{size} bytes" if size < 100_000 else f"{size / 1e6:.2f} MB"
