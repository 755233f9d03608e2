"""Refused input: each bad request is answered by 4xx and one sentence, and the daemon's log has no traceback."""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Daemon

MISSING = "0123456789ab"
JSON = {"Content-Type": "application/json"}
DEEP = b'{"Image":"busybox","Labels":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


class Local(http.client.HTTPConnection):
    """HTTP over the daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


@pytest.fixture(autouse=True)
def quiet_log(daemon: Daemon) -> Iterator[None]:
    """Whatever a test asks, the daemon's log tells of no failure of its own."""
    before = len(daemon.log())
    yield
    assert "Traceback" not in daemon.log()[before:]


def ask(
    daemon: Daemon, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """(status, the answer's text)."""
    connection = Local(daemon.socket)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, content, headers if headers is not None else JSON if body is not None else {})
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    connection.close()
    return response.status, text


def check(answer: tuple[int, str], wanted: tuple[int, ...]) -> None:
    status, text = answer
    assert status in wanted, text
    message = json.loads(text)["message"]
    check_sentence(message)


def check_sentence(message: str) -> None:
    assert message and "\n" not in message.strip() and "Traceback" not in message and "object at 0x" not in message


# -- create --

HOST: dict[str, Any] = {
    "memory of one byte": {"Memory": 1},
    "negative memory": {"Memory": -5},
    "swap below memory": {"Memory": 64 << 20, "MemorySwap": 32 << 20},
    "swap without memory": {"MemorySwap": 64 << 20},
    "reservation above memory": {"Memory": 64 << 20, "MemoryReservation": 128 << 20},
    "memory as text": {"Memory": "64m"},
    "memory beyond 64 bits": {"Memory": 1 << 70},
    "swappiness of 101": {"MemorySwappiness": 101},
    "negative cpus": {"NanoCpus": -1},
    "a thousand cpus": {"NanoCpus": 1000 * 10**9},
    "cpus and quota": {"NanoCpus": 10**9, "CpuQuota": 50000},
    "a tiny quota": {"CpuQuota": 10},
    "a tiny period": {"CpuPeriod": 10},
    "a cpu that is not there": {"CpusetCpus": "4000"},
    "cpus as words": {"CpusetCpus": "all"},
    "memory nodes as words": {"CpusetMems": "0-x"},
    "blkio weight of 5": {"BlkioWeight": 5},
    "oom score of 2000": {"OomScoreAdj": 2000},
    "negative shm": {"ShmSize": -1},
    "unknown security option": {"SecurityOpt": ["nonsense=1"]},
    "security option without value": {"SecurityOpt": ["apparmor"]},
    "seccomp that is no JSON": {"SecurityOpt": ["seccomp={bad"]},
    "seccomp without actions": {"SecurityOpt": ['seccomp={"syscalls":[{"names":["nonsense"],"action":"SCMP_ACT_X"}]}']},
    "no-new-privileges:maybe": {"SecurityOpt": ["no-new-privileges:maybe"]},
    "-v x:/": {"Binds": ["x:/"]},
    "-v /tmp:/": {"Binds": ["/tmp:/"]},
    "relative bind target": {"Binds": ["/tmp:relative"]},
    "relative bind source": {"Binds": ["./here:/there"]},
    "climbing volume name": {"Binds": ["../x:/y"]},
    "climbing bind target": {"Binds": ["/tmp:/../.."]},
    "bind mode nonsense": {"Binds": ["/tmp:/b:nonsense"]},
    "two bind targets alike": {"Binds": ["/tmp:/b", "/var:/b"]},
    "empty bind": {"Binds": ["::"]},
    "NUL in a bind": {"Binds": ["/tmp\0:/b"]},
    "mount type nonsense": {"Mounts": [{"Type": "nonsense", "Target": "/a"}]},
    "relative mount target": {"Mounts": [{"Type": "volume", "Target": "a"}]},
    "mount on root": {"Mounts": [{"Type": "tmpfs", "Target": "/"}]},
    "mount of a missing source": {"Mounts": [{"Type": "bind", "Source": "/nowhere/at/all", "Target": "/a"}]},
    "mount of a relative source": {"Mounts": [{"Type": "bind", "Source": "a", "Target": "/a"}]},
    "tmpfs with a source": {"Mounts": [{"Type": "tmpfs", "Source": "/x", "Target": "/a"}]},
    "mount without target": {"Mounts": [{"Type": "volume"}]},
    "relative tmpfs": {"Tmpfs": {"relative": ""}},
    "tmpfs option nonsense": {"Tmpfs": {"/a": "nonsense=1"}},
    "host sysctl": {"Sysctls": {"kernel.panic": "1"}},
    "vm sysctl": {"Sysctls": {"vm.swappiness": "1"}},
    "climbing sysctl": {"Sysctls": {"net/../kernel/panic": "1"}},
    "net sysctl with the host's network": {"Sysctls": {"net.ipv4.ip_forward": "1"}, "NetworkMode": "host"},
    "ulimit nonsense": {"Ulimits": [{"Name": "nonsense", "Soft": 1, "Hard": 1}]},
    "ulimit soft above hard": {"Ulimits": [{"Name": "nofile", "Soft": 20, "Hard": 10}]},
    "capability nonsense": {"CapAdd": ["NONSENSE"]},
    "dropped capability nonsense": {"CapDrop": ["NONSENSE"]},
    "device permissions": {"Devices": [{"PathOnHost": "/dev/null", "CgroupPermissions": "q"}]},
    "device rule": {"DeviceCgroupRules": ["nonsense"]},
    "container: without a name": {"NetworkMode": "container:"},
    "pid mode": {"PidMode": "nonsense"},
    "ipc mode": {"IpcMode": "nonsense"},
    "uts mode": {"UTSMode": "nonsense"},
    "user namespace mode": {"UsernsMode": "nonsense"},
    "cgroup namespace mode": {"CgroupnsMode": "nonsense"},
    "restart policy": {"RestartPolicy": {"Name": "sometimes"}},
    "retries of always": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}},
    "negative retries": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -3}},
    "--rm and --restart": {"RestartPolicy": {"Name": "always"}, "AutoRemove": True},
    "port 99999": {"PortBindings": {"99999/tcp": [{"HostPort": "1"}]}},
    "port protocol": {"PortBindings": {"80/carrier-pigeon": [{"HostPort": "1"}]}},
    "host port as words": {"PortBindings": {"80/tcp": [{"HostPort": "abc"}]}},
    "host address": {"PortBindings": {"80/tcp": [{"HostIp": "nonsense", "HostPort": "1"}]}},
    "extra host": {"ExtraHosts": ["nonsense"]},
    "dns": {"Dns": ["nonsense"]},
    "log driver": {"LogConfig": {"Type": "nonsense"}},
    "log size": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "abc"}}},
    "log files": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "0"}}},
    "log option": {"LogConfig": {"Type": "json-file", "Config": {"nonsense": "1"}}},
    "climbing cgroup parent": {"CgroupParent": "../../x"},
    "runtime": {"Runtime": "nonsense"},
    "storage size": {"StorageOpt": {"size": "10G"}},
    "isolation": {"Isolation": "hyperv"},
    "volumes from a missing one": {"VolumesFrom": ["nobody"]},
    "volumes from, mode": {"VolumesFrom": ["nobody:nonsense"]},
    "a list for an object": {"Sysctls": ["a"]},
    "links": {"Links": ["nobody:alias"]},
    "group of NUL": {"GroupAdd": ["a\0b"]},
}  # fmt: skip

