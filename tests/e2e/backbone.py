# SPDX-License-Identifier: MIT
"""The lab of lab/backbone.yaml with agents, and what tests of the return path do to it and ask of it."""
import json
import re
from collections import Counter

from scapy.all import IP, Ether

import plane
from conftest import REPO
from lab import Lab

TOPOLOGY = REPO / "lab" / "backbone.yaml"
PYTHON = "/usr/bin/python3"
GB, IE = "country=GB", "country=IE"
WEB = {"web1": "203.0.113.2", "web2": "203.0.113.130"}
DNS = {"dns1": "203.0.113.6", "dns2": "203.0.113.138"}
CLIENT = "203.0.113.134"
WIDE, NARROW, OVERHEAD = 1528, 1400, 28   # bytes; what a wide link takes, what the backbone's middle does, GUE on IPv4
DELIVERED = {"not_ours", "deliver", "deliver_service", "to_host", "to_site", "to_gatherer"}


def set_backbone(lab: Lab, mtu: int) -> None:
    for node in ("lhr-b", "cdg-b"):
        lab.run(node, ["ip", "link", "set", "bb", "mtu", mtu])


def apply(lab: Lab, text: str) -> plane.Plane:
    path = plane.write(lab, text)
    plane.portslice(lab, "plan", "apply", path)
    return plane.show(lab, path)


def dispatched(lab: Lab, hosts: list | None = None) -> Counter:
    """reason -> packets, summed over the hosts."""
    total = Counter()
    for host in hosts or lab.topology.hosts:
        total.update({reason: n for (part, reason), n in plane.counters(lab, host).items() if part == "dispatch"})
    return total


def gone(before: Counter, after: Counter) -> dict:
    """What was neither delivered nor handed on meanwhile: reason -> packets."""
    return {reason: n for reason, n in (after - before).items() if reason not in DELIVERED}


def status(lab: Lab, host: str) -> dict:
    return json.loads(lab.portslice(host, "--json", "status").stdout)


def restart_agents(lab: Lab, hosts: list) -> None:
    """They forget what they learned of path MTUs."""
    lab.stop_agents(hosts)
    lab.start_agents(hosts=hosts)


def mac(lab: Lab, node: str, dev: str) -> str:
    return json.loads(lab.run(node, ["ip", "-j", "link", "show", dev]).stdout)[0]["address"]


def path_mtu(lab: Lab, node: str, destination: str, source: str = "") -> int | None:
    """What the kernel of the node has learned, or None."""
    argv = ["ip", "route", "get", destination, *(["from", source] if source else [])]
    found = re.search(r"\bmtu (\d+)", lab.run(node, argv).stdout)
    return int(found[1]) if found else None


def sent_by(lab: Lab, host: str) -> list:
    """(router, its device, filter) for each link of the host, that catches what the host itself puts on it."""
    return [(other.node, other.dev, f"ether src {mac(lab, host, own.dev)}")
            for own, other in lab.topology.neighbours(host)]


def sent_to(lab: Lab, hosts: list) -> list:
    """The same for what routers send the hosts."""
    return [(other.node, other.dev, f"ether src {mac(lab, other.node, other.dev)}")
            for host in hosts for _, other in lab.topology.neighbours(host)]


SEND = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind((sys.argv[1], 0))
    for line in sys.stdin:
        wire.send(bytes.fromhex(line))
"""


def send(lab: Lab, node: str, dev: str, frames: list) -> None:
    """Puts frames (of scapy, say) on a wire as they are."""
    lab.run(node, [PYTHON, "-c", SEND, dev], input="".join(f"{bytes(frame).hex()}\n" for frame in frames))


def send_routed(lab: Lab, node: str, packets: list) -> None:
    """The same for IP packets of an Internet node, by its provider."""
    own, other = lab.topology.uplink(node)
    ether = Ether(src=mac(lab, node, own.dev), dst=mac(lab, other.node, other.dev))
    send(lab, node, own.dev, [ether / packet for packet in map(IP, map(bytes, packets))])
