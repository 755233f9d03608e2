"""The hidden cases of exercise 10. Instructors keep this file; it is in no release."""

import random
from ipaddress import IPv4Address, IPv4Network

from minidocker.lab.checks import Bench, expect

SUBNETS = """
def tell(*arguments):
    try:
        return free_subnet(*arguments)
    except NotImplementedError:
        raise
    except ValueError:
        return "ValueError"
    except Exception as error:
        return type(error).__name__
answers = [tell(*arguments) for arguments in asked]
"""


def the_subnet(free_subnet):
    """Subnets in use that are smaller, larger, elsewhere, or all there are."""
    bench = Bench()
    number = random.randrange(5, 200)
    pool, pieces = f"10.{number}.0.0/16", [f"10.{number}.{third}.0/24" for third in range(256)]
    cases = [
        ("nothing is in use", (pool, 24, []), pieces[0]),
        ("one that is smaller than a piece", (pool, 24, [f"10.{number}.0.128/28"]), pieces[1]),
        ("one that is larger than a piece", (pool, 24, [f"10.{number}.0.0/21"]), pieces[8]),
        ("one around the pool", (pool, 24, ["10.0.0.0/8"]), "ValueError"),
        ("subnets of elsewhere do not matter", (pool, 24, ["192.168.0.0/16", "172.17.0.0/16"]), pieces[0]),
        ("a gap between two is taken", (pool, 24, [*pieces[:7], *pieces[8:20]]), pieces[7]),
        ("all are in use", (pool, 24, pieces), "ValueError"),
        ("the pool itself is a piece", (pool, 16, []), pool),
        ("order does not matter", (pool, 24, [pieces[1], pieces[0]]), pieces[2]),
    ]
    try:
        asked = [list(arguments) for _, arguments, _ in cases]
        found = bench.run(SUBNETS, definitions=[free_subnet], values={"asked": asked}, wanted=("answers",))["answers"]
        for (concept, _, right), answer in zip(cases, found, strict=True):
            expect(answer == right, concept, answer, right, "overlaps")
    finally:
        bench.close()


ADDRESSES = """
def tell(what, *arguments):
    try:
        return what(*arguments)
    except NotImplementedError:
        raise
    except Exception as error:
        return type(error).__name__

book = Addresses(subnet, gateway)
drawn = []
while (one := tell(book.take)) != "RuntimeError" and len(drawn) < 100:
    drawn.append(one)
for address in back:
    book.give_back(address)
again = [tell(book.take) for _ in back]
for address in never:
    book.give_back(address)
full = tell(book.take)
wanted = [tell(Addresses(subnet, gateway).take, address) for address in never]
outside = tell(Addresses(subnet, gateway).take, "192.0.2.7")
twice = Addresses(subnet, gateway)
in_use = [tell(twice.take, back[0]), tell(twice.take, back[0])]
twice.give_back(back[0])
twice.give_back(back[0])
in_use.append(tell(twice.take, back[0]))
old = Addresses(subnet, gateway, living=back)
living = [tell(old.take, back[0]), tell(old.take)]
two = [Addresses(subnet, gateway).take(), Addresses(subnet, gateway).take()]
large = Addresses("10.0.0.0/8", "10.0.0.1", living=["10.0.0.2", "10.0.0.4"])
many = [large.take(), large.take(), large.take("10.200.0.1"), large.take()]
"""


def the_addresses(addresses):
    """A small subnet drawn empty, what comes back, what never goes out, what lives on, and a large subnet."""
    bench = Bench(timeout_seconds=6)
    subnet = IPv4Network(f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(16) * 16}/28")
    gateway = random.choice([subnet[1], subnet[5], subnet[14]])
    free = [str(address) for address in subnet.hosts() if address != gateway]
    back = random.sample(free, 3)
    never = [str(subnet[0]), str(gateway), str(subnet[-1])]
    values = {"subnet": str(subnet), "gateway": str(gateway), "back": back, "never": never}
    wanted = ("drawn", "again", "full", "wanted", "outside", "in_use", "living", "two", "many")
    try:
        seen = bench.run(ADDRESSES, definitions=[addresses], values=values, wanted=wanted)
        expect(seen["drawn"] == free, "all addresses but three, the lowest first", seen["drawn"], free, "in order")
        lowest = sorted(back, key=IPv4Address)
        expect(
            seen["again"] == lowest, "what came back goes out again, the lowest first", seen["again"], lowest, "sort"
        )
        expect(seen["full"] == "RuntimeError", "the gateway is never handed out", seen["full"], "RuntimeError", "keep")
        expect(seen["wanted"] == ["ValueError"] * 3, "nor on request", seen["wanted"], "ValueError", "reserved")
        expect(seen["outside"] == "ValueError", "an address of elsewhere", seen["outside"], "ValueError", "in subnet")
        right = [back[0], "RuntimeError", back[0]]
        expect(seen["in_use"] == right, "one address for one container", seen["in_use"], right, "in use")
        others = [address for address in free if address not in back]
        right = ["RuntimeError", others[0]]
        expect(seen["living"] == right, "after a crash the living keep theirs", seen["living"], right, "living")
        expect(len(set(seen["two"])) == 1, "two books know nothing of each other", seen["two"], "the same", "self")
        right = ["10.0.0.3", "10.0.0.5", "10.200.0.1", "10.0.0.6"]
        expect(seen["many"] == right, "a large subnet", seen["many"], right, "do not list all addresses")
    finally:
        bench.close()


