"""Create requests: what is read, what is refused and how it is said."""

import pytest

from minidocker.engine import values
from minidocker.engine.containers import config_reader, defaults, validate
from minidocker.engine.containers.config import ContainerConfig
from minidocker.errors import InvalidArgument
from minidocker.oci.image_config import ExecutionConfig


def test_null_fields_mean_not_given() -> None:
    request = config_reader.read_create({"Image": "x", "Env": None, "HostConfig": {"Binds": None, "Memory": 5}})
    assert request.config.env is None
    assert request.host.memory == 5


def test_fields_are_found_in_any_case_of_letters() -> None:
    body = {
        "image": "x", "CMD": "true", "healthcheck": {"TEST": ["NONE"]},
        "hostconfig": {"memory": 5, "RESTARTPOLICY": {"name": "always"}, "mounts": [{"type": "tmpfs", "target": "/t"}]},
        "networkingConfig": {"endpointsConfig": {"Net": {"aliases": ["a"], "ipamConfig": {"IPv4address": "10.0.0.2"}}}},
    }  # fmt: skip
    request = config_reader.read_create(body)
    assert (request.config.image, request.config.cmd) == ("x", ["true"])
    assert request.config.healthcheck is not None and request.config.healthcheck.test == ["NONE"]
    assert (request.host.memory, request.host.restart_policy.name) == (5, "always")
    assert request.host.mounts is not None and request.host.mounts[0].target == "/t"
    endpoint = request.endpoints["Net"]
    assert endpoint.aliases == ["a"]
    assert endpoint.ipam_config is not None and endpoint.ipam_config.ipv4_address == "10.0.0.2"


def test_a_command_may_be_one_string() -> None:
    assert config_reader.read_create({"Cmd": "echo hi"}).config.cmd == ["echo hi"]


@pytest.mark.parametrize(
    "body",
    [
        {"New": {}},
        {"New": 1},
        {"HostConfig": {"New": ["x"]}},
        {"HostConfig": {"ConsoleSize": [0, 0]}},
        {"HostConfig": {"CpuCount": 1, "CpuPercent": 5}},
    ],
)
def test_fields_that_docker_does_not_have_and_empty_ones_are_passed_over(body: dict[str, object]) -> None:
    config_reader.read_create(body)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"HostConfig": {"IOMaximumIOps": 1}}, "Windows"),
        ({"HostConfig": {"Memory": "5"}}, "Memory"),
        ({"HostConfig": []}, "must be an object"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(body: dict[str, object], word: str) -> None:
    with pytest.raises(InvalidArgument, match=word):
        config_reader.read_create(body)


def test_swappiness_of_minus_one_means_the_default() -> None:
    assert config_reader.read_create({"HostConfig": {"MemorySwappiness": -1}}).host.memory_swappiness is None


IMAGE = ExecutionConfig(
    env=["A=image", "B=image"], cmd=["from", "image"], entrypoint=["/entry"], working_dir="/w", labels={"l": "image"},
    volumes={"/v": {}}, exposed_ports={"80/tcp": {}}, user="u", stop_signal="SIGINT",
)  # fmt: skip


def test_the_image_fills_what_is_left_open() -> None:
    merged = defaults.merge_image(ContainerConfig(env=["A=mine"], labels={"m": "1"}), IMAGE)
    assert merged.env == ["A=mine", "B=image"]
    assert (merged.entrypoint, merged.cmd) == (["/entry"], ["from", "image"])
    assert (merged.working_dir, merged.user, merged.stop_signal) == ("/w", "u", "SIGINT")
    assert merged.labels == {"l": "image", "m": "1"}
    assert merged.volumes == {"/v": {}} and merged.exposed_ports == {"80/tcp": {}}


def test_an_entrypoint_of_ones_own_drops_the_images_command() -> None:
    merged = defaults.merge_image(ContainerConfig(entrypoint=["/mine"]), IMAGE)
    assert (merged.entrypoint, merged.cmd) == (["/mine"], None)


def test_an_empty_entrypoint_resets_the_images() -> None:
    merged = defaults.merge_image(ContainerConfig(entrypoint=[""], cmd=["x"]), IMAGE)
    assert (merged.entrypoint, merged.cmd) == (None, ["x"])


def test_no_command_at_all_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="No command specified"):
        defaults.merge_image(ContainerConfig(), ExecutionConfig())


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ({"Memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": -5}, "Minimum memory limit"),
        ({"Memory": 10 << 20, "MemorySwap": 8 << 20}, "larger than memory limit"),
        ({"MemorySwap": 8 << 20}, "set the Memory limit"),
        ({"MemorySwappiness": 101}, "0-100"),
        ({"NanoCpus": 1, "CpuQuota": 5000}, "Conflicting options"),
        ({"CpuPeriod": 10}, "cfs period"),
        ({"CpusetCpus": "a"}, "cpuset"),
        ({"PidsLimit": -2}, "PidsLimit"),
        ({"IpcMode": "strange"}, "invalid IPC mode"),
        ({"PidMode": "container:"}, "invalid PID mode"),
        ({"NetworkMode": "container:x", "PortBindings": {"80/tcp": [{}]}}, "port publishing"),
        ({"Sysctls": {"net.ipv4.ip_forward": "1"}, "NetworkMode": "host"}, "not allowed"),
        ({"Sysctls": {"kernel.shmmax": "1"}, "IpcMode": "host"}, "not allowed"),
        ({"SecurityOpt": ["seccomp={"]}, "seccomp profile"),
        ({"SecurityOpt": ["apparmor=mine"]}, "AppArmor"),
        ({"CapAdd": ["FOO"]}, "invalid CapAdd"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "restart policy"),
        ({"RestartPolicy": {"Name": "always"}, "AutoRemove": True}, "AutoRemove"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 9, "Hard": 5}]}, "less than or equal"),
        ({"Ulimits": [{"Name": "wishes", "Soft": 1, "Hard": 1}]}, "invalid ulimit"),
        ({"Dns": ["here"]}, "DNS"),
        ({"ExtraHosts": ["nocolon"]}, "add-host"),
        ({"PortBindings": {"80/dccp": [{}]}}, "tcp, udp or sctp"),
        ({"OomScoreAdj": 2000}, "oom score"),
        ({"Runtime": "other"}, "runtime"),
        ({"DeviceCgroupRules": ["c *"]}, "device cgroup rule"),
    ],
)
def test_values_out_of_range_are_refused(host: dict[str, object], word: str) -> None:
    request = config_reader.read_create({"HostConfig": host})
    with pytest.raises(InvalidArgument, match=word):
        validate.check_joined_network(request.host, request.config)
        validate.check_host(request.host, request.config)


