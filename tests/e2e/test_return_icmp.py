# SPDX-License-Identifier: MIT
"""Conversations with Linux's own stack as the end host: what it makes of the dispatcher's answers, and of errors and
fragments that reach it by other hosts and sites."""
import errno
import json
import subprocess

import pytest
from scapy.all import ICMP, IP, TCP, UDP, IPOption_NOP, Raw

import backbone
import plan
import plane
import wire
from backbone import GB, NARROW, OVERHEAD, PYTHON, WEB

ROUTER = "192.0.2.77"   # sends errors: any address will do
OURS = {"LHR": "198.51.100.1", "CDG": "198.51.100.64"}
SILENT = {"LHR": "198.51.100.128", "CDG": "198.51.100.192"}   # a pool with echo: drop
NOBODYS = 40001
SERVICE = ("198.51.100.1", 4100)   # in lhr2's slice
SERVICES = "services:\n" + "".join(
    f"  - {{ name: s{protocol}, address: {SERVICE[0]}, port: {SERVICE[1]}, protocol: {protocol}, host: lhr2 }}\n"
    for protocol in ("tcp", "udp"))


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(backbone.TOPOLOGY)
    pools = plan.default_pools(lab.topology)
    pools["ie"]["echo"] = "drop"
    plane.start(lab, lab.plan_text(pools, host={"mtu": NARROW}) + SERVICES)
    refused = [PYTHON, "-c", ALL_REFUSED, NOBODYS, *OURS.values()]
    lab.wait(lambda: lab.run("client1", refused).stdout == "all\n", 10, "fresh tables on every host")
    return lab


# -- what an end host on the Internet makes of our answers ----------------------------------------------------------

ALL_REFUSED = """
import socket, sys
held = [socket.socket() for _ in range(40)]
for number, one in enumerate(held):
    one.settimeout(0.5)
    if one.connect_ex((sys.argv[2 + number % 2], int(sys.argv[1]) + number)) != 111:   # ECONNREFUSED
        break
else:
    print('all')
"""
ASK = """
import errno, socket, sys
kind = socket.SOCK_STREAM if sys.argv[1] == 'tcp' else socket.SOCK_DGRAM
with socket.socket(socket.AF_INET, kind) as one:
    one.settimeout(3)
    try:
        one.connect((sys.argv[2], int(sys.argv[3])))
        one.send(b'hello')
        one.recv(10)
        print('answered')
    except OSError as error:
        print(errno.errorcode.get(error.errno, type(error).__name__))
"""
PING = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as one:
    one.settimeout(float(sys.argv[2]))
    one.connect((sys.argv[1], 0))
    sent = bytes([8, 0, 0, 0, 0, 0, 0, 1]) + bytes(range(256)) * 4
    one.send(sent)
    try:
        got = one.recv(4096)
        print('answered' if got[0] == 0 and got[8:] == sent[8:] else 'garbled')
    except OSError as error:
        print(type(error).__name__)
"""
FORBID_FRAGMENTS = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.setsockopt(socket.IPPROTO_IP, 10, 2)   # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    one.settimeout(3)
    one.connect((sys.argv[1], int(sys.argv[2])))
    one.send(b'x' * 1472)
    try:
        one.recv(10)
    except OSError as error:
        print(error.errno, one.getsockopt(socket.IPPROTO_IP, 14))   # IP_MTU
    one.send(b'y' * (one.getsockopt(socket.IPPROTO_IP, 14) - 28))
    print(one.recv(10).decode())
"""
ANSWER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.bind((sys.argv[1], int(sys.argv[2])))
    print('bound', flush=True)
    while True:
        data, peer = one.recvfrom(4096)
        print(len(data), flush=True)
        one.sendto(b'got it', peer)
