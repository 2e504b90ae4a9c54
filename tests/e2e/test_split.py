# SPDX-License-Identifier: MIT
"""Large answers without DF over an underlay as narrow as the Internet: none is lost, and pieces are what the wire shows.

Every link of the lab takes 1,500 bytes, so a full-sized packet for another host does not fit once encapsulated. Each
host asks two servers, one behind each site's provider, so that answers come in by both sites' routers.
"""
import struct
import sys
from collections import Counter
from ipaddress import IPv4Address
from typing import NamedTuple

import pytest

import plane
import programs
import wire
from services import UNBOUND_HEAD

GB = "country=GB"
SERVERS = {"dns1": "203.0.113.6", "client1": "203.0.113.134"}   # behind LHR's provider and behind CDG's
EACH = 12          # questions of every host to each server, of each kind
NAME_PORT, ECHO_PORT = 5353, 5454
LINES, LINE = 14, 250
FULL = 1472        # bytes of UDP payload in an IPv4 packet of 1,500
FIRST, REST = 1468, 52   # bytes of inner packet in both pieces of one of 1,500

UNBOUND = UNBOUND_HEAD + """  interface: {ip}@{port}
  do-daemonize: no
  edns-buffer-size: 4096
  max-udp-size: 4096
  local-zone: "large.lab." redirect
{data}remote-control:
  control-enable: no
"""
# Answers each datagram with one that fills a packet; DF is not set.
ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 10, 0)   # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
s.bind((sys.argv[1], int(sys.argv[2])))
while True:
    data, peer = s.recvfrom(2048)
    s.sendto((data * 2048)[:int(sys.argv[3])], peer)