def test_defaults_are_filled_as_docker_does() -> None:
    host = defaults.fill_host(config_reader.read_create({"HostConfig": {"Memory": 10 << 20}}).host)
    assert (host.memory_swap, host.shm_size) == (20 << 20, 64 << 20)
    assert (host.network_mode, host.ipc_mode, host.restart_policy.name) == ("default", "private", "no")
    assert "/proc/kcore" in (host.masked_paths or [])
    assert defaults.fill_host(config_reader.read_create({"HostConfig": {"MaskedPaths": []}}).host).masked_paths == []


def test_what_old_clients_put_beside_host_config_counts_where_it_says_nothing() -> None:
    alone = config_reader.read_create({"Image": "x", "Runtime": "runc", "Memory": 7 << 20}).host
    assert (alone.runtime, alone.memory) == ("runc", 7 << 20)
    both = config_reader.read_create({"Image": "x", "Runtime": "runc", "Memory": 7 << 20, "HostConfig": {}}).host
    assert (both.runtime, both.memory) == ("", 7 << 20)
    inner = config_reader.read_create({"Image": "x", "Memory": 7 << 20, "HostConfig": {"Memory": 8 << 20}}).host
    assert inner.memory == 8 << 20


def test_details_are_settled_as_dockerd_does() -> None:
    merged = defaults.merge_image(ContainerConfig(entrypoint=[], cmd=["x"], working_dir="/w/../x//y/"), IMAGE)
    assert (merged.entrypoint, merged.working_dir) == ([], "/x/y")
    privileged = defaults.fill_host(
        config_reader.read_create({"HostConfig": {"Privileged": True, "PidsLimit": -1}}).host
    )
    assert (privileged.security_opt, privileged.pids_limit) == (["label=disable"], None)


@pytest.mark.parametrize(
    ("text", "number"), [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+1", 35), ("rtmax-1", 63)]
)
def test_signals_by_number_and_name(text: str, number: int) -> None:
    assert values.signal_number(text) == number


@pytest.mark.parametrize("text", ["0", "65", "FOO", "SIGRTMIN+40", "-9"])
def test_what_is_no_signal_is_refused_in_dockers_words(text: str) -> None:
    with pytest.raises(InvalidArgument, match=f"Invalid signal: {text}".replace("+", "[+]")):
        values.signal_number(text)
