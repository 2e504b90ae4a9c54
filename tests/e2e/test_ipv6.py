# SPDX-License-Identifier: MIT
"""Shared addresses and underlays of both families, in all four combinations, to the byte on the wire.

One lab whose links carry both families; the plan's underlay is IPv4 first and IPv6 then, changed under the running
agents. Frames are put on a host's link from its router's end, so that it is known who gets them first; the wire is
what tcpdump sees there.
"""
import json
import subprocess
import sys
from ipaddress import ip_address, ip_network

import pytest
from conftest import REPO
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, ICMPv6PacketTooBig,
                                IPv6)
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import rdpcap
from scapy.utils6 import in6_getnsma, in6_getnsmac
from socket import AF_INET6, inet_ntop, inet_pton

import plane
import programs

TOPOLOGY = REPO / "lab" / "two-sites-v6.yaml"
SERVICE_PORT, NOBODYS_PORT = 2443, 60000     # the first slice of an address is the service's host's
STEPS = {"same": 6080, "other": 6079}        # doc/dispatch.md: the outer port tells the steps left
PEER = {4: "203.0.113.134", 6: "2001:db8:f:2::2"}   # client1, whose stack ends what it did not begin
OURS = {4: "net 198.51.100.0/24", 6: "net 2001:db8:1::/112"}
OUTER = "udp and portrange 6078-6080"

SEND = """import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((sys.argv[1], 0))
for frame in sys.stdin.read().split():
    wire.send(bytes.fromhex(frame))
"""
SERVE = """import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
listener = socket.socket(family, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen(64)
print("ready", flush=True)
while True:
    one, _ = listener.accept()
    one.sendall(one.recv(100).upper())
    one.close()
"""
ASK = """import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
answers = []
for number in range(int(sys.argv[3])):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(5)
        one.connect((sys.argv[1], int(sys.argv[2])))
        one.sendall(b"number %d" % number)
        answers.append(one.recv(100).decode())
print(*answers, sep="\\n")
"""
PING = """import os, socket, sys
wire = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
wire.settimeout(2)
sent = b"\\x80\\0\\0\\0" + int(sys.argv[2]).to_bytes(2, "big") + b"\\0\\1" + os.urandom(56)
wire.sendto(sent, (sys.argv[1], 0))
while True:
    got, source = wire.recvfrom(2000)
    if got[0] == 129 and got[4:] == sent[4:]:
        print(source[0])
        break
"""


def family(address: str) -> int:
    return ip_address(address).version


def layer(address: str):
    return IP if family(address) == 4 else IPv6


class World:
    """The lab under one plan; `over` is the family of its underlay."""

    def __init__(self, lab, over: int):
        self.lab, self.over, self.topology = lab, over, lab.topology
        text = lab.plan_text(over=over).replace("direct:", "services:\n" + "".join(
            f"  - {{ name: s{number}, address: \"{address}\", port: {SERVICE_PORT}, protocol: tcp, host: {host} }}\n"
            for number, (address, host) in enumerate(SERVICES.items())) + "direct:")
        path = plane.write(lab, text, f"over{over}.yaml")
        if not any(map(lab.agent_pid, lab.topology.hosts)):
            lab.start_agents()
        plane.portslice(lab, "plan", "apply", path)
        self.plane = plane.show(lab, path)
        lab.wait(self._agree, 10, "hosts to hear each other")
        for host in self.topology.hosts:
            lab.wait(lambda: self._refuses(host), 5, f"{host}: a table confirmed fresh")

    def status(self, host: str) -> dict:
        return json.loads(self.lab.portslice(host, "--json", "status").stdout)

    def _agree(self) -> bool:
        return all(peer["plan"] == "agrees" for host in self.topology.hosts for peer in self.status(host)["peers"])

    def _refuses(self, host: str) -> bool:
        nobodys = "2001:db8:1::fe" if self.plane.host_sites[host] == "LHR" else "2001:db8:1::1fe"
        before = plane.counters(self.lab, host)["dispatch", "reject_tcp"]
        self.put(host, syn_to(nobodys, NOBODYS_PORT))
        return plane.counters(self.lab, host)["dispatch", "reject_tcp"] > before

    def underlay(self, host: str) -> str:
        return self.plane.underlays[host]

    def edge(self, site: str) -> str:
        prefixes = self.topology.four if self.over == 4 else self.topology.six
        return prefixes.edges[site]

    def link(self, node: str, dev: str) -> str:
        return json.loads(self.lab.run(node, ["ip", "-j", "link", "show", "dev", dev]).stdout)[0]["address"]

    def ends(self, host: str) -> tuple:
        """(the host's MAC address, its router's on this link)"""
        own, router = self.topology.uplink(host)
        return self.link(own.node, own.dev), self.link(router.node, router.dev)

    def put(self, host: str, *packets) -> None:
        """Sends packets to the host from its router's end of the link."""
        mac, router = self.ends(host)
        end = self.topology.uplink(host)[1]
        frames = [bytes(Ether(src=router, dst=mac) / packet).hex() for packet in packets]
        self.lab.run(end.node, [sys.executable, "-c", SEND, end.dev], input="\n".join(frames))

    def capture(self, host: str, what: str):
        end = self.topology.uplink(host)[1]
        return self.lab.capture(end.node, end.dev, what, snaplen=2000)

    def counters(self) -> dict:
        return {host: plane.counters(self.lab, host) for host in self.topology.hosts}

    def wait_for(self, capture, expression: str, n: int = 1) -> list:
        """The packets of a running capture once n of them match; the capture ends."""
        self.lab.wait(lambda: capture.count(expression) >= n, 5, f"{n} packet(s): {expression}")
        capture.stop()
        return list(rdpcap(str(capture.path)))


