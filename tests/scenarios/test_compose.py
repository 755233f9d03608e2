"""Projects of docker-compose, unchanged, through the daemon: the kernel and the containers show what came of them."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Daemon, make_daemon, wait_until
from .machine import Machine

pytestmark = pytest.mark.needs_root
PROGRAM = "/usr/bin/docker-compose"  # Debian's, whatever else may be called so
PROJECTS = Path(__file__).parent / "compose"
WAITING: dict[str, object] = {"image": "busybox", "command": "sleep 1000", "init": True, "stop_grace_period": "1s"}
WEB = """FROM busybox
ARG WHO
RUN mkdir /srv && echo $WHO > /srv/index.html
CMD exec httpd -f -p 80 -h /srv
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.end()


@pytest.fixture(scope="module")
def networked(image_root: Path, machine: Machine) -> Iterator[Daemon]:
    """A daemon on a machine of its own, so that the projects' ports and networks are nobody else's."""

    class Here(Daemon):
        def command(self, *more: str) -> list[str]:
            return [*machine.prefix, *super().command(*more)]

    yield from make_daemon(image_root, [], Here)


class Project:
    """A directory with a project in it, and docker-compose upon it."""

    def __init__(self, daemon: Daemon, directory: Path, name: str) -> None:
        self.daemon, self.directory, self.name = daemon, directory, name
        self.environment = {
            "DOCKER_HOST": daemon.url,
            "HOME": str(directory),
            "PATH": "/usr/bin:/bin",
            "COMPOSE_PROJECT_NAME": name,
            "COMPOSE_HTTP_TIMEOUT": "60",
            "LANG": "C.UTF-8",
        }

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def take(self, *names: str) -> None:
        """Files of projects; the first is the project's own."""
        for at, name in enumerate(names):
            shutil.copy(PROJECTS / name, self.directory / (name if at else "docker-compose.yml"))

    def ends(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([PROGRAM, "--ansi", "never", *words], cwd=self.directory, env=self.environment, text=True,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=100, check=False)  # fmt: skip

    def __call__(self, *words: str) -> str:
        """What it prints; it must work."""
        done = self.ends(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def inside(self, service: str, command: str) -> str:
        return self("exec", "-T", service, "sh", "-c", command)

    def ids(self, *services: str) -> set[str]:
        return set(self("ps", "-q", *services).split())

    def states(self) -> dict[str, str]:
        client = self.daemon.client()
        found = client.containers.list(all=True, filters={"label": f"com.docker.compose.project={self.name}"})
        states = {one.labels["com.docker.compose.service"]: one.status for one in found}
        client.close()
        return states


@pytest.fixture
def project(networked: Daemon, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    if not Path(PROGRAM).exists():
        pytest.skip("needs Debian's docker-compose: ./lab test installs it")
    yield Project(networked, tmp_path, "p" + re.sub(r"[^a-z]", "", request.node.name)[-20:])
    networked.remove_all()
    assert networked.cli("network", "prune", "-f").returncode == 0


@pytest.fixture
def shop(project: Project) -> Project:
    project.take("shop.yml")
    project.write("web/Dockerfile", WEB)
    project.write("web.env", "C=3\n# no\nD=with space\n")
    project.write("allowed/go", "")
    return project


@pytest.fixture
def forms(project: Project) -> Project:
    project.take("forms.yml", "base.yml")
    project.write("secret.txt", "sssh\n")
    project.write("secret2.txt", "sssh too\n")
    project.write("host/f", "host file\n")
    project.write(".env", "NAME=from-dotenv\n")
    project.daemon.cli("volume", "create", "outer")
    project.daemon.cli("network", "create", "outnet")
    return project


def test_a_project_is_built_started_used_and_removed(shop: Project, machine: Machine) -> None:
    assert "Successfully tagged shop-web:latest" in shop("build")
    shop("up", "-d")
    assert shop.states() == {"db": "running", "web": "running", "lonely": "running"}
    settings = "ulimit -n; cat /proc/sys/net/core/somaxconn; echo $A [$B] $C $D; hostname; pwd; id -u; id -g"
    assert shop.inside("web", settings) == "100\n77\n1 [] 3 with space\nwebhost\n/srv\n1000\n10\n"
    assert "search example.com" in shop.inside("web", "cat /etc/resolv.conf")
    assert "10.1.2.3\tsomewhere" in shop.inside("web", "cat /etc/hosts")
    assert shop.inside("web", "cat /proc/1/comm").strip() in ("docker-init", "tini", "minidocker-init", "init")
    assert shop.inside("web", "echo x > /scratch/f && cat /scratch/f") == "x\n"
    refused = shop.ends("exec", "-T", "web", "sh", "-c", "echo x > /srv/f")
    assert refused.returncode == 1 and "Read-only file system" in refused.stderr
    assert shop.ends("exec", "-T", "web", "sh", "-c", "exit 5").returncode == 5
    assert shop.inside("web", "wget -qO- http://127.0.0.1/") == "compose\n"
    assert shop("port", "web", "9001") == "127.0.0.1:19001\n"
    assert "18080->80/tcp" in shop("ps", "web")
    assert "httpd -f -p 80" in shop("top", "web")
    assert "shop-web" in shop("images")
    shop("down", "-v", "--rmi", "local")
    assert shop.states() == {}
    names = shop.daemon.cli("network", "ls", "--format", "{{.Name}}").stdout.split()
    assert sorted(names) == ["bridge", "host", "none"]
    assert shop.daemon.cli("volume", "ls", "-q").stdout == ""


def test_a_service_waits_until_the_one_it_needs_is_healthy(shop: Project) -> None:
    (shop.directory / "allowed/go").unlink()
    shop("build")
    program = [PROGRAM, "--ansi", "never", "up", "-d"]
    up = subprocess.Popen(program, cwd=shop.directory, env=shop.environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)  # fmt: skip
    try:
        wait_until(lambda: shop.states().get("db") == "running", 30)
        health = ["inspect", "-f", "{{.State.Health.Status}}", f"{shop.name}_db_1"]
        assert shop.daemon.cli(*health).stdout == "starting\n"
        assert "web" not in shop.states()
        shop.write("allowed/go", "")
        assert up.wait(60) == 0
    finally:
        up.kill()
        up.wait()
    assert shop.daemon.cli(*health).stdout == "healthy\n"
    assert shop.states()["web"] == "running"


def test_networks_of_a_project_keep_their_names_addresses_and_borders(shop: Project) -> None:
    shop("up", "-d")
    assert "inet 10.77.5.10/24" in shop.inside("db", "ip -4 addr show eth0")
    for name in ("db", "database"):
        assert f"PING {name} (10.77.5.10)" in shop("exec", "-T", "-u", "0", "web", "ping", "-c", "1", name)
        assert "bad address" in shop.ends("exec", "-T", "lonely", "ping", "-c", "1", name).stderr
    assert shop.inside("db", "ip route").count("default") == 0  # internal
    assert "1 packets received" in shop.inside("lonely", "ping -c 1 -W 2 web")


def test_what_is_published_answers_on_the_machine(shop: Project, machine: Machine) -> None:
    shop("up", "-d")
    fetched = machine.run("busybox", "wget", "-qO-", "http://127.0.0.1:18080/")
    assert fetched == "compose\n"
    shop("stop", "-t", "1", "web")
    refused = subprocess.run([*machine.prefix, "busybox", "wget", "-qO-", "http://127.0.0.1:18080/"],
                             capture_output=True, check=False, timeout=20)  # fmt: skip
    assert refused.returncode


def test_the_verbs_of_a_running_project(shop: Project) -> None:
    shop("up", "-d")
    shop("pause", "web")
    assert shop.states()["web"] == "paused"
    shop("unpause", "web")
    shop("kill", "-s", "KILL", "lonely")
    wait_until(lambda: shop.states()["lonely"] == "exited")
    shop("start", "lonely")
    before = shop.ids("lonely")
    shop("restart", "-t", "1", "lonely")
    assert shop.ids("lonely") == before and shop.states()["lonely"] == "running"
    shop("stop", "-t", "1")
    assert set(shop.states().values()) == {"exited"}
    shop("rm", "-f")
    assert shop.states() == {}


def test_a_one_off_container_takes_the_place_of_a_service(shop: Project) -> None:
    shop("build", "web")
    done = shop.ends("run", "--rm", "--no-deps", "-T", "-e", "A=9", "web", "sh", "-c", "echo one-off $A; exit 4")
    assert (done.returncode, done.stdout) == (4, "one-off 9\n")
    assert shop("run", "--rm", "--no-deps", "-T", "--user", "5", "--entrypoint", "id -u", "web") == "5\n"
    mounted = ("-u", "0", "-v", f"{shop.directory}:/here:ro", "-w", "/here")
    here = shop("run", "--rm", "--no-deps", "-T", *mounted, "web", "ls")
    assert "docker-compose.yml" in here
    assert shop.states() == {}


def test_all_forms_of_volumes_secrets_links_and_shared_namespaces(forms: Project) -> None:
    forms("--compatibility", "up", "-d")
    text = "cat /bound/f /run/secrets/plain /run/secrets/renamed; grep -c ' /named tmpfs' /proc/mounts"
    assert forms.inside("one", text) == "host file\nsssh\nsssh too\n1\n"
    assert forms.inside("one", "echo $BASE $NAME") == "yes from-dotenv\n"
    assert "1024" in forms.inside("one", "df -k /ram | tail -1")
    assert forms.ends("exec", "-T", "one", "touch", "/bound/g").returncode
    assert "1 packets received" in forms.inside("one", "ping -c 1 -W 2 other")
    assert forms.inside("two", "hostname") == forms.inside("three", "hostname")
    assert "trap" in forms.inside("three", "ps -o args")
    limits = forms.daemon.cli("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", f"{forms.name}_one_1")
    assert limits.stdout == "52428800 500000000\n"
    assert "debug" not in forms.states()
    assert "only when asked" in forms("--profile", "debug", "run", "--rm", "debug")
    forms("down", "-v")
    assert forms.daemon.cli("volume", "ls", "-q").stdout == "outer\n"  # it is not the project's own
    assert "outnet" in forms.daemon.cli("network", "ls").stdout


def test_logs_come_by_service_and_a_stop_is_heard(forms: Project) -> None:
    forms("up", "-d", "two")
    wait_until(lambda: "up" in forms("logs", "--no-color", "two"))
    forms("stop", "two")
    logs = forms("logs", "--no-color", "--tail=1", "two")
    assert re.search(r"two_1\s+\| got term", logs)


def test_a_range_of_ports_is_shared_by_the_copies_of_a_service(forms: Project) -> None:
    forms("up", "-d", "--scale", "one=3", "one")
    assert len(forms.ids("one")) == 3
    published = {forms("port", f"--index={n}", "one", "80").strip() for n in (1, 2, 3)}
    assert published == {f"0.0.0.0:{port}" for port in (18100, 18101, 18102)}
    answers = forms("exec", "-T", "--index=2", "one", "nslookup", "one")
    assert len(set(re.findall(r"Address\S*:? (\d+\.\d+\.\d+\.\d+)$", answers, re.M))) == 3
    forms("up", "-d", "--scale", "one=1", "one")
    assert len(forms.ids("one")) == 1


def test_a_second_up_makes_anew_only_what_has_changed(forms: Project) -> None:
    forms("up", "-d")
    two, one = forms.ids("two"), forms.ids("one")
    assert "up-to-date" in forms.ends("up", "-d").stderr
    assert (forms.ids("two"), forms.ids("one")) == (two, one)
    forms.write("other.yml", 'version: "3.8"\nservices:\n  one: {environment: {EXTRA: "1"}}\n')
    forms.inside("one", "echo kept > /outside/f")
    forms("-f", "docker-compose.yml", "-f", "other.yml", "up", "-d")
    assert forms.ids("two") == two and forms.ids("one").isdisjoint(one)
    assert forms.inside("one", "echo $EXTRA; cat /outside/f") == "1\nkept\n"
    forms("up", "-d", "--force-recreate", "--no-deps", "two")
    assert forms.ids("two").isdisjoint(two)


def test_a_service_that_was_taken_out_is_an_orphan_until_it_is_removed(project: Project) -> None:
    services = dict.fromkeys("ab", WAITING)
    project.write("docker-compose.yml", json.dumps({"version": "3.8", "services": services}))
    project("up", "-d")
    del services["b"]
    project.write("docker-compose.yml", json.dumps({"version": "3.8", "services": services}))
    assert "Found orphan containers" in project.ends("up", "-d").stderr
    assert set(project.states()) == {"a", "b"}
    project("up", "-d", "--remove-orphans")
    assert set(project.states()) == {"a"}


def test_in_the_foreground_the_end_of_one_ends_all(project: Project) -> None:
    job = {"image": "busybox", "command": "sh -c 'echo line; exit 6'", "depends_on": ["server"]}
    project.write("docker-compose.yml", json.dumps({"version": "2.4", "services": {"job": job, "server": WAITING}}))
    done = project.ends("up", "--abort-on-container-exit", "--exit-code-from", "job")
    assert done.returncode == 6 and re.search(r"job_1\s+\| line", done.stdout)
    assert set(project.states().values()) == {"exited"}


def test_events_tell_what_a_project_does(project: Project) -> None:
    project.write("docker-compose.yml", json.dumps({"version": "2.4", "services": {"a": WAITING}}))
    project("up", "-d")
    watch = subprocess.Popen([PROGRAM, "events", "--json"], cwd=project.directory, env=project.environment, text=True,
                             stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)  # fmt: skip
    assert watch.stdout is not None
    actions: list[str] = []
    reading = threading.Thread(target=lambda: actions.extend(json.loads(line)["action"] for line in watch.stdout or ()))
    reading.start()

    def stirred() -> bool:
        for verb in ("pause", "unpause"):
            assert project.daemon.cli(verb, f"{project.name}_a_1").returncode == 0
        return bool(actions)

    try:
        wait_until(stirred, 30)  # from now on it listens
        project("stop", "-t", "1")
        wait_until(lambda: "stop" in actions)
    finally:
        watch.terminate()
        watch.wait()
        reading.join()
    assert actions[-4:] == ["unpause", "kill", "die", "stop"]


def test_what_cannot_be_started_is_told_as_docker_tells_it(project: Project) -> None:
    def up(service: dict[str, object], **more: dict[str, object]) -> str:
        services = {"a": {**WAITING, **service}, **more}
        project.write("docker-compose.yml", json.dumps({"version": "2.4", "services": services}))
        done = project.ends("up", "-d")
        assert done.returncode == 1
        return done.stderr

    assert 'exec: "nosuch": executable file not found in $PATH' in up({"command": "nosuch", "init": False})
    taken = up({"ports": ["18300:80"]}, b={**WAITING, "ports": ["18300:80"]})
    assert "port is already allocated" in taken
    project("down")
    assert "unable to find user nobodyx" in up({"user": "nobodyx"})
    project("down")
