"""An endpoint: a container's place in a network.

Source  Docker's Container Network Model (sandbox, endpoint, network).
Rules   - a plain record: the engine keeps it with the container, and hands it back after a daemon's restart.
"""

import msgspec

from minidocker.network.rules import Published


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What one container has in one network.

    id              64 hex digits
    network         name of the network
    interface       name of the interface inside ("eth0")
    host_interface  name of its peer on the host
    address         "172.17.0.2"; prefix: length of the subnet's prefix
    gateway         "" for an internal network: no default route
    address6        "fd00::2", "" on a network without IPv6; prefix6, gateway6: as above
    mtu             bytes
    link_local      further addresses of the interface, with prefix, that are no part of the network's subnet
    """

    id: str
    network: str
    container_id: str
    interface: str
    host_interface: str
    address: str
    prefix: int
    gateway: str
    mac: str
    mtu: int = 1500
    address6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    link_local: tuple[str, ...] = ()

    @property
    def addresses(self) -> list[str]:
        """All of its addresses, IPv4 first."""
        return [address for address in (self.address, self.address6) if address]

    def plan(self) -> dict[str, list[dict[str, object]]]:
        """What pid 1 configures in its network namespace (`linux.netlink.configure_interfaces`), as data."""
        return {"interfaces": [self.interface_plan()]}

    def interface_plan(self, *, leads: bool = True, leads6: bool = True) -> dict[str, object]:
        """This endpoint's part of the plan. leads, leads6: the default route of IPv4, of IPv6 goes over it."""
        interface: dict[str, object] = {
            "name": self.interface,
            "mac": self.mac,
            "mtu": self.mtu,
        }
        own = [f"{self.address}/{self.prefix}", *([f"{self.address6}/{self.prefix6}"] if self.address6 else [])]
        interface["addresses"] = [*own, *self.link_local]
        if self.gateway and leads:
            interface["gateway"] = self.gateway
        if self.gateway6 and leads6:
            interface["gateway6"] = self.gateway6
        return interface


class LiveEndpoint(msgspec.Struct, frozen=True):
    """An endpoint of a container that lived on, with the ports that it had published."""

    endpoint: Endpoint
    published: tuple[Published, ...] = ()
