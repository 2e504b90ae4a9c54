# SPDX-License-Identifier: MIT
"""Namespaces, links, addresses, kernel settings and, where there is no BGP, routes."""
import json
import platform
import subprocess
from pathlib import Path

import place
from topology import BACKBONE, HOST, INTERNET, ISP, SITE_ROUTER, Topology

EVERYWHERE = {"net/ipv4/conf/all/rp_filter": 0, "net/ipv4/conf/default/rp_filter": 0,
              "net/ipv4/conf/all/send_redirects": 0, "net/ipv4/conf/default/send_redirects": 0}
WITHOUT_SIX = {"net/ipv6/conf/default/disable_ipv6": 1}
# No duplicate can be there, and to look for one takes a second.
WITH_SIX = {"net/ipv6/conf/default/accept_dad": 0, "net/ipv6/conf/default/accept_ra": 0}
FORWARDING_SIX = {"net/ipv6/conf/all/forwarding": 1, "net/ipv6/fib_multipath_hash_policy": 1}
# ip_local_port_range is left alone on purpose: portslice must work beside Linux's default.
SETTINGS = {
    ISP: {"net/ipv4/ip_forward": 1, "net/ipv4/fib_multipath_hash_policy": 1},
    SITE_ROUTER: {"net/ipv4/ip_forward": 1, "net/ipv4/fib_multipath_hash_policy": 1},
    BACKBONE: {"net/ipv4/ip_forward": 1},
    HOST: {},
    INTERNET: {"net/ipv4/ip_forward": 1, "net/core/somaxconn": 65535, "net/ipv4/tcp_max_syn_backlog": 65535},
}


def run(argv: list, text: str | None = None) -> str:
    """Output of a command that must succeed; `text` is its input."""
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise place.LabError(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def enter(name: str, node: str) -> list:
    """Only the network namespace: `ip netns exec` would hide cgroup2 and bpffs behind a new /sys."""
    return ["nsenter", f"--net={place.netns(name, node)}"]


def run_all(jobs: list) -> None:
    """Runs (argv, input) pairs side by side and fails with the first that failed."""
    started = [(argv, text, subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                             stderr=subprocess.PIPE, text=True)) for argv, text in jobs]
    answers = [(argv, process, process.communicate(text)[1]) for argv, text, process in started]
    for argv, process, error in answers:
        if process.returncode:
            raise place.LabError(f"{' '.join(map(str, argv))}: {error.strip() or process.returncode}")


def _settings_script(topology: Topology, kind: str) -> str:
    values = {**EVERYWHERE, **SETTINGS[kind], **(WITH_SIX if topology.six else WITHOUT_SIX)}
    if topology.six and kind != HOST:
        values |= FORWARDING_SIX
    return "set -e\n" + "".join(f"echo {value} >/proc/sys/{key}\n" for key, value in values.items())


def _static_routes(topology: Topology, name: str) -> list:
    """Routes of a lab without BGP: its one router spreads the shared prefix over all hosts, flow by flow."""
    if topology.nodes[name].kind in (HOST, INTERNET):
        router = topology.uplink(name)[1]
        vias = [router.ip, router.ip6] if topology.six else [router.ip]
        return [f"route add default via {via}" for via in vias]
    ways = {own.dev: other for own, other in topology.neighbours(name) if other.node in topology.hosts}
    lines = []
    for prefixes in filter(None, (topology.four, topology.six)):
        hops = " ".join(f"nexthop via {other.ip if prefixes.bits == 32 else other.ip6} dev {dev}"
                        for dev, other in ways.items())
        lines += [f"route add {prefix} {hops}" for prefix in (prefixes.shared, *prefixes.edges.values())]
    return lines