SERVICES = {"198.51.100.1": "lhr1", "2001:db8:1::": "lhr1", "2001:db8:1::200": "lhr1", "2001:db8:1::300": "cdg2"}


@pytest.fixture(scope="module")
def one_lab(new_lab):
    return new_lab(TOPOLOGY)


@pytest.fixture(scope="module", params=[4, 6], ids=["over-IPv4", "over-IPv6"])
def world(one_lab, request):
    return World(one_lab, request.param)


@pytest.fixture(scope="module", autouse=True)
def servers(one_lab):
    """A program of no class behind each published service. It finds its address once a plan has brought it."""
    World(one_lab, 4)
    for address, host in SERVICES.items():
        child = one_lab.popen(host, [sys.executable, "-c", SERVE, address, SERVICE_PORT], stdout=subprocess.PIPE)
        assert child.stdout.readline() == "ready\n", f"{host}: no server on {address}"


def outer_of(world: World, sender: str, receiver: str, inner: bytes, where: str) -> tuple:
    """(the frame that must leave, but for the flow's source port and label; the offset of that port)"""
    mac, router = world.ends(sender)
    outer = layer(receiver)(src=world.underlay(sender), dst=receiver)
    if world.over == 4:
        outer.flags, outer.id, outer.ttl = "DF", 0, 64
    else:
        outer.hlim = 64
    frame = Ether(src=mac, dst=router) / outer / UDP(sport=0, dport=STEPS[where], chksum=0) / Raw(inner)
    return bytes(frame), 14 + (20 if world.over == 4 else 40)


def check_encapsulated(world: World, frames: list, sender: str, receiver: str, inner: bytes, where: str) -> None:
    found = [bytes(frame) for frame in frames if bytes(frame).endswith(inner) and UDP in frame
             and frame[UDP].dport in STEPS.values()]
    assert len(found) == 1
    expected, port = outer_of(world, sender, receiver, inner, where)
    frame = bytearray(found[0])
    assert int.from_bytes(frame[port:port + 2], "big") >= 49152
    frame[port:port + 2] = b"\0\0"
    if world.over == 6:
        assert frame[14] >> 4 == 6
        frame[15:18] = bytes((frame[15] & 0xf0, 0, 0))   # the flow label is the sender's to choose
    assert bytes(frame).hex() == expected.hex()


def syn_to(address: str, port: int, sport: int = 40000, payload: bytes = b""):
    inner = layer(address)(src=PEER[family(address)], dst=address) / TCP(sport=sport, dport=port, flags="S", seq=7,
                                                                         options=[("MSS", 1200)])
    return layer(address)(bytes(inner / payload if payload else inner))


# owner of the address's slices -> the host that gets the packet first
@pytest.mark.parametrize("arrival, where", [("lhr2", "same"), ("cdg1", "other")])
@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8:1::", "2001:db8:1::200"])
def test_a_packet_for_anothers_slice_is_handed_on_as_it_is(world, address, arrival, where):
    packet = syn_to(address, SERVICE_PORT, sport=40000 + world.over)
    receiver = world.underlay("lhr1") if where == "same" else world.edge("LHR")
    with world.capture(arrival, OUTER) as wire:
        world.put(arrival, packet)
        frames = world.wait_for(wire, "")
    check_encapsulated(world, frames, arrival, receiver, bytes(packet), where)


