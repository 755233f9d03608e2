"""Tables are aligned as Go's tabwriter aligns them."""

from minidocker.cli.commands.ps import ports_text
from minidocker.cli.table import align


def test_cells_are_padded_to_the_widest_and_the_last_is_not() -> None:
    assert align("ID\tNAME\nabcdefgh\tx") == "ID         NAME\nabcdefgh   x"


def test_a_narrow_column_is_ten_wide() -> None:
    assert align("A\tB\n1\t2") == "A         B\n1         2"


def test_lines_without_the_column_break_it_in_two() -> None:
    assert align("aaaaaaaaaaaaaaa\tx\nalone\nb\ty") == "aaaaaaaaaaaaaaa   x\nalone\nb         y"


def test_neighbouring_ports_are_joined() -> None:
    ports: list[object] = [{"IP": "0.0.0.0", "PrivatePort": port, "PublicPort": port + 8000, "Type": "tcp"}
                           for port in (81, 80, 443)]
    ports += [{"PrivatePort": 53, "Type": "udp"}]
    assert ports_text(ports) == "53/udp, 0.0.0.0:8080-8081->80-81/tcp, 0.0.0.0:8443->443/tcp"
