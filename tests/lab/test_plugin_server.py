"""A plugin that is one function answers over its socket, each call in a thread of its own, and goes at close."""

import json
import socket
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest

from minidocker.lab.props.plugin_server import Body, PluginServer


class Connection(HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, place: Path) -> None:
        super().__init__("plugin", timeout=10)
        self.place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.place))


def ask(place: Path, method: str, body: Body | None = None) -> Body:
    connection = Connection(place)
    connection.request("POST", f"/{method}", json.dumps(body) if body is not None else b"")
    answer: Body = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_it_answers_with_what_the_function_says_and_keeps_what_was_asked(tmp_path: Path) -> None:
    plugin = PluginServer(tmp_path / "run/cell.sock", lambda method, asked: {"method": method, "asked": asked})
    try:
        assert ask(plugin.place, "Plugin.Activate") == {"method": "Plugin.Activate", "asked": {}}
        assert ask(plugin.place, "VolumeDriver.Get", {"Name": "x"})["asked"] == {"Name": "x"}
        assert plugin.asked("Get") == [{"Name": "x"}] and plugin.asked("Remove") == []
    finally:
        plugin.close()
    assert not plugin.place.exists()


def test_an_exception_becomes_the_answers_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def answer(method: str, asked: Body) -> Body:
        raise FileNotFoundError("no such volume")

    plugin = PluginServer(tmp_path / "cell.sock", answer)
    try:
        assert ask(plugin.place, "VolumeDriver.Get") == {"Err": "FileNotFoundError: no such volume"}
    finally:
        plugin.close()
    assert capfd.readouterr().err == ""


def test_a_call_that_hangs_keeps_neither_others_nor_the_end_waiting(tmp_path: Path) -> None:
    released, begun = threading.Event(), threading.Event()

    def answer(method: str, asked: Body) -> Body:
        if method == "hang":
            begun.set()
            released.wait()
        return {}

    plugin = PluginServer(tmp_path / "cell.sock", answer)
    hanging = Connection(plugin.place)
    hanging.request("POST", "/hang")
    assert begun.wait(10)
    assert ask(plugin.place, "other") == {}
    plugin.close()
    assert not plugin.place.exists()
    hanging.close()
    released.set()
