"""Our client and docker's, on one daemon: the same output, the same messages, the same exit status."""

from collections.abc import Callable

import pytest
from docker_oracle import CommandLine, recent_client

pytestmark = recent_client

LINES_WITHOUT_A_CONTAINER = [
    "ps", "ps -a -q", "ps a b", "ps -z", "ps --filter foo", "ps --format '{{.ID'", "ps -n 0",
    "images", "images -q", "images --no-trunc", "images --digests", "images nosuch",
    "images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}'", "images --format json",
    "images --format 'table {{.Repository}}\\t{{.Tag}}'", "images --filter foo",
    "history box:1", "history --no-trunc box:1", "history -q box:1", "history -H=false box:1", "history nosuch",
    "inspect box:1", "inspect nosuch", "inspect -f '{{.RootFS.Layers}}' box:1", "inspect -f '{{.Foo.x}}' box:1",
    "image inspect nosuch", "image inspect box:1 nosuch", "container inspect nosuch", "network inspect none",
    "network ls", "network ls -q", "network ls --no-trunc", "network ls --format json", "network inspect nosuch",
    "network rm", "volume inspect nosuch", "volume rm nosuch", "volume ls", "system df", "system df --format json",
    "info -f '{{.ServerVersion}} {{.NCPU}}'", "version -f '{{.Server.Version}}'",
    "rm nosuch", "rm -f nosuch", "rmi nosuch", "rmi -f nosuch", "start nosuch", "start -a nosuch", "stop nosuch",
    "kill nosuch", "restart nosuch", "pause nosuch", "unpause nosuch", "rename nosuch a", "rename a", "wait nosuch",
    "top nosuch", "diff nosuch", "port nosuch", "logs nosuch", "attach nosuch", "exec nosuch true", "exec",
    "exec -it nosuch sh", "cp nosuch:/x /tmp/y", "cp a b", "export nosuch", "commit nosuch", "update",
    "update nosuch", "save nosuch", "load -i /nosuch", "tag", "tag nosuch x", "tag box:1 a:b:c", "stop", "wait",
    "container foo", "image foo", "foo", "container ls x", "pull", "push", "container prune -f", "network prune -f",
    "run", "run --nope box:1", "run -m xx box:1", "run -it box:1", "run -e", "run -ze box:1", "run ''", "run UPPER",
    "run --cpus abc box:1", "run --cpus=-1 box:1", "run --restart foo box:1", "run --detach=maybe box:1",
    "run --rm --restart always box:1", "run -d -a stdout box:1", "run --name 'a b' box:1", "run -p x box:1",
    "run -p 80:80/foo box:1", "run -p 99999:80 box:1", "run -p 1-3:1-2 box:1", "run -v a:b:c:d box:1",
    "run --memory 1m box:1", "run --mount type=bind box:1", "run --mount type=foo,target=/x box:1",
    "run --mount nonsense box:1", "run --mount type=tmpfs,target=/x,foo=bar box:1", "run --ulimit foo=1 box:1",
    "run --ulimit nofile=x box:1", "run --ulimit nofile=10:5 box:1", "run --device foo:bar:baz:x box:1",
    "run --env-file /nosuch box:1", "run --add-host foo box:1", "run --health-interval -1s box:1",
    "run --health-interval x box:1", "run --no-healthcheck --health-cmd x box:1", "run --stop-timeout x box:1",
    "run --log-driver none --log-opt a=b box:1", "run --security-opt seccomp=/nosuch box:1",
    "run --security-opt foo box:1", "run --restart on-failure:x box:1", "run --pull sometimes box:1",
    "run -a foo box:1", "run --cidfile /etc/passwd box:1", "run --cpu-shares x box:1", "run --blkio-weight -1 box:1",
    "run --rm box:1 nosuch", "run --rm box:1 /etc/passwd", "run --rm box:1 sh -c 'echo o; echo e >&2; exit 5'",
    "run --rm -e A=1 -e HOME -w /tmp -u 3:4 -h foo box:1 sh -c 'env; pwd; id; hostname'",
    "run --rm --cap-drop ALL --init=false --pids-limit 50 -m 64m box:1 echo ok",
]


@pytest.mark.parametrize("line", LINES_WITHOUT_A_CONTAINER)
def test_says_the_same(line: str, same: Callable[[str], None]) -> None:
    same(line)


LIFE = [
    "run -d --name {x}1 --label x=y -v /tmp:/t:ro --restart on-failure:3 box:1 sleep 1000",
    "create --name {x}2 box:1 sh -c 'echo a command line that is too long; echo err >&2'",
    "ps --filter name={x}", "ps -a --filter name={x}", "ps -aq --filter name={x}",
    "ps -a --no-trunc --filter name={x}", "ps -as --filter name={x}",
    "ps -a --filter name={x} --format '{{.ID}}:{{.Names}} {{.Mounts}} {{.State}}'",
    "ps -a --filter name={x} --format 'table {{.ID}}\\t{{.Names}}\\t{{.Label \"x\"}}\\t{{.Labels}}'",
    "container ls -a --filter name={x}1", "ps --format {{.Foo}}",
    "inspect -f '{{json .Mounts}} {{.HostConfig.RestartPolicy.Name}} {{index .Config.Labels \"x\"}}' {x}1",
    "inspect -f '{{range .Mounts}}{{.Source}}:{{.Destination}}{{end}} {{.State.Status}} {{.Config.Cmd}}' {x}1",
    "logs {x}2", "start -a {x}2", "logs {x}2", "logs --tail 0 {x}2", "diff {x}2", "port {x}1", "port {x}1 80",
    "rename {x}2 {x}3", "wait {x}3", "exec {x}1 sh -c 'echo hi; echo err >&2; exit 7'", "exec {x}1 nosuch",
    "exec -d {x}1 true", "exec -e A=b -w /tmp -u 5 {x}1 sh -c 'echo $A; pwd; id -u'", "exec -it {x}1 sh",
    "exec -i {x}1 cat", "pause {x}1", "exec {x}1 true", "unpause {x}1", "cp /etc/hostname {x}1:/tmp/h",
    "exec {x}1 cat /tmp/h", "cp {x}1:/nosuch /tmp", "stats --no-stream --format '{{.Name}} {{.PIDs}}' {x}1",
    "update -m 100m --memory-swap 200m {x}1", "commit {x}1 {x}4:v", "rm {x}1", "restart -t 0 {x}1",
    "start {x}1 nosuch", "stop -t 0 {x}1 nosuch", "start {x}1", "kill {x}1", "kill {x}1", "exec {x}1 true",
    "attach {x}1", "top {x}1", "rm {x}1 {x}3", "volume create {x}5", "volume ls", "volume inspect {x}5",
    "volume rm {x}5", "tag box:1 {x}6:v1", "rmi {x}6:v1",
]


def test_says_the_same_through_a_containers_life(same: Callable[[str], None], docker: CommandLine) -> None:
    for line in LIFE:
        same(line)
    docker("rmi dd4:v mm4:v")


@pytest.mark.parametrize("line", ["container", "image", "network", "volume", "system"])
def test_a_group_without_a_command_lists_its_commands(line: str, docker: CommandLine,
                                                      mini: CommandLine) -> None:
    def commands(text: str) -> set[str]:
        return {words.split()[0] for words in text.partition("Commands:\n")[2].splitlines() if words.startswith("  ")}

    theirs, ours = docker(line), mini(line)
    missing = commands(theirs.err) - commands(ours.err)
    assert ours.status == theirs.status == 0
    assert missing <= {"build", "update"}
