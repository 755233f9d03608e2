"""Request bodies and queries of any shape: 2xx, 4xx or 5xx that is no crash; the daemon's log has no trace."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .conftest import Daemon, make_daemon

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
VALUES = JSON | st.sampled_from(
    [
        -1,
        0,
        1,
        1 << 31,
        1 << 63,
        1 << 64,
        1 << 200,
        1e308,
        "",
        "\0",
        "/",
        "../..",
        "a:b:c:d",
        "host",
        "container:",
        "ns:x",
        "container:nope",
        ["\0"],
        [""],
        ["a"],
        ["/x:/y:zz"],
        {"": {}},
        {"80/tcp": [{}]},
        {"80": None},
        "\ud800",
        "x" * 70_000,
    ]
)
TEXT = st.sampled_from(
    [
        "",
        "/",
        "a",
        "host",
        "none",
        "private",
        "container:",
        "container:nope",
        "a:b:c",
        "-1",
        "0-",
        "9",
        "é",
        "/x:/y:zz",
        "x=y=z",
        "SIGNOPE",
        "1000:nope",
        "..",
        "a b\n",
        "%s",
        "bridge",
    ]
) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
NUMBER = st.sampled_from([-(1 << 63), -2, -1, 0, 1, 2, 1000, 6 << 20, 1 << 31, 1 << 40, (1 << 63) - 1]) | st.integers(
    -9, 99
)
TEXTS = st.lists(TEXT, max_size=3)
PAIRS = st.dictionaries(TEXT, TEXT, max_size=2)
SETS = st.dictionaries(TEXT | st.sampled_from(["80/tcp", "/v", "1-9/udp"]), st.just({}), max_size=2)


def objects(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(st.fixed_dictionaries({}, optional=members), max_size=2)


HOST: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(
        [
            "Memory",
            "MemorySwap",
            "MemoryReservation",
            "MemorySwappiness",
            "CpuShares",
            "NanoCpus",
            "CpuQuota",
            "CpuPeriod",
            "PidsLimit",
            "ShmSize",
            "OomScoreAdj",
            "BlkioWeight",
            "CpuRealtimeRuntime",
        ],
        NUMBER,
    ),
    **dict.fromkeys(
        [
            "NetworkMode",
            "IpcMode",
            "PidMode",
            "UTSMode",
            "UsernsMode",
            "CgroupnsMode",
            "CpusetCpus",
            "CpusetMems",
            "Runtime",
            "Isolation",
            "CgroupParent",
            "ContainerIDFile",
            "VolumeDriver",
        ],
        TEXT,
    ),
    **dict.fromkeys(
        [
            "Binds",
            "CapAdd",
            "CapDrop",
            "SecurityOpt",
            "DeviceCgroupRules",
            "ExtraHosts",
            "Dns",
            "DnsSearch",
            "DnsOptions",
            "GroupAdd",
            "VolumesFrom",
            "Links",
            "MaskedPaths",
            "ReadonlyPaths",
        ],
        TEXTS,
    ),
    **dict.fromkeys(["Sysctls", "Tmpfs", "StorageOpt", "Annotations"], PAIRS),
    **dict.fromkeys(
        ["ReadonlyRootfs", "Privileged", "Init", "AutoRemove", "PublishAllPorts", "OomKillDisable"], st.booleans()
    ),
    "Ulimits": objects(Name=TEXT | st.just("nofile"), Soft=NUMBER, Hard=NUMBER),
    "PortBindings": st.dictionaries(TEXT | st.just("80/tcp"), objects(HostIp=TEXT, HostPort=TEXT), max_size=2),
    "Mounts": objects(
        Type=TEXT | st.sampled_from(["bind", "volume", "tmpfs", "image"]),
        Source=TEXT,
        Target=TEXT,
        ReadOnly=st.booleans(),
        TmpfsOptions=st.just({"SizeBytes": -1, "Mode": 1 << 40}),
        BindOptions=st.just({"Propagation": "x"}),
        VolumeOptions=st.just({"Subpath": "../x"}),
    ),
    "Devices": objects(PathOnHost=TEXT | st.just("/dev/null"), PathInContainer=TEXT, CgroupPermissions=TEXT),
    "DeviceRequests": objects(Driver=TEXT, Count=NUMBER),
    "RestartPolicy": st.fixed_dictionaries(
        {}, optional={"Name": TEXT | st.just("always"), "MaximumRetryCount": NUMBER}
    ),
    "LogConfig": st.fixed_dictionaries({}, optional={"Type": TEXT | st.just("json-file"), "Config": PAIRS}),
    "BlkioDeviceReadBps": objects(Path=TEXT | st.just("/dev/null"), Rate=NUMBER),
    "ConsoleSize": st.lists(NUMBER, max_size=3),
}
CONFIG: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(["Hostname", "Domainname", "User", "WorkingDir", "MacAddress", "StopSignal"], TEXT),
    **dict.fromkeys(["AttachStdin", "Tty", "OpenStdin", "StdinOnce", "NetworkDisabled"], st.booleans()),
    **dict.fromkeys(["Env", "Cmd", "Entrypoint", "OnBuild", "Shell"], TEXTS),
    **dict.fromkeys(["ExposedPorts", "Volumes"], SETS),
    "Labels": PAIRS,
    "StopTimeout": NUMBER,
    "Healthcheck": st.fixed_dictionaries(
        {},
        optional={"Test": TEXTS | st.just(["CMD", "true"]), "Interval": NUMBER, "Timeout": NUMBER, "Retries": NUMBER},
    ),
    "NetworkingConfig": st.fixed_dictionaries({"EndpointsConfig": st.dictionaries(TEXT, st.just({}), max_size=2)}),
}


@st.composite
def documents(draw: st.DrawFn, kinds: dict[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    """Some members, most of them of the right type with a strange value, the others of any."""
    names = draw(st.lists(st.sampled_from(sorted(kinds)), max_size=3))
    return {name: draw(kinds[name] if draw(st.integers(0, 5)) else VALUES) for name in names}


BODIES = st.builds(
    lambda config, host: {"Image": "busybox", "Cmd": ["true"], "HostConfig": host, **config},
    documents(CONFIG),
    documents(HOST),
)
SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


class Caller:
    """HTTP over the socket, without any client's own checks; the connection is kept."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.connection: http.client.HTTPConnection | None = None

    def __call__(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("d", timeout=30)
            self.connection.sock = socket.socket(socket.AF_UNIX)
            self.connection.sock.connect(str(self.daemon.socket))
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection = None
            raise
        if answer.will_close:
            self.connection.close()
            self.connection = None
        return answer.status, content


@pytest.fixture(scope="module")
def call(image_root: Any) -> Iterator[Caller]:
    for daemon in make_daemon(image_root, ["--bridge", "none"]):
        yield Caller(daemon)
        assert "Traceback" not in daemon.log(), daemon.log()[-3000:]


def checked(status: int, content: bytes, what: object) -> None:
    elsewhere = b"cannot connect to" in content  # a registry that nobody named, and that cannot be reached
    assert status != 500 or elsewhere, (what, content)
    if status >= 400:
        message = json.loads(content)["message"]
        assert message and "\n  File" not in message, message


@settings(max_examples=700, deadline=None, suppress_health_check=SLOW)
@given(BODIES)
def test_any_create_body_makes_a_container_or_a_refusal(call: Caller, body: dict[str, Any]) -> None:
    try:
        raw = json.dumps(body).encode()
    except (UnicodeEncodeError, ValueError):
        return
    status, content = call("POST", "/v1.44/containers/create", raw)
    checked(status, content, body)
    if status == 201:
        name = json.loads(content)["Id"]
        for path in (f"/containers/{name}/json", "/containers/json?all=1"):
            found, shown = call("GET", path)
            assert found == 200, (body, shown)
        assert call("DELETE", f"/containers/{name}?force=1&v=1")[0] == 204


@settings(max_examples=300, deadline=None, suppress_health_check=SLOW)
@given(
    st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [
            "/containers/create",
            "/volumes/create",
            "/auth",
            "/containers/nope/exec",
            "/containers/x/update",
            "/networks/create",
            "/exec/x/start",
        ]
    ),
)
@example(b'{"a":' * 100_000, "/containers/create")
@example(b"[" * 100_000, "/auth")
@example(b'{"Image":"\\ud800"}', "/containers/create")
def test_any_bytes_are_a_body_or_refused(call: Caller, body: bytes, path: str) -> None:
    checked(*call("POST", path, body), (path, body))


