# SPDX-License-Identifier: MIT
"""Encapsulated packets that no host of ours sent, and tables that contradict each other: nothing loops or gets in."""
import random
import struct
import subprocess
from collections import Counter
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest
from scapy.all import IP, UDP, Ether, IPv6, Raw

import backbone
import plan
import plane
import wire
from backbone import GB, PYTHON, WEB, WIDE

COPIES = 3
LISTEN = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.connect((sys.argv[1], 9999))
    print(*one.getsockname(), flush=True)
    sys.stdin.read()
    one.setblocking(False)
    try:
        while True:
            print(one.recv(2000).decode(), flush=True)
    except BlockingIOError:
        pass
"""


# -- forged encapsulation --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(backbone.TOPOLOGY)
    backbone.set_backbone(lab, WIDE)
    plane.start(lab, lab.plan_text(host={"mtu": WIDE}))
    return lab


class Mark:
    """lhr2, its socket that is connected to web1, and packets for it as lhr3 would send them, but for what is said."""

    def __init__(self, lab):
        self.lab = lab
        self.listener = plane.popen(lab, "lhr2", GB, [PYTHON, "-c", LISTEN, WEB["web1"]], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE)
        address, port = self.listener.stdout.readline().split()
        self.address, self.port = address, int(port)
        self.lhr2, self.lhr3 = lab.topology.address("lhr2"), lab.topology.address("lhr3")

    def inner(self, text: str, **changes) -> IP:
        ports = {"sport": 9999, "dport": self.port, **{key: changes.pop(key) for key in ("sport", "dport") & changes.keys()}}
        return IP(**{"src": WEB["web1"], "dst": self.address, **changes}) / UDP(**ports) / Raw(text.encode())

    def outer(self, inner, src: str = "", port: int = 6080, missing: int = 0) -> Ether:
        """`missing`: how many bytes fewer than there are the outer headers admit."""
        whole = len(bytes(inner)) + 28 - missing
        return (Ether(src=backbone.mac(self.lab, "lhr-r", "s2"), dst=backbone.mac(self.lab, "lhr2", "eth0"))
                / IP(src=src or self.lhr3, dst=self.lhr2, flags="DF", id=0, len=whole)
                / UDP(sport=50000, dport=port, len=whole - 20, chksum=0) / bytes(inner))


@pytest.fixture(scope="module")
def mark(lab):
    return Mark(lab)


def lengthened(packet: IP, by: int) -> bytes:
    """The packet, its header's total length changed and nothing else."""
    data = bytearray(bytes(packet))
    struct.pack_into("!H", data, 2, len(data) + by)
    return bytes(data)


FORGED = {   # what is wrong: (the frame, the reason); each carries its own name as payload
    "the host is not in the plan": (lambda m, text: m.outer(m.inner(text), src="10.1.9.9"), "drop_stranger"),
    "the outer source is of the Internet": (lambda m, text: m.outer(m.inner(text), src=WEB["web1"]), "drop_stranger"),
    "the outer source is shared": (lambda m, text: m.outer(m.inner(text), src="198.51.100.1"), "drop_stranger"),
    "the inner source is shared": (lambda m, text: m.outer(m.inner(text, src="198.51.100.64")), "drop_inner"),
    "the inner source is shared, a step left": (
        lambda m, text: m.outer(m.inner(text, src="198.51.100.64"), port=6079), "drop_inner"),
    "the inner source is our own address": (lambda m, text: m.outer(m.inner(text, src=m.address), port=6079), "drop_inner"),
    "the inner destination is the host": (lambda m, text: m.outer(m.inner(text, dst=m.lhr2)), "drop_inner"),
    "the inner destination is another host": (lambda m, text: m.outer(m.inner(text, dst=m.lhr3)), "drop_inner"),
    "the inner destination is of the Internet": (lambda m, text: m.outer(m.inner(text, dst=WEB["web2"])), "drop_inner"),
    "encapsulated twice": (lambda m, text: m.outer(m.outer(m.inner(text))[IP]), "drop_inner"),
    "encapsulated twice, with steps": (lambda m, text: m.outer(m.outer(m.inner(text), port=6078)[IP], port=6078), "drop_inner"),
    "the inner length is too small": (lambda m, text: m.outer(lengthened(m.inner(text), -4)), "drop_inner"),
    "the inner length is too large": (lambda m, text: m.outer(lengthened(m.inner(text), 4)), "drop_inner"),
    "the outer length is too small": (lambda m, text: m.outer(m.inner(text), missing=4), "drop_inner"),
    "the inner header is short": (lambda m, text: m.outer(m.inner(text, ihl=4)), "drop_inner"),
    "the inner version is 7": (lambda m, text: m.outer(m.inner(text, version=7)), "drop_inner"),
    "the inner packet is IPv6 to nobody": (
        lambda m, text: m.outer(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP() / Raw(text.encode())), "drop_inner"),
    "the port is of another host": (lambda m, text: m.outer(m.inner(text, dport=2050)), "drop_no_steps"),
    "the peer is another": (lambda m, text: m.outer(m.inner(text, src=WEB["web2"])), "drop_no_steps"),
    "the address is at another site": (lambda m, text: m.outer(m.inner(text, dst="198.51.100.64")), "drop_other_site"),
}