WORLD = """
import os
from minidocker.lab.props.boxes import Box, ask, ping
from minidocker.linux import netlink
from minidocker.network import host
from minidocker.network.nftables import Nftables

first, second, stranger = Box(), Box(), Box()
netlink.configure_interfaces({})
bridge = netlink.create_bridge("br7", f"{net}.1/24", "02:42:00:00:00:07", 1500)
other = netlink.create_bridge("br8", "10.99.0.1/24", "02:42:00:00:00:08", 1500)
netlink.create_veth("uplink", 0, "eth0", stranger.pid, "", 1500)
netlink.add_address("uplink", "203.0.113.1/24")
with stranger:
    plan = {"name": "eth0", "addresses": ["203.0.113.9/24"], "gateway": "203.0.113.1"}
    netlink.configure_interfaces({"interfaces": [plan]})
"""

CONNECT = """
def names():
    return sorted(link.name for link in netlink.links())

def fds():
    return len(os.listdir("/proc/self/fd"))

from minidocker.linux.namespaces import CloneFlag, setns
way_home = os.open("/proc/self/ns/net", os.O_RDONLY)
home, before = os.readlink("/proc/self/ns/net"), names()
errors, failed_links, stayed = [], [], []
for address, gateway in ((f"{net}.300/24", f"{net}.1"), (f"{net}.2/24", "198.51.100.1")):
    box = Box()
    opened = fds()
    try:
        connect("br7", box.pid, address, gateway)
        errors.append("no error")
    except NotImplementedError:
        raise
    except BaseException as error:
        errors.append("an error")
    stayed.append(os.readlink("/proc/self/ns/net") == home)
    setns(way_home, CloneFlag.NEWNET)
    failed_links.append([name for name in names() if name not in before])
    leaked = fds() - opened
try:
    connect("br-none", first.pid, f"{net}.2/24", f"{net}.1")
    errors.append("no error")
except BaseException:
    errors.append("an error")
opened = fds()
ends = [connect("br7", first.pid, f"{net}.{x}/24", f"{net}.1"), connect("br7", second.pid, f"{net}.{y}/24", f"{net}.1")]
far = Box()
ends.append(connect("br8", far.pid, "10.99.0.7/24", "10.99.0.1"))
leaked = max(leaked, fds() - opened)
stayed.append(os.readlink("/proc/self/ns/net") == home)
with open(f"/proc/self/task/{os.getpid()}/children") as file:
    children = set(map(int, file.read().split()))
boxes_only = all(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] != "Z" for pid in children)
masters = {link.name: link.master for link in netlink.links()}
in_bridge = [masters.get(ends[0]) == bridge, masters.get(ends[1]) == bridge, masters.get(ends[2]) == other]
up = {link.name: link.up for link in netlink.links()}
told = [first.ping(f"{net}.1"), first.ping(f"{net}.{y}"), second.ping(f"{net}.{x}"), first.ping("203.0.113.1"),
        first.ping(f"127.0.0.{x}"), far.ping("10.99.0.1")]
with first:
    inside = sorted((link.name, link.up) for link in netlink.links())
    addresses = sorted(text for _, text in netlink.addresses() if not text.startswith("127."))
distinct = len(set(ends)) == 3 and all(len(end.encode()) <= 15 for end in ends)
"""