"""


def ask(lab, protocol: str, address: str, port: int) -> str:
    return lab.run("client1", [PYTHON, "-c", ASK, protocol, address, port]).stdout.strip()


@pytest.mark.parametrize("site", OURS)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_linux_is_refused_at_once_at_a_port_of_nobody(lab, protocol, site):
    assert ask(lab, protocol, OURS[site], NOBODYS) == "ECONNREFUSED"


@pytest.mark.parametrize("site", OURS)
def test_linux_gets_its_ping_back(lab, site):
    lab.run("client1", ["sysctl", "-qw", "net.ipv4.ping_group_range=0 0"])
    assert lab.run("client1", [PYTHON, "-c", PING, OURS[site], "3"]).stdout == "answered\n"
    before = backbone.dispatched(lab)
    assert lab.run("client1", [PYTHON, "-c", PING, SILENT[site], "0.5"]).stdout in ("timeout\n", "TimeoutError\n")
    assert backbone.gone(before, backbone.dispatched(lab)) == {"drop_echo_request": 1}


def test_linux_learns_the_path_mtu_from_us_and_its_next_datagram_fits(lab):
    server = plane.popen(lab, "lhr2", GB, [PYTHON, "-c", ANSWER, *SERVICE], stdout=subprocess.PIPE)
    assert server.stdout.readline() == "bound\n"
    lab.run("client1", ["ip", "route", "flush", "cache"])
    said = lab.run("client1", [PYTHON, "-c", FORBID_FRAGMENTS, *SERVICE]).stdout.splitlines()
    server.kill()
    assert said == [f"{errno.EMSGSIZE} {NARROW - OVERHEAD}", "got it"]
    assert server.stdout.read().split() == [str(NARROW - OVERHEAD - 28)]
    assert backbone.path_mtu(lab, "client1", SERVICE[0]) == NARROW - OVERHEAD


# -- traceroute ------------------------------------------------------------------------------------------------------

TRACE = """
import select, socket, struct, sys
for ttl in range(1, 9):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setsockopt(socket.IPPROTO_IP, 11, 1)   # IP_RECVERR
        one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        one.connect((sys.argv[1], int(sys.argv[2])))
        one.send(b'trace')
        wait = select.poll()
        wait.register(one, 0)   # POLLERR
        if not wait.poll(3000):
            print('*', flush=True)
            continue
        control = one.recvmsg(100, 500, socket.MSG_ERRQUEUE)[1]
        error = next(data for level, kind, data in control if (level, kind) == (0, 11))
        print(socket.inet_ntoa(error[20:24]), error[5], error[6])
        if error[5] == 3:
            break
"""


def trace(found: subprocess.CompletedProcess) -> list:
    return [tuple(line.split()) for line in found.stdout.splitlines()]


def test_a_traceroute_to_us_shows_the_routers_up_to_the_site_it_enters_and_then_the_shared_address(lab):
    """Nothing between the sites or hosts shows: outer headers have a TTL of their own, the inner one stays."""
    for address in OURS.values():
        hops = trace(lab.run("client1", [PYTHON, "-c", TRACE, address, NOBODYS]))
        assert [hop[1:] for hop in hops] == [("11", "0")] * 2 + [("3", "3")]
        assert hops[0][0] == "203.0.113.133" and hops[1][0] == "100.64.2.1" and hops[2][0] == address


def test_our_programs_trace_the_way_out_by_errors_that_come_to_the_shared_address(lab):
    hops = trace(plane.run(lab, "lhr1", GB, [PYTHON, "-c", TRACE, WEB["web2"], "33434"]))
    assert [hop[1:] for hop in hops] == [("11", "0")] * 3 + [("3", "3")]
    assert hops[1][0] == "100.64.1.0" and hops[2][0] == "100.64.2.0" and hops[3][0] == WEB["web2"]


# -- errors about our own conversations, made by scapy, that reach the end host by other hosts and sites -------------

HEAR = """
import json, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.setsockopt(socket.IPPROTO_IP, 11, 1)   # IP_RECVERR: soft errors too
    one.connect((sys.argv[1], 9999))
    print(*one.getsockname(), flush=True)
    for line in sys.stdin:
        one.settimeout(float(line))
        try:
            print(json.dumps(one.recv(65535).decode()), flush=True)
        except OSError as error:
            print(json.dumps(error.errno), flush=True)