def moved(lab, reason: str, before: Counter) -> dict:
    after = backbone.dispatched(lab, ["lhr2"])
    return {name: n for name, n in (after - before).items() if name not in ("not_ours", "deliver") or name == reason}


def left(capture) -> list:
    """What the host sent that could be an answer, a delivery elsewhere or a packet handed on."""
    return [packet for packet in wire.read(capture.stop()) if packet.outer or packet.protocol == wire.ICMP
            or packet.source.startswith("198.51.100.") or packet.destination.startswith("198.51.100.")]


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_encapsulated_packet_is_dropped_by_its_reason_and_draws_nothing(lab, mark, what):
    make, reason = FORGED[what]
    before = backbone.dispatched(lab, ["lhr2"])
    with lab.capture("lhr-r", "s2", f"ether src {backbone.mac(lab, 'lhr2', 'eth0')} and ip", snaplen=200) as capture:
        backbone.send(lab, "lhr-r", "s2", [make(mark, what)] * COPIES)
        assert lab.wait(lambda: moved(lab, reason, before), 5, "counted") == {reason: COPIES}
    assert left(capture) == []


def test_of_all_those_packets_only_the_genuine_ones_were_delivered(lab, mark):
    """Last of the forged: reads what the socket got all the while."""
    before = backbone.dispatched(lab, ["lhr2"])
    backbone.send(lab, "lhr-r", "s2", [mark.outer(mark.inner("genuine"), port=port) for port in (6080, 6079)])
    lab.wait(lambda: backbone.dispatched(lab, ["lhr2"])["deliver"] == before["deliver"] + 2, 5, "delivered")
    assert mark.listener.communicate("", timeout=10)[0].split("\n")[-3:] == ["genuine", "genuine", ""]


# -- contradicting tables --------------------------------------------------------------------------------------------

PACKETS = 60
STEPS = {"whole": 2, "fragments": 3}
HOSTS_DISAGREE, SITES_DISAGREE = "198.51.100.1", "198.51.100.129"


def swap_sites(pools: dict, name: str) -> dict:
    one, other = pools[name]["addresses"]
    return {**pools, name: {**pools[name], "addresses": [{**one, "site": other["site"]}, {**other, "site": one["site"]}]}}


def store_of(lab, name: str) -> str:
    return f"sqlite:{lab.state}/store/{name}.db"


