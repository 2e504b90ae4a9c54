# SPDX-License-Identifier: MIT
"""What privileged programs forge on a host does not leave it, and each packet is counted; containers are left alone."""
import errno
import json
import subprocess

import pytest
from conftest import REPO
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6MLReport, ICMPv6ND_NA,
                                ICMPv6ND_NS, ICMPv6ND_RA, ICMPv6ND_Redirect, IPv6, IPv6ExtHdrDestOpt,
                                IPv6ExtHdrFragment, IPv6ExtHdrHopByHop)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

import plane
import programs
from programs import WEB1

TOPOLOGY = REPO / "lab" / "two-sites-v6.yaml"
PYTHON = "/usr/bin/python3"
GB, HOST, EACH = "country=GB", "lhr1", 5
FAR, FAR6 = WEB1, "2001:db8:f:1::2"
OURS, OTHERS, NOBODYS = "198.51.100.1", "198.51.100.2", "198.51.100.255"    # lhr1: ports 2048-4095 of the first
OURS6, OTHERS6 = "2001:db8:1::", "2001:db8:1::1"                           # a whole address each
SEND = """import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind(('eth0', 0))
for frame in sys.stdin.read().split():
    try: wire.send(bytes.fromhex(frame))
    except OSError as error: assert error.errno == 105   # ENOBUFS: the guard dropped it
"""
CONTAINER = """import json, socket, sys
one = socket.create_connection((sys.argv[1], 80), 5)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
loose = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
loose.sendto(b'x', (sys.argv[1], 9))
print(json.dumps([one.getsockname()[0], loose.getsockname()[1]]))
"""


def v4(source: str, **more) -> IP:
    return IP(src=source, dst=FAR, **more)


def v6(source: str, **more) -> IPv6:
    return IPv6(src=source, dst=FAR6, **more)


def kinds() -> dict:
    """name -> (packet, counter)."""
    quoted, quoted6 = IPerror(src=FAR, dst=OURS) / UDPerror(sport=9, dport=9000), IPv6(src=FAR6, dst=OTHERS6) / UDP(dport=9000)
    return {
        "TCP, a port of nobody": (v4(OURS) / TCP(sport=9000), "port"),
        "TCP, the last port before ours": (v4(OURS) / TCP(sport=2047), "port"),
        "TCP, the first port after ours": (v4(OURS) / TCP(sport=4096), "port"),
        "TCP, a port that has no slice": (v4(OURS) / TCP(sport=80), "port"),
        "UDP, another host's": (v4(OTHERS) / UDP(sport=2100), "port"),
        "UDP, port 0": (v4(OURS) / UDP(sport=0), "port"),
        "an address of nobody": (v4(NOBODYS) / UDP(sport=2100), "port"),
        "a first fragment": (v4(OURS, flags="MF", id=7) / UDP(sport=9000) / Raw(bytes(24)), "port"),
        "with IP options": (IP(src=OURS, dst=FAR, options=b"\x94\x04\x00\x00") / UDP(sport=9000), "port"),
        "an echo request": (v4(OURS) / ICMP(type=8, id=9000), "port"),
        "an echo reply": (v4(OURS) / ICMP(type=0, id=9000), "port"),
        "an ICMP error": (v4(OURS) / ICMP(type=3, code=3) / quoted, "port"),
        "tagged": (Dot1Q(vlan=7) / v4(OURS) / UDP(sport=9000), "port"),
        "a later fragment alone": (v4(OURS, frag=100, id=8) / Raw(bytes(24)), "fragment"),
        "GRE": (v4(OURS) / GRE(), "protocol"),
        "ESP": (v4(OURS, proto=50) / Raw(bytes(24)), "protocol"),
        "a timestamp request": (v4(OURS) / ICMP(type=13), "protocol"),
        "cut within the ports": (v4(OURS, proto=17) / Raw(b"\x10"), "protocol"),
        "TCP over IPv6, another host's": (v6(OTHERS6) / TCP(sport=2100), "port"),
        "TCP over IPv6, a port below 1024": (v6(OURS6) / TCP(sport=80), "port"),
        "UDP behind extension headers": (v6(OTHERS6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=2100), "port"),
        "an echo request over IPv6": (v6(OTHERS6) / ICMPv6EchoRequest(id=2100), "port"),
        "an echo reply over IPv6": (v6(OTHERS6) / ICMPv6EchoReply(id=2100), "port"),
        "an ICMPv6 error": (v6(OTHERS6) / ICMPv6DestUnreach() / quoted6, "port"),
        "a later fragment over IPv6": (v6(OURS6) / IPv6ExtHdrFragment(offset=50, id=9, nh=17) / Raw(bytes(24)), "fragment"),
        "GRE over IPv6": (v6(OURS6, nh=47) / Raw(bytes(24)), "protocol"),
        "multicast listener report": (v6(OURS6) / ICMPv6MLReport(), "protocol"),
        "a solicitation from a shared address": (v6(OURS6) / ICMPv6ND_NS(tgt=FAR6), "neighbour"),
        "a solicitation for a shared address": (v6("fd00:1:1::1") / ICMPv6ND_NS(tgt=OURS6), "neighbour"),
        "an advertisement of a shared address": (v6("fd00:1:1::1") / ICMPv6ND_NA(tgt=OTHERS6), "neighbour"),
        "a router advertisement": (v6(OURS6) / ICMPv6ND_RA(), "neighbour"),
        "a redirect": (v6(OURS6) / ICMPv6ND_Redirect(tgt=FAR6, dst=FAR6), "neighbour"),
    }


