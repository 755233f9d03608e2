"""Manifests: strict reading, and the choice of a platform."""

import json
import os
from typing import Any

import pytest

from minidocker.errors import InvalidArgument, MinidockerError, NotFound, Unsupported, VerificationError
from minidocker.oci import manifest
from minidocker.oci.digest import Digest, chain_id
from minidocker.oci.manifest import Descriptor, Index, Manifest, Platform

DIGEST = "sha256:" + "a" * 64
BASIC: dict[str, Any] = {
    "schemaVersion": 2,
    "config": {"mediaType": manifest.OCI_CONFIG, "digest": DIGEST, "size": 7},
    "layers": [{"mediaType": manifest.OCI_LAYER + "+gzip", "digest": DIGEST, "size": 9}],
}


def _read(document: Any, media_type: str | None = None) -> Manifest | Index:
    return manifest.parse(json.dumps(document).encode(), media_type)


def test_a_manifest_without_its_own_media_type_is_read_as_what_it_was_served_as() -> None:
    read = _read(BASIC, manifest.OCI_MANIFEST)
    assert isinstance(read, Manifest)
    assert read.layers[0].size == 9


@pytest.mark.parametrize(
    ("change", "served_as", "error"),
    [
        ({"manifests": []}, manifest.OCI_MANIFEST, VerificationError),
        ({}, manifest.OCI_INDEX, VerificationError),
        ({"mediaType": manifest.DOCKER_MANIFEST}, manifest.OCI_MANIFEST, VerificationError),
        ({"schemaVersion": 1}, manifest.OCI_MANIFEST, Unsupported),
        ({"fsLayers": []}, None, Unsupported),
        ({"schemaVersion": 3}, None, InvalidArgument),
        ({"layers": BASIC["layers"] * 128}, None, InvalidArgument),
        ({"layers": [dict(BASIC["layers"][0], size=-1)]}, None, InvalidArgument),
        ({"layers": [dict(BASIC["layers"][0], digest="sha256:..")]}, None, InvalidArgument),
        ({"layers": [dict(BASIC["layers"][0], mediaType="text/html")]}, None, Unsupported),
        ({"config": dict(BASIC["config"], mediaType="application/vnd.cncf.helm.config.v1+json")}, None, Unsupported),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    change: dict[str, Any], served_as: str | None, error: type[MinidockerError]
) -> None:
    with pytest.raises(error):
        _read(BASIC | change, served_as)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"config":' * 100_000, b"", b"null", b"\xff\xfe", b"{}"])
def test_bytes_that_are_no_manifest_are_an_error_and_nothing_worse(content: bytes) -> None:
    with pytest.raises(MinidockerError):
        manifest.parse(content, None)


def _index(*platforms: str) -> Index:
    return Index(
        2,
        [
            Descriptor(manifest.OCI_MANIFEST, Digest.of(text.encode()), 1, platform=Platform.parse(text))
            for text in platforms
        ],
    )


@pytest.mark.parametrize(
    ("there", "wanted", "chosen"),
    [
        (("linux/386", "linux/amd64"), "linux/amd64", "linux/amd64"),
        (("linux/arm64/v8",), "linux/arm64", "linux/arm64/v8"),
        (("linux/arm/v6", "linux/arm/v7"), "linux/arm/v7", "linux/arm/v7"),
        (("linux/arm/v5", "linux/arm/v6"), "linux/arm/v7", "linux/arm/v6"),
        (("linux/amd64/v3", "linux/amd64"), "linux/amd64", "linux/amd64"),
    ],
)
def test_the_platform_that_suits_best_is_chosen(there: tuple[str, ...], wanted: str, chosen: str) -> None:
    descriptor = manifest.choose(_index(*there), Platform.parse(wanted))
    assert str(descriptor.platform) == chosen


@pytest.mark.parametrize(("there", "wanted"), [("linux/s390x", "linux/amd64"), ("linux/arm/v7", "linux/arm/v6")])
def test_no_platform_that_runs_here_is_an_error_that_names_those_there(there: str, wanted: str) -> None:
    with pytest.raises(NotFound, match=there):
        manifest.choose(_index(there), Platform.parse(wanted))


def test_chain_ids_are_those_of_the_specification() -> None:
    first, second = Digest.of(b"1"), Digest.of(b"2")
    assert chain_id((first,)) == first
    assert chain_id((first, second)) == Digest.of(f"{first} {second}".encode())


def test_a_platform_of_one_word_is_a_known_system_or_architecture() -> None:
    assert str(Platform.parse("arm64")) == str(Platform.parse("linux/aarch64")) == "linux/arm64"
    assert Platform.parse("Linux") == Platform.of_machine(os.uname().machine)
    with pytest.raises(InvalidArgument, match='"foobar": unknown operating system or architecture: invalid argument'):
        Platform.parse("foobar")