CONFIG: dict[str, Any] = {
    "no image": {"Image": ""},
    "an image that is not here": {"Image": "nobody/nothing:1"},
    "an image name in capitals": {"Image": "BusyBox"},
    "numbers in the command": {"Cmd": [1]},
    "NUL in the command": {"Cmd": ["a\0b"]},
    "environment without a name": {"Env": ["=x"]},
    "NUL in the environment": {"Env": ["A=\0"]},
    "a relative working directory": {"WorkingDir": "here"},
    "a stop signal": {"StopSignal": "SIGNONSENSE"},
    "an exposed port": {"ExposedPorts": {"abc": {}}},
    "a volume on root": {"Volumes": {"/": {}}},
    "a host name of 70 letters": {"Hostname": "h" * 70},
    "a host name with a slash": {"Hostname": "a/b"},
    "a MAC address": {"MacAddress": "nonsense"},
    "a health check of a nanosecond": {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 1}},
    "labels that are a list": {"Labels": ["a"]},
    "half of a surrogate pair": {"Cmd": ["\ud800"]},
}


@pytest.mark.parametrize("what", HOST)
def test_create_refuses_host_config(daemon: Daemon, what: str) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": HOST[what]}
    status, text = ask(daemon, "POST", "/v1.44/containers/create", body)
    check((status, text), (400, 404, 409))
    assert json.loads(ask(daemon, "GET", "/containers/json?all=1")[1]) == []


@pytest.mark.parametrize("what", CONFIG)
def test_create_refuses_config(daemon: Daemon, what: str) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], **CONFIG[what]}
    status, text = ask(daemon, "POST", "/v1.44/containers/create", body)
    check((status, text), (400, 404))
    assert json.loads(ask(daemon, "GET", "/containers/json?all=1")[1]) == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"7", b'"text"', b"\xff\xfe", b'{"Image":NaN}', DEEP])
