# SPDX-License-Identifier: MIT
"""BIRD 2 on every node with an AS number: who tells whom what, and when all have heard.

  ISP <-> ISP             everything
  site router -> ISP      the shared prefix only; the Internet never hears of internal addresses
  site router <-> other   internal addresses only, at low preference (the backbone, with routers of its own or without)
  site router -> host     everything but the shared prefix
  host -> site router     the shared prefix, the site's edge address, its own underlay address if that is on no link
"""
import socket
import time
from pathlib import Path

import net
import place
from topology import BACKBONE, HOST, INTERNET, ISP, SITE_ROUTER, Prefixes, Topology

HEAD = """router id {id};
log "{log}" {{ warning, error, fatal, bug, auth }};
protocol device {{ scan time 10; }}
protocol bfd {{ interface "*" {{ min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }}; }}
protocol direct {{ {families} interface "-lo", "*"; }}
"""
KERNEL_ROUTER = "protocol kernel {{ merge paths on limit 16; {family} {{ export where source != RTS_DEVICE; }}; }}\n"
KERNEL_HOST = "protocol kernel {{ {family} {{ export where source = RTS_BGP; }}; }}\n"
# One session over IPv4 carries both families (RFC 4760); the next hop of IPv6 is the link's other address.
SESSION = """protocol bgp {name} {{
  local as {asn}; neighbor {peer} as {peer_as};
  hold time 9; keepalive time 3; connect retry time 1; connect delay time 0; error wait time 1,5;
  bfd on; graceful restart off;{more}
{channels}}}
"""
CHANNEL = "  {family} {{ import {imports}; export {exports}; next hop self; }};\n"
RANK = [ISP, BACKBONE, SITE_ROUTER, HOST]


def _families(topology: Topology) -> list:
    """(BIRD's name, Prefixes) of each family that the lab has."""
    return [("ipv4", topology.four)] + ([("ipv6", topology.six)] if topology.six else [])


def _policy(prefixes: Prefixes, mine, theirs) -> tuple:
    """(import, export) of a session, as seen by `mine`."""
    shared, internal = prefixes.shared, prefixes.internal
    own = [shared, f"{prefixes.edges.get(mine.site or theirs.site)}/{prefixes.bits}"]
    own += [f"{node.underlay}/32" for node in (mine, theirs) if node.underlay and prefixes.bits == 32]
    ours = f"net ~ [ {', '.join(own)} ]"
    match mine.kind, theirs.kind:
        case "host", _:
            return f"where !({ours})", f'where proto = "anycast{prefixes.bits}"'
        case _, "host":
            return f"where {ours}", f"where !({ours})"
        case "router", "isp":
            return f"where !(net ~ [ {internal}+, {shared}+ ])", f"where net = {shared}"
        case ("router" | "backbone"), ("router" | "backbone"):
            # Equal AS paths would else spread one site's traffic over the backbone.
            return (f"filter {{ if net !~ [ {internal}+ ] then reject; bgp_local_pref = 50; accept; }}",
                    f"where net ~ [ {internal}+ ]")
    return "all", "all"


def _session(topology: Topology, own, other) -> str:
    mine, theirs = topology.nodes[own.node], topology.nodes[other.node]
    channels = ""
    for family, prefixes in _families(topology):
        imports, exports = _policy(prefixes, mine, theirs)
        channels += CHANNEL.format(family=family, imports=imports, exports=exports)
    order = list(topology.nodes)
    # Whoever starts first waits to be called: a call to a BIRD not yet there costs a retry of a second.
    first = order.index(mine.name) < order.index(theirs.name)
    more = " passive on;" if first else ""
    if mine.kind == HOST:
        more += " allow local as;"   # hosts of a site share a number, and tell each other underlay addresses
    return SESSION.format(name=own.dev, asn=mine.asn, peer=other.ip, peer_as=theirs.asn, channels=channels, more=more)


def _anycast(node, family: str, prefixes: Prefixes) -> str:
    announced = [prefixes.shared, f"{prefixes.edges[node.site]}/{prefixes.bits}"]
    if node.underlay and prefixes.bits == 32:
        announced.append(f"{node.underlay}/32")
    routes = " ".join(f"route {one} blackhole;" for one in announced)
    return f"protocol static anycast{prefixes.bits} {{ {family}; {routes} }}\n"


def _statics(topology: Topology, name: str) -> str:
    node = topology.nodes[name]
    if node.kind == HOST:
        return "".join(_anycast(node, family, prefixes) for family, prefixes in _families(topology))
    silent = [(topology.nodes[other.node].services["silent"], other.ip)
              for _, other in topology.neighbours(name) if "silent" in topology.nodes[other.node].services]
    return "".join(f"protocol static {{ ipv4; route {prefix} via {via}; }}\n" for prefix, via in silent)


def config(topology: Topology, name: str, state: Path) -> str:
    ends, families = topology.neighbours(name), [family for family, _ in _families(topology)]
    text = HEAD.format(id=ends[0][0].ip, log=state / name / "bird.log",
                       families="".join(f"{family}; " for family in families).strip())
    kernel = KERNEL_HOST if topology.nodes[name].kind == HOST else KERNEL_ROUTER
    text += "".join(kernel.format(family=family) for family in families)
    text += _statics(topology, name)
    return text + "".join(_session(topology, own, other) for own, other in ends if topology.nodes[other.node].asn)


