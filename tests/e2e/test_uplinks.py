# SPDX-License-Identifier: MIT
"""A host with two uplinks: packets by either are dispatched, answers to what was handed on leave by the default route."""
import re
import subprocess
from contextlib import ExitStack

import pytest
from scapy.all import ICMP, IP, TCP, UDP, Ether, Raw

import backbone
import hostside
import plane
import wire
from backbone import GB, PYTHON, WEB, WIDE

ADDRESS, NOBODYS, LHR2S = "198.51.100.1", 40001, 4100   # slice 2 of the address is lhr2's
SERVICE = 2100   # in lhr1's slice 1
SERVICES = f"services:\n  - {{ name: www, address: {ADDRESS}, port: {SERVICE}, protocol: tcp, host: lhr1 }}\n"
PACKETS = 200


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(backbone.TOPOLOGY)
    backbone.set_backbone(lab, WIDE)
    plane.start(lab, lab.plan_text(host={"mtu": WIDE}) + SERVICES)
    return lab


@pytest.fixture(scope="module")
def ends(lab):
    """device of lhr1 -> (router's device, router's MAC, own MAC)."""
    return {own.dev: (other.dev, backbone.mac(lab, other.node, other.dev), backbone.mac(lab, "lhr1", own.dev))
            for own, other in lab.topology.neighbours("lhr1")}


def caught(stack, lab, ends, expression: str) -> dict:
    """Captures of both links at the router's side, by lhr1's device."""
    return {dev: stack.enter_context(lab.capture("lhr-r", far, expression, snaplen=120)) for dev, (far, *_) in ends.items()}


def test_packets_that_come_by_either_uplink_are_dispatched(lab, ends):
    """For another host's port: each that arrives leaves encapsulated, and both ways bring some."""
    before, at_all = backbone.dispatched(lab, ["lhr1"]), backbone.dispatched(lab)
    with ExitStack() as stack:
        came = caught(stack, lab, ends, f"udp and src host {WEB['web1']} and dst host {ADDRESS}")
        went = caught(stack, lab, ends, "udp dst port 6080 and src host 10.1.254.1")
        backbone.send_routed(lab, "web1", [IP(src=WEB["web1"], dst=ADDRESS) / UDP(sport=2000 + n, dport=LHR2S) / Raw(b"x" * 20)
                                           for n in range(PACKETS)])
        lab.wait(lambda: sum(backbone.gone(at_all, backbone.dispatched(lab)).values()) >= PACKETS, 5, "all to end at lhr2")
    came, went = ({dev: capture.count() for dev, capture in each.items()} for each in (came, went))
    moved = backbone.dispatched(lab, ["lhr1"]) - before
    assert all(n > PACKETS / 20 for n in came.values()), came
    assert moved["to_host"] == sum(came.values()) == sum(went.values())


def encapsulated(lab, ends, dev: str, inner) -> Ether:
    _, router, own = ends[dev]
    return (Ether(src=router, dst=own) / IP(src=lab.topology.address("lhr2"), dst=lab.topology.address("lhr1"), flags="DF")
            / UDP(sport=50000, dport=6079, chksum=0) / inner)


ANSWERED = {   # what comes encapsulated: (packet, filter that catches the answer)
    "a SYN to nobody's port": (TCP(sport=7000, dport=NOBODYS, flags="S"), "tcp[tcpflags] & tcp-rst != 0"),
    "a datagram to nobody's port": (UDP(sport=7000, dport=NOBODYS) / Raw(b"x"), "icmp[icmptype] == icmp-unreach"),
    "a ping": (ICMP(id=5, seq=1) / Raw(b"x" * 56), "icmp[icmptype] == icmp-echoreply"),
    "a SYN to a service, answered by the stack": (TCP(sport=7001, dport=SERVICE, flags="S"),
                                                  "tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)"),
}
LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as one:
    print('listening', flush=True)
    one.accept()
"""


@pytest.fixture(scope="module")
def service(lab):
    server = plane.popen(lab, "lhr1", GB, [PYTHON, "-c", LISTEN, ADDRESS, SERVICE], stdout=subprocess.PIPE)
    assert server.stdout.readline() == "listening\n"
    yield
    server.kill()


@pytest.mark.parametrize("default", ["eth0", "eth1"])
@pytest.mark.parametrize("came_by", ["eth0", "eth1"])
@pytest.mark.parametrize("what", ANSWERED)
def test_the_answer_to_what_was_handed_on_leaves_by_the_default_route(lab, ends, service, what, came_by, default):
    packet, answer = ANSWERED[what]
    via = {own.dev: other.ip for own, other in lab.topology.neighbours("lhr1")}
    for prefix in ("default", "203.0.113.0/30"):   # BGP has told lhr1 of web1's network
        lab.run("lhr1", ["ip", "route", "replace", prefix, "via", via[default], "dev", default, "metric", "1"])
    own = {dev: f"ether dst {router} and ether src {mac}" for dev, (_, router, mac) in ends.items()}
    source = WEB["web1"]
    with ExitStack() as stack:
        wires = {dev: stack.enter_context(lab.capture("lhr-r", ends[dev][0], f"{own[dev]} and src host {ADDRESS} and {answer}"))
                 for dev in ends}
        def answered() -> bool:
            """The route is known a moment later; until then what is asked is answered by the other."""
            backbone.send(lab, "lhr-r", ends[came_by][0],
                          [encapsulated(lab, ends, came_by, IP(src=source, dst=ADDRESS) / packet)])
            return any(wire.read(wires[default].path))
        lab.wait(answered, 5, f"an answer by {default}")
        settled = len(wire.read(wires[_other(default)].path))
        for _ in range(3):
            backbone.send(lab, "lhr-r", ends[came_by][0],
                          [encapsulated(lab, ends, came_by, IP(src=source, dst=ADDRESS) / packet)])
        lab.wait(lambda: len(wire.read(wires[default].path)) >= 4, 5, f"answers by {default}")
    assert wires[_other(default)].count() == settled


def _other(dev: str) -> str:
    return {"eth0": "eth1", "eth1": "eth0"}[dev]


def test_an_xdp_program_of_others_on_the_second_uplink_is_named_and_the_first_is_left_alone(lab):
    """Last: takes lhr1's agent off and puts it on again."""
    hostside.kill_agent(lab, "lhr1")
    hostside.cli(lab, "lhr1", "detach")
    pin = f"/sys/fs/bpf/{lab.name}_theirs"
    lab.run("lhr1", ["sh", "-c", f"bpftool prog load {lab.state}/pass.bpf.o {pin}; ip link set eth1 xdp pinned {pin}; rm {pin}"])
    theirs = hostside.snapshot(lab, "lhr1")["xdp"]
    assert "eth1" in theirs and "eth0" not in theirs
    lab.start_agents(hosts=["lhr1"])
    said = lab.wait(lambda: backbone.status(lab, "lhr1")["refusal"], 5, "refused")
    assert re.search(r"XDP program 'lab_pass' \(id \d+\) is already attached to eth1: detach it first", said), said
    assert hostside.snapshot(lab, "lhr1")["xdp"] == theirs
    lab.run("lhr1", ["ip", "link", "set", "eth1", "xdp", "off"])
    lab.wait(lambda: backbone.status(lab, "lhr1")["state"] == "attached", 8, "attached by itself")
    assert all(uplink["xdp"] == "native" for uplink in backbone.status(lab, "lhr1")["uplinks"])
