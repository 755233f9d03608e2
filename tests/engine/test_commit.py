"""What a commit takes over from its container."""

from minidocker.engine.images.commit import over
from minidocker.oci.image_config import ExecutionConfig

BASE = ExecutionConfig(cmd=["sh"], env=["A=1"], working_dir="/root", labels={"x": "y"}, exposed_ports={"80/tcp": {}})


def test_what_a_config_leaves_open_comes_from_below() -> None:
    merged = over(ExecutionConfig(env=["A=2", "B=1"], cmd=["x"]), BASE)
    assert merged.env == ["A=2", "B=1"]
    assert merged.cmd == ["x"]
    assert (merged.labels, merged.working_dir, merged.exposed_ports) == ({"x": "y"}, "/root", {"80/tcp": {}})
    assert over(ExecutionConfig(entrypoint=["e"]), BASE).cmd is None
    assert over(ExecutionConfig(), BASE).cmd == ["sh"]