def _node_script(topology: Topology, name: str, lab: str) -> str:
    """Addresses, routes and device features of one node, as shell over one `ip -batch`."""
    node = topology.nodes[name]
    ends = [own for own, _ in topology.neighbours(name)]
    lines = ["link set lo up"]
    for end in ends:
        lines += [f"addr add {end.address} dev {end.dev}", f"link set {end.dev} mtu {end.mtu} up"]
        if end.address6:
            lines.append(f"addr add {end.address6} dev {end.dev} nodad")
    if node.kind == HOST:
        lines += [f"addr add {prefixes.edges[node.site]}/{prefixes.bits} dev lo"
                  for prefixes in filter(None, (topology.four, topology.six))]
        lines += [f"addr add {node.underlay}/32 dev lo"] if node.underlay else []
    if "silent" in node.services:
        lines.append(f"route add blackhole {node.services['silent']}")
    if node.kind == INTERNET or not topology.bgp:
        lines += _static_routes(topology, name)
    # XDP_TX and GRO both carry a packet on with its checksum unfinished: let the sender finish it.
    offloads = [f"ethtool -K {end.dev} tx off" for end in ends]
    awake = [f"ip link set {end.dev} xdp pinned {place.pass_pin(lab)}" for end in topology.ends_towards(name, HOST)]
    return "\n".join(["set -e", "ip -batch - <<END", *lines, "END", *offloads, *awake]) + "\n"


def compile_bpf(source: Path, target: Path) -> list:
    """The command that does it. Debian keeps asm/types.h below the machine's triplet, which -target bpf hides."""
    return ["clang-19", "-target", "bpf", "-O2", "-g", "-isystem", f"/usr/include/{platform.machine()}-linux-gnu",
            "-c", str(source), "-o", str(target)]


def pin_bpf(program: Path, pin: Path) -> None:
    """Loads a program for `ip link set ... xdp pinned`; with `xdp obj`, iproute2 would leave folders in bpffs."""
    run(["bpftool", "prog", "load", str(program), str(pin)])


def _sh(name: str, node: str) -> list:
    return [*enter(name, node), "sh", "-s"]


def create(topology: Topology, name: str) -> None:
    """All namespaces with their links up; on failure what exists is left to `teardown`."""
    nodes, passing = topology.nodes, place.state(name) / "pass.bpf.o"
    run_all([(["ip", "-batch", "-"], "".join(f"netns add {name}-{node}\n" for node in nodes)),
             (compile_bpf(place.REPO / "lab" / "pass.bpf.c", passing), None)])
    pin_bpf(passing, place.pass_pin(name))
    run_all([(_sh(name, node.name), _settings_script(topology, node.kind)) for node in nodes.values()])
    run(["ip", "-batch", "-"], "".join(
        f"link add {a.dev} netns {name}-{a.node} type veth peer name {b.dev} netns {name}-{b.node}\n"
        for a, b in topology.links))
    run_all([(_sh(name, node), _node_script(topology, node, name)) for node in nodes])
    place.pass_pin(name).unlink()   # the devices hold the program now


def routes(name: str, node: str) -> dict:
    """prefix -> set of devices that the node's kernel would send it out of; the IPv6 default is ::/0."""
    found = {}
    for family in ("-4", "-6"):
        for route in json.loads(run(["ip", "-j", family, "-n", f"{name}-{node}", "route", "show"]) or "[]"):
            devices = {hop["dev"] for hop in route.get("nexthops", [])} or {route.get("dev", "none")}
            prefix = "::/0" if (family, route["dst"]) == ("-6", "default") else route["dst"]
            found[prefix] = found.get(prefix, set()) | devices
    return found


def silence(topology: Topology, name: str, host: str) -> None:
    """Cuts a host off as a power failure behind a switch does: packets vanish, the router's link stays up."""
    router = topology.uplink(host)[1]
    rules = "add table netdev cut\n" + "".join(
        f"add chain netdev cut {router.dev}_{way} "
        f"{{ type filter hook {way} device {router.dev} priority -500; policy drop; }}\n"
        for way in ("ingress", "egress"))
    run([*enter(name, router.node), "nft", "-f", "-"], rules)


def is_bpffs(path: Path) -> bool:
    return any(line.split()[1:3] == [str(path), "bpf"] for line in Path("/proc/self/mounts").read_text().splitlines())


def mount_bpffs() -> None:
    if not is_bpffs(Path("/sys/fs/bpf")):
        run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"])