@pytest.mark.parametrize("address", SERVICES)
def test_strangers_converse_with_a_published_service_by_whichever_host_is_first(world, address):
    before = world.counters()
    done = world.lab.run("client1", [sys.executable, "-c", ASK, address, SERVICE_PORT, 24])
    assert done.stdout.split("\n")[:24] == [f"NUMBER {number}" for number in range(24)]
    after = world.counters()
    moved = {reason: sum(after[host]["dispatch", reason] - before[host]["dispatch", reason] for host in after)
             for reason in ("deliver", "deliver_service", "to_host", "to_site")}
    assert moved["deliver"] + moved["deliver_service"] >= 24 * 3
    assert moved["to_host"] + moved["to_site"] >= 10, moved


@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8:1::200", "2001:db8:1::5"])
def test_a_port_of_nobody_is_refused_at_once_also_from_the_other_site(world, address):
    """The refusal is made at the address's site, so it leaves by the gateway of the packet's own family."""
    syn = syn_to(address, NOBODYS_PORT, sport=41000 + world.over)
    datagram = layer(address)(bytes(layer(address)(src=PEER[family(address)], dst=address)
                                    / UDP(sport=41000 + world.over, dport=NOBODYS_PORT) / b"anybody?"))
    for arrival in ("lhr2", "cdg1"):
        with world.lab.capture("isp-l", "lhr", OURS[family(address)], snaplen=2000) as wire:
            world.put(arrival, syn, datagram)
            answers = [frame for frame in world.wait_for(wire, f"src {OURS[family(address)]}", 2)
                       if frame[layer(address)].src == address
                       and not (TCP in frame and frame[TCP].dport != syn[TCP].sport)]
        assert len(answers) == 2, [frame.summary() for frame in answers]
        reset = next(frame for frame in answers if TCP in frame)
        assert (reset[TCP].flags, reset[TCP].ack, reset[TCP].sport) == ("RA", 8, NOBODYS_PORT)
        other = next(frame for frame in answers if TCP not in frame or ICMP in frame)
        if family(address) == 4:
            assert (other[ICMP].type, other[ICMP].code) == (3, 3)
        else:
            assert (other[ICMPv6DestUnreach].type, other[ICMPv6DestUnreach].code) == (1, 4)
            assert bytes(other[ICMPv6DestUnreach].payload) == bytes(datagram)
        for answer in (reset, other):
            check_sum(answer, address)


def check_sum(frame, address: str) -> None:
    """That the transport's checksum is the one scapy computes anew."""
    kind = next(name for name in (ICMP, ICMPv6DestUnreach, ICMPv6PacketTooBig, TCP) if name in frame)
    field = "chksum" if kind in (ICMP, TCP) else "cksum"
    again = frame[layer(address)].copy()
    found = getattr(again[kind], field)
    delattr(again[kind], field)
    assert getattr(layer(address)(bytes(again))[kind], field) == found


@pytest.mark.parametrize("address", ["2001:db8:1::", "2001:db8:1::200", "2001:db8:1::7", "2001:db8:1::300"])
def test_a_ping_to_a_shared_ipv6_address_is_answered(world, address):
    for number in (1, 5000, 65535):
        said = world.lab.run("client1", [sys.executable, "-c", PING, address, number]).stdout
        assert said == f"{address}\n"


def solicit(world: World, target: str, to_target: bool) -> object:
    """A neighbour solicitation as the router of lhr1 sends it: to the target's group, or to itself (RFC 4861)."""
    mac, router = world.ends("lhr1")
    group = inet_ntop(AF_INET6, in6_getnsma(inet_pton(AF_INET6, target)))
    asked = IPv6(src=world.topology.uplink("lhr1")[1].ip6, dst=target if to_target else group, hlim=255) / \
        ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=router)
    return Ether(src=router, dst=mac if to_target else in6_getnsmac(in6_getnsma(inet_pton(AF_INET6, target)))) / asked