"""
ASK = """
import socket, sys
good = 0
for i in range(int(sys.argv[4])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.connect((sys.argv[1], int(sys.argv[2])))
        s.send(b"%05d" % i)
        try:
            good += s.recv(4096) == (b"%05d" % i * 2048)[:int(sys.argv[3])]
        except TimeoutError:
            pass
print(good)
"""


class Header(NamedTuple):
    """Of IPv4 without options; `part`: flags and offset."""
    length: int
    id: int
    part: int
    protocol: int
    source: str
    destination: str
    dport: int


def header(data: bytes, at: int) -> Header:
    length, number, part, _, protocol = struct.unpack_from("!HHHBB", data, at + 2)
    return Header(length, number, part, protocol, str(IPv4Address(data[at + 12:at + 16])),
                  str(IPv4Address(data[at + 16:at + 20])), struct.unpack_from("!H", data, at + 22)[0])


def headers(frame: bytes) -> tuple:
    """The outer and the inner one; what is no encapsulation has nonsense for the latter."""
    padded = frame.ljust(14 + 28 + 24)
    return header(padded, 14), header(padded, 14 + 28)


def serve(lab) -> None:
    data = "".join(f"  local-data: 'large.lab. 60 IN TXT \"{i:02}{'x' * (LINE - 2)}\"'\n" for i in range(LINES))
    for node, address in SERVERS.items():
        path = lab.state / node / "unbound-large.conf"
        path.write_text(UNBOUND.format(dir=path.parent, files="unbound-large", ip=address, port=NAME_PORT, data=data))
        lab.popen(node, ["unbound", "-c", path], **programs.QUIET)
        lab.popen(node, [sys.executable, "-c", ECHO, address, ECHO_PORT, FULL], **programs.QUIET)
        for port in (NAME_PORT, ECHO_PORT):
            programs.await_listener(lab, node, port)


def ask_names(lab, host: str, address: str) -> list:
    """How many lines each answer had, else what dig said; a truncated one is not asked again over TCP.

    Asked twice, since now and then a question does not leave its host; a lost answer would show among the drops."""
    batch = lab.state / host / f"large-{address}"
    batch.write_text("".join(f"n{i}.large.lab TXT\n" for i in range(EACH)))
    done = plane.run(lab, host, GB, ["dig", f"@{address}", "-p", NAME_PORT, "+bufsize=4096", "+ignore", "+tries=2",
                                     "+time=5", "+noall", "+answer", "-f", batch], check=False, timeout=120)
    lines = [sum(line.startswith(f"n{i}.large.lab.") for line in done.stdout.splitlines()) for i in range(EACH)]
    return lines if lines == [LINES] * EACH else [*lines, done.stdout[:2000], done.stderr]


class Run:
    """All questions of all hosts, the wire of every host beside them."""

    def __init__(self, lab):
        self.lab, self.hosts = lab, list(lab.topology.hosts)
        self.plane = plane.start(lab, lab.plan_text())
        serve(lab)
        ends = {host: lab.topology.uplink(host)[1] for host in self.hosts}
        self.captures = {host: lab.capture(end.node, end.dev, "ip", snaplen=96) for host, end in ends.items()}
        before = {host: plane.counters(lab, host) for host in self.hosts}
        asked = [(host, address) for host in self.hosts for address in SERVERS.values()]
        self.names = {pair: ask_names(lab, *pair) for pair in asked}
        self.full = {(host, address): int(plane.run(lab, host, GB, [sys.executable, "-c", ASK, address, ECHO_PORT, FULL,
                                                                  EACH], timeout=120).stdout)
                     for host, address in asked}
        after = {host: plane.counters(lab, host) for host in self.hosts}
        self.moved = {host: {reason: after[host]["dispatch", reason] - before[host]["dispatch", reason]
                             for part, reason in after[host] if part == "dispatch"} for host in self.hosts}
        for capture in self.captures.values():
            capture.stop()

    def made(self, host: str) -> list:
        """Fragments that this host was the first to send encapsulated, in order: (source, destination, identification,
        flags and offset, length). Those that came so before it only passed on."""
        found, came = [], Counter()
        for outer, inner in map(headers, wire.frames(self.captures[host].path)):
            if outer.protocol != wire.UDP or outer.dport not in wire.GUE_PORTS or not inner.part & 0x3fff:
                continue
            piece = (inner.source, inner.destination, inner.id, inner.part, inner.length)
            if outer.source != self.plane.underlays[host]:
                came[piece] += 1
            elif came[piece]:
                came[piece] -= 1
            else:
                found.append(piece)
        return found


@pytest.fixture(scope="module")
def large(new_lab):
    return Run(new_lab())


def test_every_large_dns_answer_comes_whole(large):
    assert large.names == {pair: [LINES] * EACH for pair in large.names}


def test_every_packet_of_1500_bytes_without_df_arrives(large):
    assert large.full == {pair: EACH for pair in large.full}


def test_the_wire_shows_two_pieces_for_each_packet_split(large):
    for host in large.hosts:
        made = large.made(host)
        firsts = [at for at, piece in enumerate(made) if piece[-1] == FIRST]
        assert len(firsts) == large.moved[host]["split"]
        for at in firsts:
            assert made[at][3] & 0x2000
            assert made[at + 1][:3] == made[at][:3] and made[at + 1][-1] == REST
            assert made[at + 1][3] & 0x1fff == (made[at][3] & 0x1fff) + (FIRST - 20) // 8
        assert large.captures[host].count("greater 1515") == 0


def test_both_sites_split_and_nothing_is_lost_on_the_way(large):
    for site in set(large.plane.host_sites.values()):
        assert sum(large.moved[host]["split"] for host in large.hosts if large.plane.host_sites[host] == site) > 0
    for host in large.hosts:
        assert {reason: n for reason, n in large.moved[host].items() if n and reason.startswith("drop")} == {}


def test_the_agent_puts_the_splitter_back(large):
    lab, host = large.lab, "lhr1"
    shown = lambda: "ps_split" in lab.run(host, ["tc", "filter", "show", "dev", "eth0", "ingress"]).stdout  # noqa: E731
    assert shown()
    lab.run(host, ["tc", "filter", "del", "dev", "eth0", "ingress"])
    lab.wait(shown, 20, "the splitter to be put back")
    assert any("dispatchers" in event["text"] for event in plane.events(lab, host, "restored"))


def test_detaching_takes_the_splitter_and_the_qdisc_along(large):
    lab, host = large.lab, "cdg3"
    lab.stop_agents([host])
    lab.portslice(host, "detach")
    assert lab.run(host, ["tc", "qdisc", "show", "dev", "eth0", "clsact"]).stdout == ""
