# SPDX-License-Identifier: MIT
"""A lab as data: sites, nodes and links read from YAML, and what follows from them."""
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import yaml

ISP, BACKBONE, SITE_ROUTER, HOST, INTERNET = "isp", "backbone", "router", "host", "internet"
INWARDS = [ISP, BACKBONE, SITE_ROUTER, HOST, INTERNET]


class TopologyError(Exception):
    """The topology file says something that cannot be built; the text names it."""


@dataclass(frozen=True)
class Node:
    name: str
    kind: str                 # ISP, BACKBONE, SITE_ROUTER, HOST or INTERNET
    site: str | None          # key of Topology.sites
    asn: int | None           # None: this node speaks no BGP
    services: dict            # web: {...}, dns: zone, silent: prefix
    underlay: str | None      # address of a host that is on no link, reached by all its links


@dataclass(frozen=True)
class End:
    node: str
    dev: str
    address: IPv4Interface
    address6: IPv6Interface | None
    mtu: int                  # of the link, as Linux means it: without Ethernet header

    @property
    def ip(self) -> str:
        return str(self.address.ip)

    @property
    def ip6(self) -> str:
        return str(self.address6.ip)

    @property
    def net(self) -> str:
        return str(self.address.network)

    @property
    def net6(self) -> str:
        return str(self.address6.network)


@dataclass(frozen=True)
class Prefixes:
    """What hosts and routers tell each other of one address family."""
    shared: str               # every host announces it
    internal: str             # the Internet never hears of it
    edges: dict               # site -> edge address
    bits: int                 # of an address


@dataclass(frozen=True)
class Topology:
    shared: str               # prefix every host announces
    internal: str             # prefix the Internet never hears of
    sites: dict               # site -> edge address
    nodes: dict               # name -> Node, routers from the Internet inwards, then hosts, then the rest
    links: list               # of (End, End)
    six: Prefixes | None      # None: the lab has no IPv6

    @property
    def bgp(self) -> bool:
        return any(node.asn for node in self.nodes.values())

    @property
    def four(self) -> Prefixes:
        return Prefixes(self.shared, self.internal, self.sites, 32)

    def of_kind(self, *kinds: str) -> list:
        return [node for node in self.nodes.values() if node.kind in kinds]

    @property
    def hosts(self) -> list:
        return [node.name for node in self.of_kind(HOST)]

    def neighbours(self, name: str) -> list:
        """(own End, other End) for each link of the node, in the file's order."""
        own = [(a, b) for a, b in self.links if a.node == name]
        return own + [(b, a) for a, b in self.links if b.node == name]

    def uplink(self, name: str) -> tuple:
        """(own End, router's End) of a host's or Internet node's first link."""
        return self.neighbours(name)[0]

    def address(self, name: str) -> str:
        return self.nodes[name].underlay or self.uplink(name)[0].ip

    def address6(self, name: str) -> str:
        return self.uplink(name)[0].ip6

    def hosts_at(self, site: str) -> list:
        return [node.name for node in self.of_kind(HOST) if node.site == site]

    def ends_towards(self, name: str, *kinds: str) -> list:
        """The node's own ends of links to nodes of these kinds."""
        return [own for own, other in self.neighbours(name) if self.nodes[other.node].kind in kinds]


def _end(text: str, nodes: dict, mtu: int) -> End:
    try:
        place, address, *more = text.split()
        node, dev = place.split(":")
        end = End(node, dev, IPv4Interface(address), IPv6Interface(*more) if more else None, mtu)
    except (ValueError, TypeError) as error:
        raise TopologyError(f"link end {text!r}: want 'NODE:DEVICE ADDRESS/LEN' or two ({error})") from None
    if node not in nodes:
        raise TopologyError(f"link end {text!r}: no node is called {node}")
    return end


def _link(raw: list, nodes: dict) -> tuple:
    one, other, *more = raw
    mtu = int({"mtu": 1500, **(more[0] if more else {})}["mtu"])
    return _end(one, nodes, mtu), _end(other, nodes, mtu)


def _nodes(raw: dict) -> dict:
    found = {}

    def add(section: str, kind_of) -> None:
        for name, given in (raw.get(section) or {}).items():
            given = dict(given or {})
            if name in found:
                raise TopologyError(f"{section}: {name} is there twice")
            node = Node(name, kind_of(given), given.pop("site", None), given.pop("as", None), given,
                        given.pop("underlay", None))
            if node.site is not None and node.site not in raw["sites"]:
                raise TopologyError(f"{section}: {name}: no site is called {node.site}")
            found[name] = node

    add("routers", lambda given: SITE_ROUTER if "site" in given else ISP)
    add("backbone", lambda given: BACKBONE)
    add("hosts", lambda given: HOST)
    add("internet", lambda given: INTERNET)
    return dict(sorted(found.items(), key=lambda item: INWARDS.index(item[1].kind)))


def _six(raw: dict) -> Prefixes | None:
    if "shared6" not in raw:
        return None
    return Prefixes(str(IPv6Network(raw["shared6"])), str(IPv6Network(raw["internal6"])),
                    {site: str(IPv6Address(given["edge6"])) for site, given in raw["sites"].items()}, 128)


def _check(topology: Topology) -> None:
    for end in (end for link in topology.links for end in link):
        if bool(end.address6) != bool(topology.six):
            raise TopologyError(f"{end.node}:{end.dev}: with `shared6` every link end has an IPv6 address, else none")
    for node in topology.of_kind(HOST, INTERNET):
        links = len(topology.neighbours(node.name))
        if links < 1 or (links > 1 and (node.kind == INTERNET or not topology.bgp)):
            raise TopologyError(f"{node.name}: only a host with BGP has more links than one, and none has no link")
    for name in topology.hosts:
        if topology.nodes[name].site is None:
            raise TopologyError(f"{name}: a host needs a site")
    if not topology.bgp and len(topology.of_kind(ISP, SITE_ROUTER)) != 1:
        raise TopologyError("without AS numbers there is exactly one router")


def load(path: str | Path) -> Topology:
    """The topology in a file; raises TopologyError, or OSError if it cannot be read."""
    try:
        raw = yaml.safe_load(Path(path).read_text())
        nodes = _nodes(raw)
        topology = Topology(
            shared=str(IPv4Network(raw["shared"])), internal=str(IPv4Network(raw["internal"])),
            sites={site: str(IPv4Address(given["edge"])) for site, given in raw["sites"].items()},
            nodes=nodes, links=[_link(link, nodes) for link in raw["links"]], six=_six(raw))
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise TopologyError(f"{path}: {type(error).__name__}: {error}") from None
    _check(topology)
    return topology
