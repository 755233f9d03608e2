"""Volumes of plugins, written as a notebook cell has them: found, asked, counted, and survived when they fail."""

import json
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from .authorities import Authority
from .conftest import Daemon, make_daemon, wait_until
from .plugin_cell import VolumePlugin

SLEEP = ["sleep", "1000"]
SECONDS = 2.0


@dataclass
class Site:
    """A daemon with its own directories of plugins."""

    daemon: Daemon
    sockets: Path
    specs: Path
    root: Path

    def plugin(self, name: str) -> VolumePlugin:
        return VolumePlugin(self.root / name, self.sockets / f"{name}.sock")


@pytest.fixture(scope="module")
def site(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("plugins")
    sockets, specs = root / "run", root / "etc"
    specs.mkdir()
    flags = ["--bridge", "none", "--plugin-socket-dir", str(sockets), "--plugin-spec-dir", str(specs)]
    for daemon in make_daemon(image_root, [*flags, "--plugin-timeout", str(SECONDS)]):
        yield Site(daemon, sockets, specs, root)


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    yield site.daemon
    site.daemon.remove_all()
    for name in site.daemon.cli("volume", "ls", "-q").stdout.split():
        site.daemon.cli("volume", "rm", "-f", name)  # docker-py does not send its `force`
    for path in [*site.sockets.glob("*"), *site.specs.glob("*")]:
        path.unlink()


@pytest.fixture
def plugin(site: Site, daemon: Daemon, tmp_path: Path) -> Iterator[VolumePlugin]:
    made = VolumePlugin(tmp_path / "volumes", site.sockets / "cell.sock")
    yield made
    made.hang.clear()
    daemon.remove_all()
    made.close()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    with closing(daemon.client()) as made:
        yield made


def names(client: docker.DockerClient, **filters: object) -> list[str]:
    return sorted(volume.name for volume in client.volumes.list(filters=filters or None))


def test_a_volume_is_made_shown_and_removed_by_its_plugin(client: docker.DockerClient, plugin: VolumePlugin) -> None:
    volume = client.volumes.create("data", driver="cell", driver_opts={"size": "big"}, labels={"colour": "blue"})
    assert plugin.calls[0] == ("Plugin.Activate", {})
    assert plugin.headers[0]["Accept"] == "application/vnd.docker.plugins.v1.2+json"
    assert plugin.asked("VolumeDriver.Create") == [{"Name": "data", "Opts": {"size": "big"}}]
    volume.reload()
    seen = {key: volume.attrs[key] for key in ("Driver", "Scope", "Mountpoint", "Options", "Labels", "Status")}
    assert seen == {
        "Driver": "cell",
        "Scope": "global",
        "Mountpoint": str(plugin.root / "data"),
        "Options": {"size": "big"},
        "Labels": {"colour": "blue"},
        "Status": {"mounts": 0},
    }
    client.volumes.create("here")
    assert names(client) == ["data", "here"]
    assert names(client, driver="cell") == names(client, label="colour=blue") == ["data"]
    volume.remove()
    assert names(client) == ["here"]
    assert plugin.asked("VolumeDriver.Remove") == [{"Name": "data"}]


def test_containers_use_it_each_by_a_mount_of_its_own(
    daemon: Daemon, client: docker.DockerClient, plugin: VolumePlugin
) -> None:
    client.volumes.create("data", driver="cell")
    first = client.containers.run("busybox", SLEEP, volumes=["data:/x"], detach=True)
    second = client.containers.run("busybox", SLEEP, volumes=["data:/y"], detach=True)
    first.exec_run(["sh", "-c", "echo shared > /x/file"])
    assert second.exec_run(["cat", "/y/file"]).output == b"shared\n"
    assert (plugin.root / "data/file").read_text() == "shared\n"
    line = next(
        line for line in first.exec_run(["cat", "/proc/self/mountinfo"]).output.decode().splitlines() if " /x " in line
    )
    assert line.split()[3].endswith(str(plugin.root / "data"))
    assert len(plugin.mounts["data"]) == 2
    first.reload()
    mount = first.attrs["Mounts"][0]
    assert (mount["Driver"], mount["Name"], mount["Source"]) == ("cell", "data", str(plugin.root / "data"))
    told = daemon.cli("volume", "rm", "data")
    assert f"remove data: volume is in use - [{first.id}, {second.id}]" in told.stderr
    first.kill()
    first.wait()
    assert len(plugin.mounts["data"]) == 1
    second.restart(timeout=0)
    assert len(plugin.mounts["data"]) == 1
    second.remove(force=True)
    assert plugin.mounts["data"] == set()


def test_the_images_files_come_into_an_empty_one(client: docker.DockerClient, plugin: VolumePlugin) -> None:
    client.volumes.create("data", driver="cell")
    seen = client.containers.run("busybox", ["cat", "/var/data/seed"], volumes=["data:/var/data"], remove=True)
    assert seen == b"from the image\n"
    assert plugin.mounts["data"] == set()


def test_the_forms_of_the_command_line_name_the_driver(daemon: Daemon, plugin: VolumePlugin) -> None:
    mount = "type=volume,src=one,dst=/x,volume-driver=cell,volume-opt=a=b,volume-opt=c=d,volume-nocopy"
    assert daemon.cli("run", "--rm", "--mount", mount, "busybox", "touch", "/x/file").returncode == 0
    assert plugin.volumes == {"one": {"a": "b", "c": "d"}}
    assert (plugin.root / "one/file").exists()
    words = ["--volume-driver", "cell", "-v", "two:/x", "-v", "/y", "-v", f"{plugin.root}:/host"]
    assert daemon.cli("run", "--rm", *words, "busybox", "touch", "/y/file").returncode == 0
    assert sorted(plugin.volumes) == ["one", "two"]  # the anonymous one has gone with its container
    anonymous = plugin.asked("VolumeDriver.Remove")[0]["Name"]
    assert (plugin.root / anonymous / "file").exists()


def test_a_volume_that_the_plugin_has_made_alone_is_found(client: docker.DockerClient, plugin: VolumePlugin) -> None:
    plugin.volumes["wild"] = None
    (plugin.root / "wild").mkdir(parents=True)
    assert names(client) == ["wild"]
    assert client.volumes.get("wild").attrs["Driver"] == "cell"
    client.containers.run("busybox", ["touch", "/x/file"], volumes=["wild:/x"], remove=True)
    assert (plugin.root / "wild/file").exists()
    with pytest.raises(docker.errors.APIError, match="driver 'cell' already has volume 'wild'") as told:
        client.volumes.create("wild", driver="local")
    assert told.value.status_code == 409


def test_what_the_plugin_says_is_told(daemon: Daemon, client: docker.DockerClient, plugin: VolumePlugin) -> None:
    plugin.refuse["Create"] = "the disk is lost"
    with pytest.raises(docker.errors.APIError, match="create data: the disk is lost") as told:
        client.volumes.create("data", driver="cell")
    assert told.value.status_code == 500
    assert names(client) == []
    plugin.refuse.clear()
    client.volumes.create("data", driver="cell")
    plugin.refuse["Mount"] = "no more mounts"
    failed = daemon.cli("run", "-v", "data:/x:nocopy", "busybox", "true")
    assert "error while mounting volume '': no more mounts" in failed.stderr
    assert plugin.asked("VolumeDriver.Unmount") == []
    plugin.refuse = {"Remove": "busy elsewhere"}
    daemon.remove_all()
    with pytest.raises(docker.errors.APIError, match="remove data: busy elsewhere"):
        client.volumes.get("data").remove()
    assert daemon.cli("volume", "rm", "-f", "data").returncode == 0


def test_a_mount_point_must_be_a_path_of_the_host(daemon: Daemon, site: Site, plugin: VolumePlugin) -> None:
    plugin.root = Path("relative")
    plugin.volumes["data"] = None
    told = daemon.cli("run", "--rm", "-v", "data:/x", "busybox", "true")
    assert 'gives "relative/data" as the mount point of volume data: it must be an absolute path' in told.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_mounts_are_given_back_after_the_daemon_came_back(
    daemon: Daemon, client: docker.DockerClient, plugin: VolumePlugin, number: int
) -> None:
    client.volumes.create("data", driver="cell")
    stays = client.containers.run("busybox", SLEEP, volumes=["data:/x"], detach=True)
    ends = client.containers.run("busybox", SLEEP, volumes=["data:/x"], detach=True)
    ends.reload()
    before = set(plugin.mounts["data"])
    daemon.end(number)
    subprocess.run(["kill", "-9", str(ends.attrs["State"]["Pid"])], check=True)
    daemon.start()
    wait_until(lambda: len(plugin.mounts["data"]) == 1)
    assert plugin.mounts["data"] < before
    assert client.volumes.get("data").attrs["Driver"] == "cell"
    stays.kill()
    stays.wait()
    assert plugin.mounts["data"] == set()
    stays.start()
    assert len(plugin.mounts["data"]) == 1


def test_a_plugin_that_hangs_costs_only_its_own_call(
    daemon: Daemon, client: docker.DockerClient, site: Site, plugin: VolumePlugin
) -> None:
    client.volumes.create("data", driver="cell")
    plugin.hang = {"VolumeDriver.Mount", "VolumeDriver.Create", "VolumeDriver.List", "VolumeDriver.Get"}
    failures: list[str] = []

    def create(name: str) -> None:
        with closing(daemon.client()) as own, pytest.raises(docker.errors.APIError) as told:
            own.volumes.create(name, driver="cell")
        failures.append(str(told.value.explanation))

    threads = [threading.Thread(target=create, args=(f"slow{number}",)) for number in range(40)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(plugin.asked("VolumeDriver.Create")) + len(plugin.asked("VolumeDriver.Get")) >= 40)
    began = time.monotonic()
    assert client.containers.run("busybox", ["echo", "alive"], volumes=["other:/x"], remove=True) == b"alive\n"
    for thread in threads:
        thread.join()
    assert len(failures) == 40 and all("did not answer VolumeDriver.Create within" in text for text in failures)
    listed: dict[str, object] = client.api.volumes()
    assert "cell" in str(listed["Warnings"]) and "data" in str(listed["Volumes"])
    told = daemon.cli("run", "--rm", "-v", "data:/x:nocopy", "busybox", "true")
    assert "did not answer VolumeDriver.Mount within" in told.stderr
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("option", ["", ":nocopy"], ids=["at create", "at start"])
def test_a_mount_that_was_under_way_when_the_daemon_was_killed_is_given_back(
    daemon: Daemon, client: docker.DockerClient, plugin: VolumePlugin, option: str
) -> None:
    client.volumes.create("data", driver="cell")
    plugin.hang = {"VolumeDriver.Mount"}
    words = ["run", "-v", f"data:/x{option}", "-v", "/anonymous", "--volume-driver", "cell", "busybox", "true"]
    thread = threading.Thread(target=lambda: daemon.cli(*words))
    thread.start()
    wait_until(lambda: plugin.asked("VolumeDriver.Mount"))
    daemon.end(signal.SIGKILL)
    thread.join()
    plugin.hang.clear()
    plugin.released.set()
    wait_until(lambda: sum(map(len, plugin.mounts.values())) > 0)
    daemon.start()
    wait_until(lambda: sum(map(len, plugin.mounts.values())) == 0)
    daemon.remove_all()
    wait_until(lambda: list(plugin.volumes) == ["data"])


def test_an_unmount_that_hangs_keeps_nobody_from_the_exit(client: docker.DockerClient, plugin: VolumePlugin) -> None:
    client.volumes.create("data", driver="cell")
    plugin.hang = {"VolumeDriver.Unmount"}
    container = client.containers.run("busybox", ["true"], volumes=["data:/x"], detach=True)
    assert container.wait()["StatusCode"] == 0
    container.remove()
    assert client.ping()


def test_a_plugin_that_died_is_told_and_one_that_came_back_is_used(
    site: Site, daemon: Daemon, client: docker.DockerClient
) -> None:
    first = site.plugin("mortal")
    client.volumes.create("data", driver="mortal")
    first.close()
    assert names(client) == ["data"]  # our record of it
    with pytest.raises(docker.errors.APIError, match="cannot be reached: connection refused; is its program running"):
        client.volumes.create("more", driver="mortal")
    (site.sockets / "mortal.sock").unlink()
    with pytest.raises(docker.errors.NotFound, match='plugin "mortal" not found'):
        client.volumes.create("more", driver="mortal")
    second = site.plugin("mortal")
    second.volumes["data"] = None
    client.containers.run("busybox", ["touch", "/x/file"], volumes=["data:/x"], remove=True)
    assert second.asked("Plugin.Activate") == [{}]
    client.volumes.get("data").remove()
    second.close()


def test_a_plugin_that_is_no_volume_driver_is_refused(
    daemon: Daemon, client: docker.DockerClient, plugin: VolumePlugin, site: Site
) -> None:
    other = site.plugin("other")
    other.kinds = ["NetworkDriver"]
    with pytest.raises(docker.errors.APIError, match="does not implement the requested driver: VolumeDriver") as told:
        client.volumes.create("data", driver="other")
    assert told.value.status_code == 400
    for bad in ("../cell", "a/b", "..", "cell\0"):
        answer = client.api._post_json(client.api._url("/volumes/create"), data={"Name": "data", "Driver": bad})
        assert answer.status_code == 404, answer.text
    other.close()


@pytest.mark.parametrize("kind", ["spec", "json", "tls"])
def test_a_file_tells_where_a_plugin_answers(
    site: Site, daemon: Daemon, client: docker.DockerClient, kind: str, tmp_path: Path
) -> None:
    context, document = None, {}
    if kind == "tls":
        authority = Authority(tmp_path, "plugins")
        pair = authority.issue("server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        document = {"TLSConfig": {"InsecureSkipVerify": False, "CAFile": str(authority.certificate)}}
    plugin = VolumePlugin(site.root / "far", tls=context)
    url = f"tcp://127.0.0.1:{plugin.port}"
    if kind == "spec":
        (site.specs / "far.spec").write_text(url + "\n")
    else:
        (site.specs / "far.json").write_text(json.dumps({"Name": "far", "Addr": url} | document))
    client.volumes.create("data", driver="far")
    client.containers.run("busybox", ["touch", "/x/file"], volumes=["data:/x"], remove=True)
    assert (site.root / "far/data/file").exists()
    if kind == "tls":
        (site.specs / "far.json").write_text(json.dumps({"Name": "far", "Addr": url, "TLSConfig": {}}))
        with pytest.raises(docker.errors.APIError, match="certificate verify failed"):
            client.volumes.create("more", driver="far")
        (site.specs / "far.json").write_text(
            json.dumps({"Name": "far", "Addr": url, "TLSConfig": {"InsecureSkipVerify": True}})
        )
    client.volumes.get("data").remove()
    plugin.close()


@pytest.mark.parametrize("content", ["no address", "ftp://somewhere", ""])
def test_a_file_that_cannot_be_understood_is_told(
    site: Site, daemon: Daemon, client: docker.DockerClient, content: str
) -> None:
    (site.specs / "broken.spec").write_text(content)
    with pytest.raises(docker.errors.APIError, match="unknown protocol") as told:
        client.volumes.create("data", driver="broken")
    assert told.value.status_code == 400
    assert names(client) == []


@pytest.mark.parametrize("answer", ["[" * 100_000, "null", "{", '{"Mountpoint": 5}', "x" * (5 << 20)])
def test_an_answer_of_nonsense_is_an_error_of_that_call(
    daemon: Daemon, client: docker.DockerClient, plugin: VolumePlugin, answer: str
) -> None:
    client.volumes.create("data", driver="cell")
    plugin.raw["VolumeDriver.Mount"] = answer
    told = daemon.cli("run", "--rm", "-v", "data:/x:nocopy", "busybox", "true")
    assert told.returncode == 125 and "plugin" in told.stderr and "internal error" not in told.stderr, told.stderr
    assert client.ping()


def test_the_plugins_api_lists_them(daemon: Daemon, client: docker.DockerClient, plugin: VolumePlugin) -> None:
    shown = client.plugins.list()
    assert [(one.name, one.enabled) for one in shown] == [("cell", True)]
    config = client.plugins.get("cell").attrs["Config"]
    assert config["Interface"]["Types"] == ["docker.volumedriver/1.0"]
    rows = daemon.cli("plugin", "ls", "--no-trunc").stdout.splitlines()
    assert rows[1].split()[1] == "cell" and rows[1].endswith("true")
    assert "Volume: cell local" in daemon.cli("info").stdout
    assert daemon.cli("plugin", "ls", "-q", "--filter", "capability=authz").stdout == ""
    assert "VolumeDriver at unix://" in daemon.cli("plugin", "inspect", "cell").stdout
    installed = daemon.cli("plugin", "install", "vieux/sshfs")
    assert (installed.returncode, "start the plugin's program" in installed.stderr) == (1, True)
    for verb in ("disable", "rm"):
        told = daemon.cli("plugin", verb, "cell")
        assert (told.returncode, "is not managed by the daemon" in told.stderr) == (1, True)
    assert 'plugin "nobody" not found' in daemon.cli("plugin", "disable", "nobody").stderr


def test_the_plugins_directory_may_be_missing_or_full_of_other_things(
    site: Site, daemon: Daemon, client: docker.DockerClient
) -> None:
    site.sockets.mkdir(exist_ok=True)
    (site.sockets / "file.sock").write_text("not a socket")
    (site.sockets / "link.sock").symlink_to("/nonexistent")
    assert names(client) == []
    assert {one.name: one.enabled for one in client.plugins.list()} == {"file": False, "link": False}