@pytest.mark.parametrize("to_target", [False, True], ids=["to-the-group", "to-itself"])
def test_nobody_says_that_a_shared_address_is_his_neighbour(world, to_target):
    """Else the router would learn one host's MAC address for it. Measured: a local route is no address."""
    own, end = world.topology.address6("lhr1"), world.topology.uplink("lhr1")[1]
    shared = ["2001:db8:1::", "2001:db8:1::200", "2001:db8:1::1"]
    frames = [bytes(solicit(world, target, to_target)).hex() for target in (*shared, own)]
    with world.capture("lhr1", "icmp6 and ip6[40] == 136") as wire:
        world.lab.run(end.node, [sys.executable, "-c", SEND, end.dev], input="\n".join(frames))
        answers = world.wait_for(wire, "")   # to the last one sent, the host's own
    assert {frame[ICMPv6ND_NA].tgt for frame in answers} == {own}


def test_no_host_asks_for_a_neighbour_in_a_shared_addresss_name(world):
    with world.capture("lhr1", "icmp6 and ip6[40] == 135") as wire:
        world.lab.run("lhr1", ["ip", "-6", "neigh", "flush", "dev", "eth0"])
        world.lab.run("client1", [sys.executable, "-c", ASK, "2001:db8:1::", SERVICE_PORT, 8])
        mac = world.ends("lhr1")[0]
        asked = [frame for frame in world.wait_for(wire, f"ether src {mac}") if frame.src == mac]
    shared = ip_network(world.topology.six.shared)
    assert asked and not [frame for frame in asked if ip_address(frame[IPv6].src) in shared]


def hop_mac(world: World, marker: str) -> str:
    """Where a packet for lhr2's slice leaves lhr1 for; `marker` is its payload."""
    with world.capture("lhr1", OUTER) as wire:
        world.put("lhr1", syn_to("2001:db8:1::1", SERVICE_PORT, payload=marker.encode()))
        wire.stop()
    return next((frame.dst for frame in rdpcap(str(wire.path)) if bytes(frame).endswith(marker.encode())), "nowhere")


def test_a_next_hop_that_is_link_local_is_followed_and_its_change_too(world):
    """For both families: IPv4 routes may have IPv6 gateways (RFC 8950)."""
    lab, (_, router) = world.lab, world.ends("lhr1")
    end = lab.topology.uplink("lhr2")[0]
    prefix, via = (end.net, "inet6") if world.over == 4 else (end.net6, "")
    sh = lambda command: lab.run("lhr1", ["sh", "-c", command])  # noqa: E731
    assert hop_mac(world, "before") == router
    sh(f"ip neigh replace fe80::99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent; "
       f"ip route add {prefix} via {via} fe80::99 dev eth0 metric 1")
    try:
        lab.wait(lambda: hop_mac(world, "by-99") == "02:00:00:00:00:99", 3, "the route by fe80::99")
        sh("ip neigh replace fe80::99 lladdr 02:00:00:00:00:98 dev eth0 nud permanent")
        lab.wait(lambda: hop_mac(world, "by-98") == "02:00:00:00:00:98", 3, "fe80::99's new address")
    finally:
        sh(f"ip route del {prefix} metric 1; ip neigh del fe80::99 dev eth0")
    lab.wait(lambda: hop_mac(world, "after") == router, 3, "the old route")


def handed_to(world: World, host: str, inner, where: str):
    """What another host would send on to this one, or to its site."""
    receiver = world.underlay(host) if where == "same" else world.edge(world.plane.host_sites[host])
    sender = next(other for other in world.topology.hosts if other != host)
    return layer(receiver)(src=world.underlay(sender), dst=receiver) / \
        UDP(sport=50000, dport=STEPS[where], chksum=0) / Raw(bytes(inner))


def test_answers_to_what_another_site_sent_leave_by_the_default_route_of_their_family(world):
    lab, gateways = world.lab, {4: "02:00:00:00:00:44", 6: "02:00:00:00:00:66"}
    sh = lambda command: lab.run("lhr1", ["sh", "-c", command])  # noqa: E731
    refused = {4: syn_to("198.51.100.1", NOBODYS_PORT), 6: syn_to("2001:db8:1::5", NOBODYS_PORT)}

    def leaves_for(number: int) -> str:
        with world.capture("lhr1", f"src {OURS[number]} and tcp") as wire:
            world.put("lhr1", handed_to(world, "lhr1", refused[number], "other"))
            return world.wait_for(wire, "")[0].dst

    routers = {number: world.ends("lhr1")[1] for number in gateways}
    assert {number: leaves_for(number) for number in gateways} == routers, "no default route: as to the other sites"
    sh(f"ip neigh replace fe80::44 lladdr {gateways[4]} dev eth0 nud permanent; "
       f"ip neigh replace fe80::66 lladdr {gateways[6]} dev eth0 nud permanent; "
       "ip -4 route add default via inet6 fe80::44 dev eth0; ip -6 route add default via fe80::66 dev eth0")
    try:
        lab.wait(lambda: {number: leaves_for(number) for number in gateways} == gateways, 3, "both default routes")
    finally:
        sh("ip -4 route del default; ip -6 route del default; for n in 44 66; do ip neigh del fe80::$n dev eth0; done")
    lab.wait(lambda: {number: leaves_for(number) for number in gateways} == routers, 3, "the routes of before")