def test_create_refuses_a_body(daemon: Daemon, body: bytes) -> None:
    check(ask(daemon, "POST", "/v1.44/containers/create", body, JSON), (400,))


@pytest.mark.parametrize("name", ["..%2Fx", "a", "-a", "a%2Fb", "a%20b", "%00", "n" * 300, "%F0%9F%90%B3"])
def test_create_refuses_a_name(daemon: Daemon, name: str) -> None:
    status, text = ask(daemon, "POST", f"/v1.44/containers/create?name={name}", {"Image": "busybox"})
    if name == "n" * 300 and status == 201:
        return  # dockerd has no limit either
    check((status, text), (400,))


def test_create_refuses_what_is_no_json(daemon: Daemon) -> None:
    headers = {"Content-Type": "text/plain"}
    check(ask(daemon, "POST", "/containers/create", b'{"Image":"busybox"}', headers), (400, 415))


# -- everything else --

REQUESTS: list[tuple[str, str, Any, int]] = [
    ("GET", "/v1.99/containers/json", None, 400),
    ("GET", "/v1.10/containers/json", None, 400),
    ("GET", "/v1.x/containers/json", None, 404),
    ("GET", "/nonsense", None, 404),
    ("GET", "/containers/json?limit=abc", None, 400),
    ("GET", "/containers/json?filters=nonsense", None, 400),
    ("GET", '/containers/json?filters={"nonsense":["1"]}', None, 400),
    ("GET", '/containers/json?filters={"status":["nonsense"]}', None, 400),
    ("GET", '/containers/json?filters={"exited":["abc"]}', None, 400),
    ("GET", '/containers/json?filters={"status":7}', None, 400),
    ("GET", '/containers/json?filters={"before":["nobody"]}', None, 404),
    ("GET", f"/containers/{MISSING}/json", None, 404),
    ("GET", "/containers/..%2F..%2Fetc%2Fpasswd/json", None, 404),
    ("GET", "/containers/%00/json", None, 404),
    ("POST", f"/containers/{MISSING}/start", None, 404),
    ("POST", f"/containers/{MISSING}/stop", None, 404),
    ("POST", f"/containers/{MISSING}/kill", None, 404),
    ("POST", f"/containers/{MISSING}/wait", None, 404),
    ("POST", f"/containers/{MISSING}/attach?stream=1", None, 404),
    ("POST", f"/containers/{MISSING}/exec", {"Cmd": ["true"]}, 404),
    ("POST", f"/containers/{MISSING}/rename?name=good", None, 404),
    ("DELETE", f"/containers/{MISSING}", None, 404),
    ("POST", "/containers/box/stop?t=abc", None, 400),
    ("POST", "/containers/box/stop?signal=NONSENSE", None, 400),
    ("POST", "/containers/box/kill?signal=NONSENSE", None, 400),
    ("POST", "/containers/box/kill?signal=-1", None, 400),
    ("POST", "/containers/box/kill?signal=99999999999999999999", None, 400),
    ("POST", "/containers/box/start", {"HostConfig": {}}, 400),
    ("POST", "/containers/box/wait?condition=nonsense", None, 400),
    ("POST", "/containers/box/resize?h=abc&w=1", None, 400),
    ("POST", "/containers/box/resize?h=-1&w=1", None, 400),
    ("POST", "/containers/box/resize?h=99999999&w=1", None, 400),
    ("POST", "/containers/box/attach?stream=1&detachKeys=nonsense", None, 400),
    ("POST", "/containers/box/rename", None, 400),
    ("POST", "/containers/box/rename?name=..%2Fx", None, 400),
    ("POST", "/containers/box/rename?name=box", None, 400),
    ("GET", "/containers/box/logs", None, 400),
    ("GET", "/containers/box/logs?stdout=1&since=abc", None, 400),
    ("GET", "/containers/box/logs?stdout=1&until=abc", None, 400),
    ("GET", "/containers/box/logs?stdout=1&since=9e999", None, 400),
    ("GET", "/containers/box/top?ps_args=%00", None, 400),
    ("DELETE", "/containers/box", None, 409),
    ("POST", "/containers/box/exec", {}, 400),
    ("POST", "/containers/box/exec", {"Cmd": []}, 400),
    ("POST", "/containers/box/exec", {"Cmd": ["a\0"]}, 400),
    ("POST", "/containers/box/exec", {"Cmd": ["true"], "WorkingDir": "here"}, 400),
    ("POST", "/containers/box/exec", {"Cmd": ["true"], "DetachKeys": "nonsense"}, 400),
    ("POST", "/containers/box/exec", b"{", 400),
    ("POST", f"/exec/{MISSING}/start", {}, 404),
    ("GET", f"/exec/{MISSING}/json", None, 404),
    ("POST", f"/exec/{MISSING}/resize?h=1&w=1", None, 404),
    ("POST", "/containers/prune?filters=nonsense", None, 400),
    ("POST", '/containers/prune?filters={"nonsense":["1"]}', None, 400),
    ("POST", '/containers/prune?filters={"until":["nonsense"]}', None, 400),
    ("GET", "/images/nobody/json", None, 404),
    ("GET", "/images/BAD/json", None, 400),
    ("GET", "/images/..%2F..%2Fetc/json", None, 400),
    ("GET", "/images/json?filters=nonsense", None, 400),
    ("GET", '/images/json?filters={"nonsense":["1"]}', None, 400),
    ("DELETE", "/images/nobody", None, 404),
    ("POST", "/images/nobody/tag?repo=good", None, 404),
    ("POST", "/images/busybox/tag?repo=BAD", None, 400),
    ("POST", "/images/busybox/tag?repo=good&tag=a%2Fb", None, 400),
    ("POST", "/images/busybox/tag", None, 400),
    ("POST", "/images/create", None, 400),
    ("POST", "/images/create?fromImage=BAD", None, 400),
    ("POST", "/images/create?fromImage=busybox&tag=a%2Fb", None, 400),
    ("POST", "/images/create?fromImage=busybox&platform=a/b/c/d/e", None, 400),
    ("POST", "/images/BAD/push", None, 400),
    ("GET", "/images/get?names=nobody", None, 404),
    ("GET", "/images/nobody/history", None, 404),
    ("POST", "/images/prune?filters=nonsense", None, 400),
    ("POST", '/images/prune?filters={"nonsense":["1"]}', None, 400),
    ("GET", "/events?since=abc", None, 400),
    ("GET", "/events?filters=nonsense", None, 400),
    ("POST", "/auth", b"{", 400),
    ("GET", "/networks/nobody", None, 404),
    ("GET", "/networks?filters=nonsense", None, 400),
]  # fmt: skip


