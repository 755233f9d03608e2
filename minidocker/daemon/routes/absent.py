"""What this daemon has not: clusters, BuildKit, checkpoints. Each call says so as dockerd does without them.

Source  Docker Engine API 1.44: Swarm, Node, Service, Task, Secret, Config, Session; replies recorded from
        a dockerd outside of a swarm.
Rules   - lists of what cannot be there are empty, single objects are not found, everything else tells the reason.
        - a client that tries BuildKit first is refused at once, so that it falls back to the classic builder.
"""

from aiohttp import web

from minidocker.daemon.routes.containers import container_of
from minidocker.errors import NotFound, Unavailable, Unsupported

_CLUSTER = ("services", "tasks", "nodes", "secrets", "configs")
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
    "swarm and try again."
)
_ONE_MACHINE = "clusters are not supported: minidocker runs the containers of one machine"


async def no_swarm(request: web.Request) -> web.Response:
    """Any cluster call: this daemon is never part of one."""
    raise Unavailable(_NO_SWARM)


async def not_in_swarm(request: web.Request) -> web.Response:
    """POST /swarm/leave."""
    raise Unavailable("This node is not part of a swarm")


async def no_cluster(request: web.Request) -> web.Response:
    """POST /swarm/init and join."""
    raise Unsupported(_ONE_MACHINE)


async def no_buildkit(request: web.Request) -> web.Response:
    """POST /session and /grpc: what BuildKit's clients open."""
    raise NotFound("BuildKit is not supported: use the classic builder (DOCKER_BUILDKIT=0)")


async def no_checkpoints(request: web.Request) -> web.Response:
    """All of /containers/{name}/checkpoints."""
    container_of(request)
    raise Unsupported("checkpoints are not supported: they need CRIU, which this runtime does not drive")


def _add_cluster(router: web.UrlDispatcher) -> None:
    router.add_post("/swarm/leave", not_in_swarm)
    for path in ("/swarm/init", "/swarm/join"):
        router.add_post(path, no_cluster)
    for path in ("/swarm", "/swarm/{rest:.*}"):
        router.add_route("*", path, no_swarm)
    for kind in _CLUSTER:
        for path in (f"/{kind}", f"/{kind}/{{rest:.*}}"):
            router.add_route("*", path, no_swarm)


def add_routes(app: web.Application) -> None:
    router = app.router
    _add_cluster(router)
    for path in ("/session", "/grpc"):
        router.add_post(path, no_buildkit)
    router.add_get("/containers/{name:.+}/checkpoints", no_checkpoints, allow_head=False)
    router.add_post("/containers/{name:.+}/checkpoints", no_checkpoints)
    router.add_delete("/containers/{name:.+}/checkpoints/{checkpoint}", no_checkpoints)
