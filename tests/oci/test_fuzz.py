"""Strangers' bytes: manifests, indexes, configs and references of any shape are read or refused, never a crash."""

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from minidocker.errors import MinidockerError
from minidocker.oci import image_config, manifest
from minidocker.oci.reference import Reference

DIGEST = "sha256:" + "a" * 64
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TYPES = [*manifest.ACCEPTED_TYPES, *manifest.SCHEMA1, *manifest.CONFIG_TYPES, *manifest.LAYER_COMPRESSIONS, ""]
VALUES = JSON | st.sampled_from([*TYPES, DIGEST, "sha256:" + "A" * 64, 2, -1, 1 << 63, 1 << 200])


@st.composite
def bent(draw: st.DrawFn, document: dict[str, Any]) -> bytes:
    """A document with some of its members, anywhere in it, replaced, removed or added."""

    def bend(value: Any) -> Any:
        match draw(st.integers(0, 9)):
            case 0:
                return draw(VALUES)
            case 1 if isinstance(value, dict) and value:
                value = dict(value)
                value.pop(draw(st.sampled_from(sorted(value))))
                return value
            case 2 if isinstance(value, dict):
                return value | {draw(st.sampled_from(["manifests", "layers", "config", "fsLayers", "urls", "size"])):
                                draw(VALUES)}  # fmt: skip
        if isinstance(value, dict):
            return {key: bend(inner) for key, inner in value.items()}
        return [bend(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(bend(document)).encode()


def descriptor(media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 7, "annotations": {"a": "b"}}


MANIFEST = {"schemaVersion": 2, "mediaType": manifest.OCI_MANIFEST, "config": descriptor(manifest.OCI_CONFIG),
            "layers": [descriptor(manifest.OCI_LAYER), descriptor(manifest.DOCKER_LAYER + ".gzip")]}  # fmt: skip
INDEX = {"schemaVersion": 2, "mediaType": manifest.OCI_INDEX, "manifests": [
    descriptor(manifest.OCI_MANIFEST) | {"platform": {"architecture": "arm", "os": "linux", "variant": "v7"}},
    descriptor(manifest.OCI_INDEX)]}  # fmt: skip
CONFIG = {"architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "author": "x",
          "config": {"Cmd": ["sh"], "Entrypoint": None, "Env": ["A=b"], "Labels": {"a": "b"}, "Volumes": {"/v": {}},
                     "ExposedPorts": {"80/tcp": {}}, "User": "1:2", "WorkingDir": "/x", "StopSignal": "SIGTERM",
                     "Healthcheck": {"Test": ["NONE"], "Interval": 5, "Retries": 3}, "Shell": ["sh"], "OnBuild": []},
          "rootfs": {"type": "layers", "diff_ids": [DIGEST, DIGEST]},
          "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}]}  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=64) | bent(MANIFEST) | bent(INDEX), st.none() | st.sampled_from(TYPES))
@example(b'{"layers":' + b"[" * 100_000, None)
@example(b'{"x":' * 50_000, manifest.OCI_MANIFEST)
@example(b'{"schemaVersion":2,"layers":[],"config":{},"x":"\xff"}', None)
@example(b'{"schemaVersion":2,"mediaType":"\\ud800","manifests":[]}', None)
def test_any_bytes_are_a_manifest_or_refused(content: bytes, media_type: str | None) -> None:
    try:
        found = manifest.parse(content, media_type)
    except MinidockerError as error:
        str(error).encode()
        return
    if isinstance(found, manifest.Index):
        try:
            manifest.choose(found, manifest.Platform("arm", "linux", "v7"))
        except MinidockerError:
            return
    else:
        assert len(found.layers) <= manifest.LAYER_COUNT_LIMIT
        assert all(layer.size >= 0 for layer in found.layers)


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=64) | bent(CONFIG))
@example(b'{"config":{"Labels":' + b'{"a":' * 100_000)
def test_any_bytes_are_a_config_or_refused(content: bytes) -> None:
    try:
        found = image_config.parse(content, "config")
    except MinidockerError as error:
        str(error).encode()
        return
    assert isinstance(found.diff_ids, list | tuple)
    assert found.execution is not None and str(found.platform) is not None


NAME_PIECES = st.text(st.sampled_from("abcXYZ019._-/:@[]% \n\0é"), max_size=40)


@settings(max_examples=3000, deadline=None)
@given(NAME_PIECES | st.text(max_size=60) | st.builds("{}@{}".format, NAME_PIECES, st.sampled_from([DIGEST, "md5:a"])))
@example("a/" * 2000 + "b")
@example("a" * 64)
@example("x:" + "t" * 129)
@example("localhost:" + "9" * 100 + "/x")
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    """What is read is written and read again as the same; nothing that leaves its URL or its line is a name."""
    try:
        found = Reference.parse(text)
    except MinidockerError as error:
        str(error).encode("utf-8", "surrogateescape")
        return
    assert Reference.parse(str(found)) == found
    assert Reference.parse(found.familiar) == found
    assert not set(str(found)) & set(" \n\0%?#\\é") and ".." not in found.path.split("/")