def test_a_next_hop_that_nobody_else_uses_is_resolved_by_the_agent(world):
    """Answers leave by the default route of their family, which no packet of the kernel's own may take for hours."""
    lab = world.lab
    end = lab.topology.uplink("lhr1")[1]
    sh = lambda node, command: lab.run(node, ["sh", "-c", command])  # noqa: E731
    sh(end.node, f"ip addr add fd00:1:1:1::1/64 dev {end.dev} nodad")
    sh("lhr1", "ip addr add fd00:1:1:1::2/64 dev eth0 nodad; ip route add default via fd00:1:1:1::1 dev eth0 onlink")
    try:
        lab.wait(lambda: sh("lhr1", "ip -6 neigh show fd00:1:1:1::1").stdout.count(world.ends("lhr1")[1]), 3,
                 "the default router's address")
        with lab.capture("isp-l", "lhr", OURS[6], snaplen=2000) as wire:
            world.put("lhr1", handed_to(world, "lhr1", syn_to("2001:db8:1::5", NOBODYS_PORT), "other"))
            world.wait_for(wire, f"src {OURS[6]}")
    finally:
        sh("lhr1", "ip -6 route del default; ip addr del fd00:1:1:1::2/64 dev eth0")
        sh(end.node, f"ip addr del fd00:1:1:1::1/64 dev {end.dev}")


def test_a_plan_is_refused_where_ipv6_is_disabled(world):
    """Else its packets would pass the dispatcher and vanish."""
    lab, setting = world.lab, "net.ipv6.conf.deaf.disable_ipv6"
    text = (lab.state / f"over{world.over}.yaml").read_text().replace("[eth0]", "[eth0, deaf]")
    path = plane.write(lab, text, "deaf.yaml", deal=False)
    for host in lab.topology.hosts:
        lab.run(host, ["ip", "link", "add", "deaf", "type", "veth", "peer", "name", "dumb"])
    lab.run("lhr2", ["sysctl", "-qw", f"{setting}=1"])
    refused = plane.portslice(lab, "plan", "apply", path, check=False)
    for host in lab.topology.hosts:
        lab.run(host, ["ip", "link", "del", "deaf"])
    assert refused.returncode == 2
    assert f"but IPv6 is disabled on `deaf`: sysctl {setting}=0" in refused.stderr


@pytest.mark.parametrize("number", [4, 6], ids=["IPv4", "IPv6"])
def test_programs_of_a_class_fetch_by_shared_addresses_over_this_underlay(world, number):
    lab = world.lab
    web1 = lab.topology.address("web1") if number == 4 else f"\\[{lab.topology.address6('web1')}\\]"
    wires = {host: world.capture(host, OUTER) for host in lab.topology.hosts}
    before = world.counters()
    answers = {host: programs.fetch(lab, host, f"http://{web1}/", 40, wish="country=GB")
               for host in lab.topology.hosts}
    assert {host: answer.count() for host, answer in answers.items()} == dict.fromkeys(answers, 40)
    after = world.counters()
    for host, capture in wires.items():
        capture.stop()
        mine, none = ("ip", "ip6") if world.over == 4 else ("ip6", "ip")
        assert capture.count(mine) > 0 and capture.count(none) == 0
    moved = {reason: sum(after[host]["dispatch", reason] - before[host]["dispatch", reason] for host in after)
             for reason in ("to_host", "to_site", "drop_no_hop", "drop_stranger", "drop_inner", "drop_too_big")}
    assert moved["to_host"] >= 40 and moved["to_site"] >= 40
    assert moved["drop_no_hop"] == moved["drop_stranger"] == moved["drop_inner"] == moved["drop_too_big"] == 0


def big(address: str, size: int):
    packet = layer(address)(src=PEER[family(address)], dst=address) / UDP(sport=5, dport=SERVICE_PORT)
    if family(address) == 4:
        packet.flags = "DF"
    return layer(address)(bytes(packet / Raw(bytes(size - len(packet)))))


