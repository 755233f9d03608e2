"""JupyterLab on a port of its own, and a headless Chromium to look at it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidocker.lab.setup.services import wait_until

playwright_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install minidocker[test]")
pytest.importorskip("jupyterlab", reason="needs jupyterlab: pip install minidocker[notebooks]")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CHROMIUM = shutil.which("chromium")
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},  # cells out of sight are in the page too
}
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_SECONDS = 60


@pytest.fixture(scope="package")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab, with a token in it, that serves copies of the lessons."""
    if CHROMIUM is None or os.geteuid() != 0:
        pytest.skip("needs root, and chromium: apt-get install chromium")
    place = tmp_path_factory.mktemp("jupyter")
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, place)
    (place / "settings").mkdir()
    (place / "settings/overrides.json").write_text(json.dumps(SETTINGS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = {
        "ip": "127.0.0.1",
        "port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": place,
        "IdentityProvider.token": "browser-test",
        "LabApp.app_settings_dir": place / "settings",
        "LabApp.extension_manager": "readonly",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in flags.items())],
            env=environment | {"HOME": str(place / "home")},
            stdout=log,
            stderr=log,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(address) or process.poll() is not None, "no JupyterLab", TIMEOUT_SECONDS)
        assert process.poll() is None, (place / "log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait(timeout=TIMEOUT_SECONDS)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/api?token=browser-test", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page in a Chromium with a profile of its own."""
    with playwright_api.sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        browser = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            headless=True,
            args=CHROMIUM_FLAGS,
            viewport={"width": 1280, "height": 900},
        )
        opened = browser.pages[0]
        opened.set_default_timeout(TIMEOUT_SECONDS * 1000)
        playwright_api.expect.set_options(timeout=TIMEOUT_SECONDS * 1000)
        yield opened
        browser.close()