def the_connect(connect):
    """Failures that must leave nothing; then three containers on two bridges, by links, routes and pings."""
    bench = Bench()
    net = f"10.{random.randrange(100, 200)}.{random.randrange(256)}"
    x, y = random.sample(range(2, 250), 2)
    values = {"net": net, "x": x, "y": y}
    wanted = ("errors", "failed_links", "stayed", "leaked", "boxes_only", "in_bridge", "told", "inside", "addresses",
              "distinct")  # fmt: skip
    try:
        seen = bench.run(WORLD + CONNECT, definitions=[connect], values=values, wanted=wanted)
        expect(seen["errors"] == ["an error"] * 3, "what fails is told", seen["errors"], "errors", "let it pass")
        expect(all(seen["stayed"]), "the caller stays at home, also after an error", "elsewhere", "home", "finally")
        expect(not any(seen["failed_links"]), "after an error the pair is gone", seen["failed_links"], "none", "delete")
        expect(seen["distinct"], "each pair has a name of its own", "a name twice, or too long", "15 letters", "random")
        expect(all(seen["in_bridge"]), "each in the bridge that was asked for", seen["in_bridge"], "", "link_index")
        right = [["eth0", True], ["lo", True]]
        expect([list(one) for one in seen["inside"]] == right, "eth0 and lo are up", seen["inside"], right, "up")
        expect(
            seen["addresses"] == [f"{net}.{x}/24"], "the address, with its prefix", seen["addresses"], "", "as given"
        )
        expect(seen["told"] == ["answered"] * 6, "neighbours, gateway and beyond answer", seen["told"], "all", "routes")
        expect(seen["leaked"] <= 0, "no descriptor stays open", seen["leaked"], 0, "os.close")
        expect(seen["boxes_only"], "no dead child stays", "a zombie", "none", "waitpid")
    finally:
        bench.close()


PUBLISH = """
TEXT = '''
table ip course {
  chain prerouting  {
    type nat hook prerouting priority dstnat
  }
  chain output {
    type nat hook output priority -100
  }
  chain postrouting {
    type nat hook postrouting priority srcnat
    ip saddr 127.0.0.0/8 oifname "br7" masquerade
    ip saddr SUBNET oifname != "br7" masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy drop
    ct state established,related accept
    iifname "br7" accept
  }
}
'''.replace("SUBNET", f"{net}.0/24")
for number, one in ((2, first), (3, second)):
    netlink.create_veth(f"veth{number}", bridge, "eth0", one.pid, "", 1500)
    with one:
        plan = {"name": "eth0", "addresses": [f"{net}.{number}/24"], "gateway": f"{net}.1"}
        netlink.configure_interfaces({"interfaces": [plan]})
host.sysctl("ip_forward", "1")
host.sysctl("conf/br7/route_localnet", "1")
nft = Nftables()
nft.run(TEXT)
first.serve(inner)
first.serve(inner + 1)
second.serve(inner)
stranger.serve(outer)
stranger.serve(local)

def put_in(rules):
    for chain in ("prerouting", "output", "forward"):
        nft.run(f"add rule ip course {chain} {rules[chain]}")

put_in(publish_rules("", outer, f"{net}.2", inner))
put_in(publish_rules("127.0.0.1", local, f"{net}.3", inner))
public = [stranger.ask("203.0.113.1", outer), *(ask(one, outer) for one in ("203.0.113.1", "127.0.0.1", "10.99.0.1"))]
loopback = [ask("127.0.0.1", local), stranger.ask("203.0.113.1", local), ask("203.0.113.1", local)]
direct = [stranger.ask(f"{net}.2", inner), stranger.ask(f"{net}.3", inner), stranger.ask(f"{net}.2", inner + 1)]
passing = [first.ask("203.0.113.9", outer), ask("203.0.113.9", outer), ask("203.0.113.9", local)]
unpublished = [stranger.ask("203.0.113.1", inner), stranger.ask("203.0.113.1", outer + 1)]
"""


def the_publish(publish_rules):
    """Who reaches what, by TCP connections: strangers, the host, containers; the published, the direct, the passing."""
    bench = Bench()
    net = f"10.{random.randrange(100, 200)}.{random.randrange(256)}"
    outer, local = random.sample(range(2000, 30_000, 10), 2)
    values = {"net": net, "outer": outer, "local": local, "inner": random.randrange(100, 900)}
    wanted = ("public", "loopback", "direct", "passing", "unpublished")
    try:
        seen = bench.run(WORLD + PUBLISH, definitions=[publish_rules], values=values, wanted=wanted)
        public = ["203.0.113.9", "203.0.113.1", f"{net}.1", "10.99.0.1"]
        expect(seen["public"] == public, "a published port answers at each address", seen["public"], public, "local")
        expect(
            seen["loopback"][0] == f"{net}.1", "one that is published on loopback", seen["loopback"], "answer", "daddr"
        )
        closed = [text for text in seen["loopback"][1:] if text[:1].isdecimal()]
        expect(not closed, "what is published on loopback answers there only", closed, "none", "ip daddr")
        inside = [text for text in seen["direct"] if text[:1].isdecimal()]
        expect(not inside, "the direct way to a container stays closed", inside, "none", "ct status dnat")
        own = ["203.0.113.1"] * 3
        expect(seen["passing"] == own, "the same port of another machine is left alone", seen["passing"], own, "local")
        closed = [text for text in seen["unpublished"] if text[:1].isdecimal()]
        expect(not closed, "what is not published stays closed", closed, "none", "tcp dport")
    finally:
        bench.close()


CASES = {
    "ex10-subnet": the_subnet, "ex10-addresses": the_addresses, "ex10-connect": the_connect,
    "ex10-publish": the_publish,
}  # fmt: skip