@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8:1::"])
def test_a_narrow_path_between_sites_is_learned_and_told_to_senders(world, address):
    """The backbone takes less than the plan says: its router tells the host, the host tells the sender."""
    lab, edge = world.lab, world.edge("LHR")
    outer = 28 if world.over == 4 else 48
    set_mtu = lambda mtu: [lab.run(node, ["ip", "link", "set", "bb", "mtu", mtu])  # noqa: E731
                           for node in ("lhr-r", "cdg-r")]
    set_mtu(1400)
    try:
        def learned() -> int:
            world.put("cdg1", big(address, 1390))
            return next((row["mtu"] for row in world.status("cdg1")["learned_mtus"] if row["to"] == edge), 0)
        assert lab.wait(learned, 5, "the path's MTU") == 1400
        with lab.capture("isp-c", "cdg", f"src {OURS[family(address)]}", snaplen=2000) as wire:
            world.put("cdg1", big(address, 1401 - outer))
            told = world.wait_for(wire, "")[0]
    finally:
        set_mtu(1500)
    message = told[ICMP] if family(address) == 4 else told[ICMPv6PacketTooBig]
    assert (told[layer(address)].src, told[layer(address)].dst) == (address, PEER[family(address)])
    assert (message.nexthopmtu if family(address) == 4 else message.mtu) == 1400 - outer
    check_sum(told, address)


def test_detaching_leaves_nothing_of_ipv6_behind_and_attaching_brings_it_back(world):
    lab = world.lab
    look = lambda: lab.run("cdg1", ["sh", "-c", "ip -6 route show table local proto 190 | cut -d' ' -f2; "  # noqa: E731
                                    "cat /proc/sys/net/ipv6/ip_nonlocal_bind"]).stdout.split()
    mine = sorted({held["address"] for held in world.plane.plan["slices"]
                   if held["host"] == "cdg1" and ":" in held["address"]})
    assert len(mine) == 2 and sorted(look()[:-1]) == mine and look()[-1] == "1"
    lab.portslice("cdg1", "detach")
    assert look() == ["0"]
    lab.portslice("cdg1", "attach")
    assert sorted(look()[:-1]) == mine and look()[-1] == "1"


def test_what_others_remove_of_ipv6_is_put_back(world):
    lab = world.lab
    lab.run("cdg2", ["sh", "-c", "ip -6 route flush table local proto 190; sysctl -qw net.ipv6.ip_nonlocal_bind=0"])
    lab.wait(lambda: len(lab.run("cdg2", ["sh", "-c", "ip -6 route show table local proto 190; "
                                          "grep 1 /proc/sys/net/ipv6/ip_nonlocal_bind"], check=False)
                         .stdout.splitlines()) == 3, 3, "routes and sysctl of IPv6")


def test_commands_read_and_print_ipv6_as_operators_write_it(world):
    lab, client = world.lab, "[2001:db8:f:2::2]:5"
    who = json.loads(lab.portslice("lhr1", "--json", "who", "[2001:db8:1::1]:5000").stdout)
    assert (who["host"], who["address"], who["ports"]) == ("lhr2", "2001:db8:1::1", "1024-65535")
    asked = ["--json", "trace", "--at", "cdg1", "--from", client, "--to", "[2001:db8:1::1]:5000"]
    row, = json.loads(lab.portslice("lhr1", *asked).stdout)
    assert (row["reason"], row["site"]) == ("to_site", "LHR")
    sent = (IP if world.over == 4 else IPv6)(bytes.fromhex(row["bytes"])[14:])
    assert (sent.src, sent.dst) == (world.underlay("cdg1"), world.edge("LHR"))
    asked[3:4] = ["lhr1"]
    row, = json.loads(lab.portslice("lhr1", *asked, "--protocol", "echo-request").stdout)
    assert row["reason"] == "echo_reply"
    refused = lab.portslice("lhr1", "who", "2001:db8:1::1:5000", check=False)
    assert refused.returncode == 1 and "[2001:db8::1]:2048" in refused.stderr
    hosts = {row["host"]: row["underlay"] for row in json.loads(lab.portslice("lhr1", "--json", "show", "hosts").stdout)}
    assert hosts == world.plane.underlays
    assert "2001:db8:1::100 gb6      " in lab.portslice("lhr1", "show", "plane").stdout