"""
NOTHING = None
UNEXPECTED = "drop_reject_never drop_no_steps"   # by the owner, or the same, handed on by another host


class Ear:
    """A connected datagram socket of lhr1, and packets about its conversation with web2."""

    def __init__(self, lab):
        self._lab = lab
        self.process = plane.popen(lab, "lhr1", GB, [PYTHON, "-c", HEAR, WEB["web2"]], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        address, port = self.process.stdout.readline().split()
        self.address, self.port = address, int(port)

    def heard(self, timeout: float):
        """Data (text), an error (number) or NOTHING."""
        self.process.stdin.write(f"{timeout}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def sent(self, **changes):
        """What lhr1 would have sent web2, but for what is said of its IP header."""
        return IP(**{"src": self.address, "dst": WEB["web2"], "flags": "DF", **changes}) / UDP(sport=self.port, dport=9999)


@pytest.fixture(scope="module")
def ear(lab):
    return Ear(lab)


def error(kind: int, code: int, quote, to: str, mtu: int = 0) -> IP:
    return IP(src=ROUTER, dst=to) / ICMP(type=kind, code=code, nexthopmtu=mtu) / Raw(bytes(quote))


KINDS = {   # RFC 1122 §3.2.2: errno as Linux translates the error (net/ipv4/icmp.c, icmp_err_convert)
    "network unreachable": (3, 0, errno.ENETUNREACH), "host unreachable": (3, 1, errno.EHOSTUNREACH),
    "protocol unreachable": (3, 2, errno.ENOPROTOOPT), "port unreachable": (3, 3, errno.ECONNREFUSED),
    "fragmentation needed": (3, 4, errno.EMSGSIZE), "administratively prohibited": (3, 13, errno.EHOSTUNREACH),
    "time exceeded": (11, 0, errno.EHOSTUNREACH),
    "parameter problem": (12, 0, errno.EPROTO)}


@pytest.mark.parametrize("source", ["client1", "web1"], ids=["by the other site", "by the own site"])
@pytest.mark.parametrize("what", KINDS)
def test_linux_hears_of_every_error_about_its_conversation(lab, ear, what, source):
    kind, code, number = KINDS[what]
    backbone.send_routed(lab, source, [error(kind, code, ear.sent(), ear.address, mtu=1300)])
    assert ear.heard(5) == number


# sentence: (the error, what becomes of it, what the socket hears)
QUOTES = {
    "with 8 bytes behind the header": (lambda ear: error(3, 3, bytes(ear.sent())[:28], ear.address), "deliver",
                                       errno.ECONNREFUSED),
    "with all of a long packet": (lambda ear: error(3, 3, ear.sent() / Raw(b"x" * 500), ear.address), "deliver",
                                  errno.ECONNREFUSED),
    "with header options": (lambda ear: error(3, 3, ear.sent(options=[IPOption_NOP()] * 4), ear.address), "deliver",
                            errno.ECONNREFUSED),
    "that is a first fragment": (lambda ear: error(3, 3, ear.sent(flags="MF"), ear.address), "deliver",
                                 errno.ECONNREFUSED),
    "that is a later fragment": (lambda ear: error(3, 3, ear.sent(flags=0, frag=10), ear.address), "drop_embedded",
                                 NOTHING),
    "cut short": (lambda ear: error(3, 3, bytes(ear.sent())[:27], ear.address), "drop_truncated", NOTHING),
    "of another source": (lambda ear: error(3, 3, ear.sent(src="198.51.100.2"), ear.address), "drop_embedded", NOTHING),
    "to another peer": (lambda ear: error(3, 3, ear.sent(dst=WEB["web1"]), ear.address), UNEXPECTED, NOTHING),
    "too big for another peer": (lambda ear: error(3, 4, ear.sent(dst=WEB["web1"]), ear.address, mtu=600),
                                 UNEXPECTED, NOTHING),
    "from a port of nobody": (
        lambda ear: error(3, 3, IP(src=ear.address, dst=WEB["web2"]) / UDP(sport=NOBODYS, dport=9999), ear.address),
        "drop_reject_never", NOTHING),
    "of another protocol": (
        lambda ear: error(3, 3, IP(src=ear.address, dst=WEB["web2"]) / TCP(sport=ear.port, dport=9999), ear.address),
        UNEXPECTED, NOTHING),
    "of an unknown protocol": (
        lambda ear: error(3, 3, IP(src=ear.address, dst=WEB["web2"], proto=47) / Raw(b"12345678"), ear.address),
        "drop_embedded", NOTHING),
}


def meets(lab, sent: list, reason: str, source: str = "client1", times: int = 1) -> None:
    """Sends, and returns when one of these reasons has been counted so often, anywhere."""
    def count() -> int:
        now = backbone.dispatched(lab)
        return sum(now[one] for one in reason.split())
    before = count()
    backbone.send_routed(lab, source, sent)
    lab.wait(lambda: count() >= before + times, 5, reason)


@pytest.mark.parametrize("quote", QUOTES)
def test_an_error_with_a_quote(lab, ear, quote):
    make, reason, hears = QUOTES[quote]
    meets(lab, [make(ear)], reason)
    assert ear.heard(5 if hears is not NOTHING else 0.05) == hears
    if reason != "deliver":
        assert backbone.path_mtu(lab, "lhr1", WEB["web1"]) is None


# -- path MTU of a connection ----------------------------------------------------------------------------------------

TALK = """
import socket, sys
with socket.create_connection((sys.argv[1], 80), 5) as one:
    print(*one.getsockname(), flush=True)
    for line in sys.stdin:
        if line.strip() == 'send':
            one.sendall(b'G' * 3000)
        print(one.getsockopt(socket.IPPROTO_IP, 14), flush=True)   # IP_MTU
