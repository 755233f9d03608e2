"""Names of containers on networks."""

from minidocker.network.names import Names


def book() -> Names:
    names = Names()
    names.add("front", "e1", ["web", "WWW", "abc123"], ["10.1.0.2"])
    names.add("front", "e2", ["web2", "www"], ["10.1.0.3"])
    names.add("back", "e3", ["db"], ["10.2.0.2"])
    return names


def test_a_name_is_known_on_its_own_network_only_and_in_any_case() -> None:
    names = book()
    assert names.addresses(["front"], "WeB") == names.addresses(["front"], "web.") == ["10.1.0.2"]
    assert names.addresses(["front"], "db") is None
    assert names.addresses(["back", "front"], "web") == ["10.1.0.2"]


def test_a_shared_alias_gives_all_addresses() -> None:
    assert book().addresses(["front"], "www") == ["10.1.0.2", "10.1.0.3"]


def test_the_network_may_be_named_after_the_name() -> None:
    names = book()
    assert names.addresses(["front", "back"], "db.back") == ["10.2.0.2"]
    assert names.addresses(["front"], "db.back") is None
    assert names.addresses(["front", "back"], "db.front") is None


def test_a_name_with_dots_is_tried_as_it_is_first() -> None:
    names = book()
    names.add("front", "e4", ["db.back"], ["10.1.0.9"])
    assert names.addresses(["front", "back"], "db.back") == ["10.1.0.9"]


def test_an_address_has_the_first_name_and_its_network() -> None:
    names = book()
    assert names.name_of(["front"], "10.1.0.2") == "web.front"
    assert names.name_of(["back"], "10.1.0.2") is None


def test_names_go_with_the_endpoint_and_change_with_it() -> None:
    names = book()
    names.add("front", "e1", ["renamed"], ["10.1.0.2"])
    assert names.addresses(["front"], "web") is None
    assert names.addresses(["front"], "renamed") == ["10.1.0.2"]
    names.remove("front", "e1")
    names.remove("front", "never there")
    assert names.addresses(["front"], "renamed") is None
    assert names.name_of(["front"], "10.1.0.2") is None
