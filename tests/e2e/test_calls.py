# SPDX-License-Identifier: MIT
"""Every way to connect a socket: over IPv4, IPv4-mapped and native IPv6, what leaves is of this host's slices and is
what getsockname() says; what is refused leaves nothing."""
import errno
import json
import subprocess

import pytest
from conftest import REPO
from ipaddress import ip_address
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.utils import rdpcap

import place
import plane
import programs

PYTHON = "/usr/bin/python3"
TOPOLOGY = REPO / "lab" / "two-sites-v6.yaml"
GB, HOST = "country=GB", "lhr1"
CLOSED = 81                        # nobody listens there
WAYS = {"IPv4": "203.0.113.2", "mapped": "::ffff:203.0.113.2", "IPv6": "2001:db8:f:1::2"}
OPENING = "(tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn) or udp or icmp[0] = 8 or ip6"

CALLS = r"""
import ctypes, errno, json, os, select, socket as s, struct, subprocess, sys
far, ours, free, ring = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
family = s.AF_INET6 if ':' in far else s.AF_INET
zero = '::' if family == s.AF_INET6 else '0.0.0.0'
libc = ctypes.CDLL(None, use_errno=True)
NO_PORT, FASTOPEN_CONNECT = 24, 30
calls, done = {}, []

def call(function):
    calls[function.__name__] = function
    return function

def stream(kind=s.SOCK_STREAM):
    return s.socket(family, kind)

def settled(one):
    select.select([], [one], [], 5)
    assert one.getsockopt(s.SOL_SOCKET, s.SO_ERROR) == 0
    return one

@call
def blocking():
    one = stream(); one.connect((far, 80)); return one
@call
def non_blocking():
    one = stream(); one.setblocking(False); assert one.connect_ex((far, 80)) == errno.EINPROGRESS
    return settled(one)
@call
def fast_open_connect():
    one = stream(); one.setsockopt(s.IPPROTO_TCP, FASTOPEN_CONNECT, 1); one.connect((far, 80))
    one.sendall(b'GET / HTTP/1.0\r\n\r\n'); assert one.recv(15).startswith(b'HTTP/1.1 200'); return one
@call
def fast_open_sendto():
    one = stream(); one.sendto(b'GET / HTTP/1.0\r\n\r\n', s.MSG_FASTOPEN, (far, 80))
    assert one.recv(15).startswith(b'HTTP/1.1 200'); return one
@call
def bind_zero():
    one = stream()
    if family == s.AF_INET6: one.setsockopt(s.IPPROTO_IPV6, s.IPV6_V6ONLY, 'ffff' not in far)
    one.bind((zero, 0)); one.connect((far, 80)); return one
@call
def bind_address():
    one = stream(); one.bind((ours, 0)); one.connect((far, 80)); return one
@call
def bind_address_no_port():
    one = stream(); one.setsockopt(s.IPPROTO_IP, NO_PORT, 1); one.bind((ours, 0)); one.connect((far, 80)); return one
@call
def bind_port():
    one = stream(); one.bind((ours, free)); one.connect((far, 80)); return one
@call
def bind_port_no_port():
    one = stream(); one.setsockopt(s.IPPROTO_IP, NO_PORT, 1); one.bind((ours, free + 1)); one.connect((far, 80))
    return one
@call
def reuse_address():
    one = stream(); one.setsockopt(s.SOL_SOCKET, s.SO_REUSEADDR, 1); one.connect((far, 80)); return one
@call
def reuse_port():
    one = stream(); one.setsockopt(s.SOL_SOCKET, s.SO_REUSEPORT, 1); one.connect((far, 80)); return one
@call
def reuse_port_and_bind():
    one = stream(); one.setsockopt(s.SOL_SOCKET, s.SO_REUSEPORT, 1); one.bind((ours, free + 2)); one.connect((far, 80))
    return one
@call
def again_after_failure():
    one = stream(); assert one.connect_ex((far, 81)) == errno.ECONNREFUSED; one.connect((far, 80)); return one
@call
def disconnected_and_again():
    one = stream(); one.connect((far, 80))
    assert libc.connect(one.fileno(), struct.pack('=H26x', s.AF_UNSPEC), 28) == 0
    one.connect((far, 80)); return one
@call
def datagram():
    one = stream(s.SOCK_DGRAM); one.connect((far, 9)); one.send(b'x'); return one
@call
def datagram_bound():
    one = stream(s.SOCK_DGRAM); one.bind((ours, 0)); one.connect((far, 9)); one.send(b'x'); return one
@call
def datagram_disconnected_and_again():
    one = stream(s.SOCK_DGRAM); one.connect((far, 10))
    assert libc.connect(one.fileno(), struct.pack('=H26x', s.AF_UNSPEC), 28) == 0
    one.connect((far, 9)); one.send(b'x'); return one
@call
def ping():
    if 'ffff' in far: return None
    echo = (8, s.IPPROTO_ICMP) if family == s.AF_INET else (128, s.IPPROTO_ICMPV6)
    one = s.socket(family, s.SOCK_DGRAM, echo[1]); one.settimeout(5); one.connect((far, 0))
    one.send(bytes([echo[0]]) + bytes(7)); one.recv(100); return one

def ring_connect(kind):
    said = subprocess.run([ring, kind, far, '80'], capture_output=True, text=True).stdout.split()
    done.append({'call': 'io_uring ' + kind, 'end': [said[0], int(said[1])]})

for name, function in calls.items():
    one = function()
    if one: done.append({'call': name, 'end': list(one.getsockname()[:2])}); one.close()
ring_connect('tcp')
ring_connect('udp')
print(json.dumps(done))
"""
REFUSED = r"""
import json, socket as s, sys
far, ours, nobodys = sys.argv[1], sys.argv[2], int(sys.argv[3])
six = ':' in far
family, echo = (s.AF_INET6, s.IPPROTO_ICMPV6) if six else (s.AF_INET, s.IPPROTO_ICMP)
def why(function):
    try: function(); return 0
    except OSError as error: return error.errno
def bound(address, port):
    one = s.socket(family); one.bind((address, port)); one.connect((far, 80))
print(json.dumps({
    'raw': why(lambda: s.socket(family, s.SOCK_RAW, echo)),
    'raw, headers included': why(lambda: s.socket(family, s.SOCK_RAW, s.IPPROTO_RAW)),
    'datagram without connect': why(lambda: s.socket(family, s.SOCK_DGRAM).sendto(b'x', (far, 9))),
    'a port of the wildcard': why(lambda: bound('::' if six else '0.0.0.0', 5000)),
    'a port of nobody': why(lambda: bound(ours, nobodys)),
    'ping without connect': why(lambda: [s.socket(family, s.SOCK_DGRAM, echo).sendto(bytes([128 if six else 8]) + bytes(7),
                                                                              (far, 0)) for _ in range(2)])}))
"""