def speakers(topology: Topology) -> list:
    return [node.name for node in topology.nodes.values() if node.asn]


def start(topology: Topology, name: str) -> None:
    state = place.state(name)
    for node in speakers(topology):
        (state / node / "bird.conf").write_text(config(topology, node, state))
    for kind in RANK:
        net.run_all([([*net.enter(name, node.name), "bird", "-c", str(state / node.name / "bird.conf"),
                       "-s", str(state / node.name / "bird.ctl"), "-P", str(state / node.name / "bird.pid")], None)
                     for node in topology.of_kind(kind) if node.asn])


def ask(control: Path, command: str) -> list:
    """BIRD's answer, as birdc would print it, line by line; empty if that BIRD is not there."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(1)
        try:
            wire.connect(str(control))
            lines = wire.makefile("rw")
            lines.readline()
            lines.write(command + "\n")
            lines.flush()
            return list(_answer(lines))
        except OSError:
            return []


def _answer(lines):
    """Lines are 'CODE-text' or ' text' until 'CODE text' (BIRD, doc/reply_codes); codes stay valid for ' text'."""
    for line in lines:
        coded = line[:4].isdigit()
        text = (line[5:] if coded else line[1:]).rstrip("\n")
        if text:
            yield text
        if coded and line[4:5] != "-":
            return


def sessions(name: str, node: str) -> list:
    """One dict for each BGP session of the node: peer (the link's device), state, and whether BFD sees it."""
    control = place.state(name) / node / "bird.ctl"
    bfd = {line.split()[1]: line.split()[2] for line in ask(control, "show bfd sessions")
           if len(line.split()) >= 3 and line[0].isdigit()}
    rows = [line.split() for line in ask(control, "show protocols")]
    return [{"peer": row[0], "bgp": row[5] if len(row) > 5 else row[3], "bfd": bfd.get(row[0], "Down")}
            for row in rows if len(row) > 3 and row[1] == "BGP"]


def _expected(topology: Topology, prefixes: Prefixes, net_of) -> dict:
    """As expected(), for one family; net_of gives the network of a link end."""
    shared, edges = prefixes.shared, prefixes.edges
    outside = {net_of(topology.uplink(node.name)[0]) for node in topology.of_kind(INTERNET)}
    underlay = {net_of(own) for host in topology.hosts for own, _ in topology.neighbours(host)}
    if prefixes.bits == 32:
        outside |= {node.services["silent"] for node in topology.of_kind(INTERNET) if "silent" in node.services}
        underlay |= {node.underlay for node in topology.of_kind(HOST) if node.underlay}
    wanted = {}
    for node in topology.of_kind(ISP):
        site_ends = {end.dev for end in topology.ends_towards(node.name, SITE_ROUTER)}
        wanted[node.name] = {**dict.fromkeys(outside), shared: site_ends or None}
    for node in topology.of_kind(SITE_ROUTER):
        spread = {end.dev for end in topology.ends_towards(node.name, HOST)}
        backbone = {end.dev for end in topology.ends_towards(node.name, SITE_ROUTER, BACKBONE)}
        others = {edge: backbone for site, edge in edges.items() if site != node.site}
        wanted[node.name] = {**dict.fromkeys(outside | underlay), shared: spread, edges[node.site]: spread, **others}
    for node in topology.of_kind(BACKBONE):
        wanted[node.name] = dict.fromkeys(underlay | set(edges.values()))
    for node in topology.of_kind(HOST):
        others = {edge for site, edge in edges.items() if site != node.site}
        wanted[node.name] = dict.fromkeys((outside | underlay | others) - {node.underlay})
    return wanted


def expected(topology: Topology) -> dict:
    """node -> prefix -> the devices its route must use (None: any). Next hops matter, not just that a route is there."""
    wanted = _expected(topology, topology.four, lambda end: end.net)
    if topology.six:
        for node, more in _expected(topology, topology.six, lambda end: end.net6).items():
            wanted[node] |= more
    return wanted


def _missing(topology: Topology, name: str, wanted: dict) -> list:
    found = []
    for node, prefixes in wanted.items():
        have = net.routes(name, node)
        for prefix, devices in prefixes.items():
            if prefix not in have or (devices and have[prefix] != devices):
                found.append(f"{node}: {prefix} by {sorted(have.get(prefix, []))}")
                break
    return found


def poke(topology: Topology, name: str) -> None:
    """BIRD 2.0.12 may sit in poll() for 3 s with an update unsent; any word on its control socket wakes it."""
    for node in speakers(topology):
        ask(place.state(name) / node / "bird.ctl", "show status")


def _bfd_down(topology: Topology, name: str) -> list:
    return [f"{node}: BFD to {session['peer']} {session['bfd']}" for node in speakers(topology)
            for session in sessions(name, node) if session["bfd"] != "Up"]


def converge(topology: Topology, name: str, timeout: float = 20) -> None:
    """Returns when every route and every BFD session stands."""
    deadline = time.monotonic() + timeout
    wanted = expected(topology)
    while True:
        missing = _missing(topology, name, wanted)
        wanted = {node: wanted[node] for node in (line.split(":")[0] for line in missing)}
        missing = missing or _bfd_down(topology, name)
        if not missing:
            return
        if time.monotonic() > deadline:
            raise place.LabError(f"routes do not settle within {timeout} s: {'; '.join(missing)}")
        poke(topology, name)
        time.sleep(0.02)