def put(lab, name: str, text: str) -> None:
    path = plane.write(lab, text, f"{name}.yaml", deal=False)
    done = subprocess.run([plane.place.binary("src/cli/portslice"), "--store", store_of(lab, name), "plan", "apply", path],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def torn(new_lab):
    """Three plans: lhr1 thinks that slice 1 is lhr2's, all others that it is lhr1's; LHR thinks that the second pool's
    addresses are at CDG, and CDG that they are at LHR."""
    lab = new_lab(backbone.TOPOLOGY)
    backbone.set_backbone(lab, WIDE)
    pools = plan.default_pools(lab.topology)
    text = {name: plane.write(lab, lab.plan_text(chosen, host={"mtu": WIDE}), f"{name}.yaml").read_text()
            for name, chosen in (("cdg", pools), ("lhr", swap_sites(pools, "ie")))}
    text["lhr1"] = text["lhr"].replace(f"{HOSTS_DISAGREE}: {{ lhr1: 1, lhr2: 2", f"{HOSTS_DISAGREE}: {{ lhr1: 2, lhr2: 1")
    assert text["lhr1"] != text["lhr"]
    for name, hosts in (("lhr1", ["lhr1"]), ("lhr", ["lhr2", "lhr3"]), ("cdg", ["cdg1", "cdg2"])):
        lab.start_agents(hosts=hosts, extra=["--store", store_of(lab, name)])
        put(lab, name, text[name])
    return lab


def packets_for(address: str, kind: str, source: str) -> list:
    """PACKETS packets of conversations of their own, told apart by their identification."""
    chance, made = random.Random(3), []
    for number in range(PACKETS):
        whole = IP(src=source, dst=address, id=number + 1) / UDP(sport=chance.randrange(1024, 65536), dport=2500) / Raw(
            b"x" * 100)
        made += [whole] if kind == "whole" else pieces(whole)
    return made


def pieces(whole: IP) -> list:
    data = bytes(whole)[20:]
    return [IP(src=whole.src, dst=whole.dst, id=whole.id, proto=17, flags="MF") / Raw(data[:64]),
            IP(src=whole.src, dst=whole.dst, id=whole.id, proto=17, frag=8) / Raw(data[64:])]


def copies(captures: list) -> Counter:
    """(identification, offset) of an inner packet -> how often a host put it on a wire, encapsulated."""
    seen = Counter()
    for capture in captures:
        for _, frame in wire.timed(capture.stop()):
            seen[struct.unpack_from("!HH", frame, 14 + 28 + 4)] += 1
        assert capture.dropped == 0
    return seen


@pytest.mark.parametrize("source", WEB)
@pytest.mark.parametrize("address", [HOSTS_DISAGREE, SITES_DISAGREE], ids=["hosts disagree", "sites disagree"])
@pytest.mark.parametrize("kind", STEPS)
def test_a_packet_that_two_tables_send_to_each_other_ends_after_its_steps(torn, kind, address, source):
    before, sent = backbone.dispatched(torn), packets_for(address, kind, WEB[source])
    with ExitStack() as stack:
        captures = [stack.enter_context(torn.capture(node, dev, f"{own} and udp dst portrange 6078-6080 and "
                                                     f"ip[28+12:4] = {int(IPv4Address(WEB[source]))}", snaplen=80))
                    for host in torn.topology.hosts for node, dev, own in backbone.sent_by(torn, host)]
        backbone.send_routed(torn, source, sent)
        ended = torn.wait(lambda: (lambda gone: sum(gone.values()) >= len(sent) and gone)(
            backbone.gone(before, backbone.dispatched(torn))), 5, "every packet to be dropped")
    seen = copies(captures)
    assert sum(ended.values()) == len(sent), ended
    handed_on = backbone.dispatched(torn) - before
    assert sum(seen.values()) == handed_on["to_host"] + handed_on["to_site"] + handed_on["to_gatherer"]
    assert max(seen.values()) <= STEPS[kind]
    if address == SITES_DISAGREE:
        assert ended == {"drop_other_site": len(sent)} and set(seen.values()) == {1}
    else:
        assert set(ended) <= {"drop_no_steps", "drop_stray"} and max(seen.values()) == STEPS[kind] - (source == "web1")