"""
TOO_BIG = {   # sentence: (what differs in the quote, what becomes of the error, whether it is believed)
    "about a segment in flight": ({}, "deliver", True),
    "about another connection of ours": ({"dport": 81}, UNEXPECTED, False),
    "with a sequence number of no segment": ({"seq": 1 << 30}, "deliver", False),
}


@pytest.mark.parametrize("what", TOO_BIG)
def test_a_too_big_is_believed_only_about_a_connection_and_the_next_segment_fits(lab, what):
    changes, reason, believed = TOO_BIG[what]
    changes = dict(changes)
    lab.run("lhr1", ["ip", "route", "flush", "cache"])
    with lab.capture("web2", "eth0", "tcp") as capture:
        talk = plane.popen(lab, "lhr1", GB, [PYTHON, "-uc", TALK, WEB["web2"]], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE)
        address, port = talk.stdout.readline().split()
        syn = lab.wait(lambda: [packet for packet in wire.read(capture.path) if packet.flags == wire.SYN], 5, "SYN")[0]
        quote = IP(src=address, dst=WEB["web2"], flags="DF", len=1500) / TCP(
            sport=int(port), dport=changes.get("dport", 80), seq=(syn.seq + 1 + changes.get("seq", 0)) % (1 << 32))
        meets(lab, [error(3, 4, bytes(quote)[:28], address, mtu=1000)], reason)
        talk.stdin.write("send\n")
        talk.stdin.flush()
        said = int(talk.stdout.readline())
        lab.wait(lambda: sum(len_ for len_ in lengths(capture, int(port))) >= 3000, 5, "all segments")
        talk.kill()
    assert (said == 1000) == believed
    assert max(lengths(capture, int(port))) == (1000 - 20 - 32 if believed else NARROW - OVERHEAD - 40 - 12)


def lengths(capture, port: int) -> list:
    """Bytes of data in each segment from our port."""
    found = []
    for _, frame in wire.timed(capture.path):
        if len(frame) >= 54 and int.from_bytes(frame[34:36], "big") == port:
            found.append(int.from_bytes(frame[16:18], "big") - 20 - (frame[46] >> 4) * 4)
    return found


# -- fragments -------------------------------------------------------------------------------------------------------

def pieces(ear, number: int, text: str, cuts: list, port: int = 0) -> list:
    """A datagram from web2 in fragments that begin at these multiples of 8 bytes behind the header, 0 the first."""
    data = bytes(IP(src=WEB["web2"], dst=ear.address) / UDP(sport=9999, dport=port or ear.port) / Raw(text.encode()))[20:]
    ends = [*(8 * cut for cut in cuts[1:]), len(data)]
    return [IP(src=WEB["web2"], dst=ear.address, proto=17, id=number, frag=cut, flags="MF" if end < len(data) else 0)
            / Raw(data[8 * cut:end])
            for cut, end in zip(cuts, ends)]


LONG, OTHER = "a" * 900, "b" * 900
# sentence: (fragments, verdicts that end some of them: reason -> how many, what the socket hears, in order)
FRAGMENTS = {
    "two in order": (lambda ear: pieces(ear, 1, LONG, [0, 50]), {}, [LONG]),
    "ten in order": (lambda ear: pieces(ear, 2, LONG, [*range(0, 100, 10)]), {}, [LONG]),
    "the last twice": (lambda ear: (lambda p: [p[0], p[1], p[1], p[2]])(pieces(ear, 3, LONG, [0, 30, 60])), {}, [LONG]),
    "later ones out of order": (lambda ear: (lambda p: [p[0], p[2], p[1]])(pieces(ear, 4, LONG, [0, 30, 60])), {}, [LONG]),
    "two packets interleaved": (
        lambda ear: [one for both in zip(pieces(ear, 5, LONG, [0, 50]), pieces(ear, 6, OTHER, [0, 50])) for one in both],
        {}, [LONG, OTHER]),
    "a later one before the first": (lambda ear: pieces(ear, 7, LONG, [0, 50])[::-1], {"drop_stray": 1}, []),
    "an overlap": (lambda ear: pieces(ear, 8, LONG, [0, 50])[:1] + pieces(ear, 8, OTHER, [0, 40])[1:], {}, []),
    "a first one with half a UDP header": (
        lambda ear: [IP(src=WEB["web2"], dst=ear.address, proto=17, id=9, flags="MF") / Raw(b"1234")],
        {"drop_fragment": 1}, []),
    "an end beyond 65,535": (
        lambda ear: [*pieces(ear, 10, LONG, [0, 50])[:1],
                     IP(src=WEB["web2"], dst=ear.address, proto=17, id=10, frag=8191) / Raw(b"x" * 100)],
        {"drop_fragment": 1}, []),
    "to a port of nobody": (lambda ear: pieces(ear, 11, LONG, [0, 50], NOBODYS), {"reject_icmp": 1, "drop_stray": 1}, []),
}


@pytest.mark.parametrize("what", FRAGMENTS)
def test_a_datagram_in_fragments(lab, ear, what):
    make, ended, hears = FRAGMENTS[what]
    before, sent = backbone.dispatched(lab), make(ear)
    backbone.send_routed(lab, "client1", sent)
    def done() -> bool:
        now = backbone.dispatched(lab) - before
        return now["deliver"] + sum(now[reason] for reason in ended) >= len(sent)
    lab.wait(done, 5, "every fragment to end")
    assert backbone.gone(before, backbone.dispatched(lab)) == ended
    assert [ear.heard(5) for _ in hears] == hears and ear.heard(0.05) is NOTHING