@pytest.fixture(scope="module")
def job(new_lab):
    lab = new_lab(TOPOLOGY)
    owned = plane.start(lab, lab.plan_text())
    lab.run(HOST, ["sysctl", "-w", "net.ipv4.ping_group_range=0 0"])
    lab.run(HOST, ["ping", "-c", "1", programs.WEB1], check=False)   # neighbours are known: errors are told at once
    return lab, owned


def held(owned, way: str) -> tuple:
    """One (address, range of ports) of the host's, of the family."""
    return owned.slices(HOST, "gb6" if way == "IPv6" else "gb")[0]


def end_of(packet) -> tuple | None:
    """(source, port or identifier) of what opens a flow."""
    ip = packet.getlayer(IP) or packet.getlayer(IPv6)
    if TCP in packet:
        return (ip.src, packet[TCP].sport) if packet[TCP].flags == "S" else None
    if UDP in packet:
        return ip.src, packet[UDP].sport
    if ICMPv6EchoRequest in packet:
        return ip.src, packet[ICMPv6EchoRequest].id
    return (ip.src, packet[ICMP].id) if ICMP in packet and packet[ICMP].type == 8 else None


def script(lab, name: str, text: str) -> list:
    path = lab.state / name
    path.write_text(text)
    return [PYTHON, path]


def seen(capture, far: str) -> set:
    far = far.replace("::ffff:", "")
    found = {end_of(packet) for packet in rdpcap(str(capture.path))
             if (packet.getlayer(IP) or packet.getlayer(IPv6)) and (packet.getlayer(IP) or packet.getlayer(IPv6)).dst == far}
    return found - {None}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_connect_leaves_from_this_hosts_slices(job, way):
    lab, owned = job
    far, (ours, ports) = WAYS[way], held(owned, way)
    ours = f"::ffff:{ours}" if way == "mapped" else ours
    ring = place.binary("tests/e2e/ring-connect")
    with lab.capture("web1", "eth0", OPENING) as wire:
        done = plane.run(lab, HOST, GB, [*script(lab, "calls.py", CALLS), far, ours, ports[700], ring])
    told = {row["call"]: (row["end"][0].replace("::ffff:", ""), row["end"][1]) for row in json.loads(done.stdout)}
    assert len(told) == (19 if way == "mapped" else 20)
    for call, (address, port) in told.items():
        assert ip_address(address) == ip_address(ours.replace("::ffff:", "")) and port in ports, call
    assert seen(wire, far) == set(told.values())


@pytest.mark.parametrize("way", ["IPv4", "IPv6"])
def test_what_has_no_port_is_refused_and_does_not_leave(job, way):
    lab, owned = job
    far, (ours, ports) = WAYS[way], held(owned, way)
    nobodys = 1000 if way == "IPv6" else ports[-1] + 1   # a whole address has no port of nobody but those below 1024
    before = plane.counters(lab, HOST)
    with lab.capture("lhr-r", "s1", f"dst host {far} and not (tcp or icmp6[0] = 135)") as wire:
        done = plane.run(lab, HOST, GB, [*script(lab, "refused.py", REFUSED), far, ours, nobodys])
    assert json.loads(done.stdout) == {
        "raw": errno.EACCES, "raw, headers included": errno.EACCES, "datagram without connect": errno.EDESTADDRREQ,
        "a port of the wildcard": errno.EADDRNOTAVAIL, "a port of nobody": errno.EACCES,
        "ping without connect": errno.ENOBUFS if way == "IPv4" else 0}
    assert wire.count() == 0
    moved = {key: value - before[key] for key, value in plane.counters(lab, HOST).items()}
    assert moved["egress", "refused_raw"] == 2 and moved["egress", "refused_ping"] >= 1
    event = lab.wait(lambda: plane.events(lab, HOST, "refused_raw"), 5, "the event")[-1]
    assert event["program"] == "python3" and "outside of every class" in event["advice"]
