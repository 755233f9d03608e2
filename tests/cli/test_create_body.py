"""What `run` and `create` ask the daemon for is what docker's client asks for."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker_oracle import recent_client
from fake_daemon import FakeDaemon

LINES = [
    "box", "box sh -c 'echo hi'", "-it box", "-i box", "-t box", "-a stdin -a stderr box", "--name web --rm box",
    "-e A=1 -e B= -e C -e D=x=y box", "--env-file {dir}/env box", "-l a=b -l c --label-file {dir}/labels box",
    "-v /a:/b -v name:/c:ro -v /anonymous -v ./rel:/r box",
    "--mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave --mount source=v,target=/v,volume-nocopy box",
    "--mount type=volume,dst=/x,volume-label=a=b,volume-opt=o=1,volume-driver=local box",
    "--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770 box", "--tmpfs /run:size=64k,noexec --tmpfs /x box",
    "-p 80 -p 8080:80 -p 127.0.0.1:8443:443/tcp -p 53:53/udp -p 1000-1002:2000-2002 box",
    "-p [::1]:80:80 -p 8000-9000:80 -P --expose 90 --expose 100-102/udp box",
    "-p published=8080,target=80,protocol=udp box",
    "--network host box", "--network none box", "--network container:x box",
    "--network n --network-alias a --network-alias b --ip 1.2.3.4 --ip6 ::5 --link x:y box",
    "--network name=n,alias=a,ip=1.2.3.4 --network m box", "--mac-address 02:42:ac:11:00:02 --network n box",
    "-h host --domainname d -u 1:2 -w /w --entrypoint /e box arg", "--entrypoint '' box",
    "--cap-add NET_ADMIN --cap-drop ALL --privileged --read-only --init box",
    "--security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt label=disable box",
    "--security-opt systempaths=unconfined --security-opt seccomp={dir}/seccomp.json box",
    "-m 64m --memory-swap 128m --memory-reservation 32m --memory-swappiness 5 --oom-kill-disable box",
    "--cpus 1.5 -c 512 --cpuset-cpus 0-1 --cpuset-mems 0 --cpu-period 1000 --cpu-quota 500 --pids-limit 7 box",
    "--blkio-weight 100 --blkio-weight-device /dev/sda:200 --device-read-bps /dev/sda:1mb box",
    "--device-write-iops /dev/sda:50 --device-write-bps /dev/sda:1kb --device-read-iops /dev/sda:3 box",
    "--ulimit nofile=10:20 --ulimit core=-1 --shm-size 1g --sysctl net.ipv4.ip_forward=1 box",
    "--device /dev/a --device /dev/b:/dev/c --device /dev/d:/dev/e:r --device-cgroup-rule 'c 1:3 rwm' box",
    "--restart always box", "--restart on-failure:3 box", "--stop-signal INT --stop-timeout 3 box",
    "--log-driver json-file --log-opt max-size=1m --log-opt max-file=3 box", "--log-driver none box",
    "--dns 1.1.1.1 --dns-search a.b --dns-option ndots:1 --add-host h:1.2.3.4 --add-host i=::1 box",
    "--pid host --ipc shareable --uts host --userns host --cgroupns host --cgroup-parent /x box",
    "--group-add 5 --group-add audio --volumes-from c:ro --storage-opt size=1g --runtime runc box",
    "--health-cmd 'true' --health-interval 5s --health-timeout 1m --health-retries 3 --health-start-period 2s box",
    "--no-healthcheck box", "--annotation a=b --oom-score-adj 5 --isolation default --volume-driver local box",
]


def meaning(value: Any) -> Any:
    """A document without members that say nothing: null, false, zero, empty."""
    if isinstance(value, dict):
        kept = {key: meaning(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, False, 0, "", [], {}, [0, 0])}
    return [meaning(item) for item in value] if isinstance(value, list) else value


def normal(body: bytes) -> Any:
    document = json.loads(body)
    host = document.get("HostConfig", {})
    # -1 is how docker's client says that nothing was said.
    for key in ("MemorySwappiness",):
        if host.get(key) == -1:
            del host[key]
    if host.get("Binds"):
        host["Binds"].sort()
    document["Env"] = sorted(document.get("Env") or [])     # docker's client shuffles them
    # Before API 1.44 the address stands outside, from then on at the endpoint; ours sends both.
    document.pop("MacAddress", None)
    keep = {name: {} for name in (document.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}}
    exposed, volumes = document.get("ExposedPorts"), document.get("Volumes")
    result = meaning(document)
    networks = {**keep, **result.get("NetworkingConfig", {}).get("EndpointsConfig", {})}
    networks = {name: settings for name, settings in networks.items() if name != "default" or settings}
    result.pop("NetworkingConfig", None)
    return result, networks, exposed or {}, volumes or {}


@pytest.mark.parametrize("line", LINES)
@recent_client
def test_create_asks_for_what_docker_asks_for(line: str, cli: Any, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nX=1\nHOME\nABSENT\n\nY=a b\n")
    (tmp_path / "labels").write_text("k=v\nonly\n")
    (tmp_path / "seccomp.json").write_text('{\n "defaultAction": "SCMP_ACT_ALLOW"\n}\n')
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "C": "see"}
    answers = {"POST /containers/create": (201, {"Id": "a" * 64, "Warnings": []})}
    words = line.replace("{dir}", str(tmp_path))
    with FakeDaemon(tmp_path / "s", answers) as daemon:
        for program in (["docker"], cli.program):
            command = replace(cli, program=program, environment={**environment, "DOCKER_HOST": daemon.url})
            ended = command(f"create {words}")
            assert ended.status == 0, ended.err
            assert ended.out == "a" * 64 + "\n"
    theirs, ours = [asked for asked in daemon.asked if asked.method == "POST"]
    assert normal(ours.body) == normal(theirs.body)
    assert ours.path.rpartition("/create")[2] == theirs.path.rpartition("/create")[2]