PATHS = [
    "/containers/json",
    "/images/json",
    "/events?until=1",
    "/networks",
    "/volumes",
    "/info",
    "/system/df",
    "/version",
    "/containers/nope/json",
    "/containers/nope/logs",
    "/images/nope/json",
    "/containers/nope/top",
    "/containers/nope/stats",
    "/containers/nope/archive",
    "/images/search",
    "/images/get",
]
FILTERS = JSON.map(json.dumps) | st.dictionaries(
    st.sampled_from(
        [
            "status",
            "name",
            "id",
            "label",
            "ancestor",
            "before",
            "since",
            "until",
            "dangling",
            "reference",
            "exited",
            "health",
            "publish",
            "volume",
            "network",
            "type",
            "event",
            "driver",
            "is-task",
        ]
    ),
    st.lists(st.text(max_size=6), max_size=2) | st.dictionaries(st.text(max_size=6), st.booleans(), max_size=2),
    max_size=2,
).map(json.dumps)


@settings(max_examples=500, deadline=None, suppress_health_check=SLOW)
@given(
    st.sampled_from(PATHS),
    st.dictionaries(
        st.sampled_from(
            ["limit", "since", "until", "tail", "size", "all", "stdout", "path", "names", "ps_args", "stream", "before"]
        ),
        st.text(max_size=8) | st.integers().map(str),
        max_size=3,
    ),
    st.none() | FILTERS,
)
@example("/containers/json", {"limit": "9" * 5000}, None)
@example("/containers/json", {}, "[" * 50_000)
@example("/events?until=1", {"since": "9" * 30}, None)
def test_any_query_is_answered_or_refused(call: Caller, path: str, query: dict[str, str], filters: str | None) -> None:
    words = {name: value for name, value in query.items() if name != "until" or "events" not in path}
    if filters is not None:
        words["filters"] = filters
    try:
        text = "&".join(f"{name}={quote(value)}" for name, value in words.items())
    except UnicodeEncodeError:
        return
    if len(text) > 60_000:
        return
    checked(*call("GET", path + ("&" if "?" in path else "?") + text), (path, words))


@settings(max_examples=400, deadline=None, suppress_health_check=SLOW)
@given(st.text(st.characters(exclude_characters="\r\n", codec="latin-1"), max_size=20), st.text(max_size=10))
@example("abc", "x")
def test_any_version_header_and_name_are_answered_or_refused(call: Caller, version: str, name: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(call.daemon.socket))
        path = f"/containers/{quote(name, errors='replace')}/json" if name else "/info"
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nApi-Version: ".encode())
        sock.sendall(version.encode("latin-1") + b"\r\n\r\n")
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.") and b" 500 " not in answer.splitlines()[0], answer[:300]