def _title(request: tuple[str, str, Any, int]) -> str:
    return re.sub(r"[^\w./?=&-]+", "_", f"{request[0]} {request[1]} {request[2] or ''}")[:80]


@pytest.mark.parametrize("request_", REQUESTS, ids=_title)
def test_refused_with_a_sentence(daemon: Daemon, request_: tuple[str, str, Any, int]) -> None:
    method, path, body, wanted = request_
    if "/box" in path:
        status, text = ask(daemon, "POST", "/containers/create?name=box", {"Image": "busybox", "Cmd": ["sleep", "900"]})
        assert status == 201, text
        assert ask(daemon, "POST", "/containers/box/start")[0] == 204
    path = path.replace("{", "%7B").replace("}", "%7D").replace('"', "%22")
    if "/attach?" in path:
        status, text = ask(daemon, method, path, body)  # plain text, as by Docker
        assert status == wanted
        check_sentence(text)
    else:
        check(ask(daemon, method, path, body), (wanted,))
    if "/box" in path:
        assert json.loads(ask(daemon, "GET", "/containers/box/json")[1])["State"]["Running"] is True


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x1f\x8b broken", b"\0" * 1024, b"A" * 4096])
def test_a_load_of_nonsense_says_so(daemon: Daemon, content: bytes) -> None:
    status, text = ask(daemon, "POST", "/images/load", content, {"Content-Type": "application/x-tar"})
    assert status in (200, 400)
    message = json.loads(text.strip().splitlines()[-1])
    assert message.get("message") or message.get("error")


@pytest.mark.parametrize("header", ["nonsense", "e30", "W10=", "bnVsbA==", "\u00ff"])
def test_credentials_of_nonsense_are_refused_or_ignored(daemon: Daemon, header: str) -> None:
    path = "/images/create?fromImage=127.0.0.1:1/nothing"
    status, text = ask(daemon, "POST", path, None, {"X-Registry-Auth": header})
    last = json.loads(text.strip().splitlines()[-1])
    assert status in (200, 400, 404, 500, 503) and (last.get("message") or last.get("error"))


RAW = [
    b"BREW /containers/json HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"nonsense\r\n\r\n",
    b"GET /containers/json HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    b"GET /containers/json HTTP/1.1\r\nHost: a\r\nContent-Length: abc\r\n\r\n",
    b"POST /containers/create HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /containers/json HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /containers/json HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /containers/%ff%fe/json HTTP/1.1\r\nHost: a\r\n\r\n",
]


@pytest.mark.parametrize("content", RAW, ids=lambda content: content[:30].decode(errors="replace").strip())
def test_what_is_no_http_ends_its_own_connection(daemon: Daemon, content: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(daemon.socket))
        sock.sendall(content)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    assert not answer or answer.split(b" ")[1][:1] == b"4", answer[:200]
    assert ask(daemon, "GET", "/_ping")[0] == 200