ALLOWED = {"UDP of ours": v4(OURS) / UDP(sport=2100, dport=9), "UDP of ours over IPv6": v6(OURS6) / UDP(sport=2100, dport=9),
           "an echo of ours": v4(OURS) / ICMP(type=8, id=2101), "tagged": Dot1Q(vlan=7) / v4(OURS) / UDP(sport=2102, dport=9)}


@pytest.fixture(scope="module")
def job(new_lab):
    lab = new_lab(TOPOLOGY)
    plane.start(lab, lab.plan_text())
    return lab


def forge(lab, packets) -> None:
    frame = lambda packet: bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet).hex()  # noqa: E731
    lab.run(HOST, [PYTHON, "-c", SEND], input="\n".join(map(frame, packets)))


def wire_of(lab):
    """What leaves the host with, or about, a shared address."""
    return lab.capture("lhr-r", "s1", "ether src 02:00:00:00:00:01")


@pytest.mark.parametrize("name", kinds())
def test_a_forged_packet_is_dropped_and_counted(job, name):
    packet, counter = kinds()[name]
    before = plane.counters(job, HOST)
    with wire_of(job) as wire:
        forge(job, [packet] * EACH)
    after = plane.counters(job, HOST)
    moved = {key: after[key] - before[key] for key in after if key[1].startswith("guard") and after[key] != before[key]}
    assert moved == {("egress", f"guard_{counter}"): EACH} and wire.count() == 0


def test_what_is_of_this_hosts_slices_leaves(job):
    before = plane.counters(job, HOST)
    with wire_of(job) as wire:
        forge(job, list(ALLOWED.values()) * EACH)
    assert wire.count() == len(ALLOWED) * EACH
    after = plane.counters(job, HOST)
    assert {key: after[key] for key in after if "guard" in key[1]} == {key: before[key] for key in before if "guard" in key[1]}


def test_a_program_in_a_namespace_of_its_own_is_left_alone(job):
    """As in a container, though its group is of a class: its own address on the link, raw sockets, loose datagrams."""
    box = f"{job.name}-box"
    host = job.netns(HOST)
    script = f"""set -e
        ip netns add {box}
        ip -n {host} link add veth-box type veth peer name eth0 netns {box}
        ip -n {host} addr add 10.99.0.1/24 dev veth-box; ip -n {host} link set veth-box up
        ip -n {box} addr add 10.99.0.2/24 dev eth0; ip -n {box} link set eth0 up
        ip -n {box} route add default via 10.99.0.1"""
    subprocess.run(["sh", "-c", script], check=True)
    argv = [PYTHON, "-m", "http.server", "80", "--bind", "10.99.0.1"]
    job.popen(HOST, argv, **programs.QUIET)
    programs.await_listener(job, HOST, 80)
    before = plane.counters(job, HOST)
    with job.capture(HOST, "veth-box", "src net 198.51.100.0/24") as wire:
        done = plane.run(job, HOST, GB, ["nsenter", f"--net=/run/netns/{box}", PYTHON, "-c", CONTAINER, "10.99.0.1"])
    assert json.loads(done.stdout)[0] == "10.99.0.2" and wire.count() == 0
    after = plane.counters(job, HOST)
    assert {key for key in after if key[0] == "egress" and after[key] != before[key]} == set()
    on_host = plane.run(job, HOST, GB, [PYTHON, "-c", CONTAINER, "10.99.0.1"], check=False)
    assert f"[Errno {errno.EACCES}]" in on_host.stderr, "on the host's network the same program is steered"
