# SPDX-License-Identifier: MIT
"""The main job: over 10,000 connections of six programs from six hosts that own no address, counted on the wire.

One run of all programs at once makes the evidence; each test below reads one fact from it. What the wire says is
what tcpdump wrote at the routers' ends of the hosts' links (XDP sends past the host's own packet sockets) and at the
servers of the Internet.
"""
import json
from collections import Counter

import pytest

import plane
import programs
import wire
from programs import DNS, WEB1, WEB2

EACH = 1200       # connections of every host by curl, half to each web server
PROXIED = 1200    # connections of each proxy
NAMES = 400       # unbound's, over TCP
GB = "country=GB"
OURS = "net 198.51.100.0/24 or (udp and portrange 6078-6080)"
HANDED_ON = {"to_host": 6080, "to_site": 6079}   # doc/dispatch.md: the outer port tells the steps left

OWN = ("deliver", "reject_tcp", "drop_no_steps")
REFUSALS = ("refused", "guard", "exhausted", "no_")
IPERF3 = 5201


def is_shared(address: str) -> bool:
    return address.startswith("198.51.100.")


class Job:
    """The run: what the programs got, what the wires carried, how our counters moved."""

    def __init__(self, lab):
        self.lab, self.hosts = lab, list(lab.topology.hosts)
        self.plane = plane.start(lab, lab.plan_text())
        self.answers, self.iperf3 = {}, []
        self._serve()
        self.captures = self._listen()
        before = {host: plane.counters(lab, host) for host in self.hosts}
        self._work()
        after = self._rest()
        self.moved = {host: {key: after[host][key] - before[host][key] for key in after[host]} for host in self.hosts}
        for capture in self.captures.values():
            capture.stop()
        self.packets = {place: wire.read(capture.path) for place, capture in self.captures.items()}

    def _serve(self) -> None:
        programs.squid(self.lab, "lhr1", mark=1)
        programs.haproxy(self.lab, "cdg2", GB)
        programs.nginx(self.lab, "lhr3", GB)
        self.unbound = programs.unbound(self.lab, "cdg1", GB)
        programs.iperf3_server(self.lab, "web1")

    def _listen(self) -> dict:
        """place -> capture: each host by its router's end, each server by its own."""
        ends = {host: self.lab.topology.uplink(host)[1] for host in self.hosts}
        places = {host: (end.node, end.dev) for host, end in ends.items()}
        places |= {node: (node, "eth0") for node in ("web1", "web2", "dns1")}
        return {place: self.lab.capture(*where, OURS) for place, where in places.items()}

    def _work(self) -> None:
        """All programs at once; iperf3's tests one after the other, as its server wants it."""
        fetch = lambda host, *rest, **more: programs.fetch(self.lab, host, *rest, **more)  # noqa: E731
        running = {
            "curl": [fetch(host, f"http://{url}/", EACH // 2, "--header", "Host: curl", wish=GB)
                     for host in self.hosts for url in (WEB1, WEB2)],
            "squid": [fetch("lhr1", f"http://{url}/", PROXIED // 2, "--proxy", "http://10.1.1.1:3128")
                      for url in (WEB1, WEB2)],
            "haproxy": [fetch("cdg2", "http://10.2.2.1:8081/", PROXIED, "--header", "Host: haproxy")],
            "nginx": [fetch("lhr3", "http://10.1.3.1:8080/", PROXIED)],
            "unbound": [programs.ask_names(self.lab, "cdg1", [f"n{part}-{i}.lab" for i in range(NAMES // 4)])
                        for part in range(4)]}
        for options in (["-n", "2M", "-P", "4"], ["-u", "-b", "4M", "-t", "1", "-P", "2", "-R"]):
            done = plane.run(self.lab, "lhr2", GB, ["iperf3", "-J", "-c", WEB1, *options])
            self.iperf3.append(json.loads(done.stdout)["end"])
        self.answers = {name: sum(each.count() for each in group) for name, group in running.items()}
        self.unbound.terminate()   # only now does it close its connections
        self.unbound.wait(5)

    def _rest(self) -> dict:
        """The counters once they stand still."""
        seen = []

        def still():
            seen.append({host: plane.counters(self.lab, host) for host in self.hosts})
            shared = [{key: n for key, n in host.items() if key != ("dispatch", "not_ours")}
                      for reading in seen[-6:] for host in reading.values()]
            return len(seen) > 5 and shared[:len(self.hosts)] * 6 == shared and seen[-1]
        return self.lab.wait(still, 20, "counters to stand still")

    def sent(self, host: str) -> list:
        """What a shared address sends from this host, not from another by way of it."""
        return [packet for packet in self.packets[host] if not packet.outer and is_shared(packet.source)]

    def arrived(self, host: str) -> list:
        """What reached this host first of all, as the Internet sent it."""
        return [packet for packet in self.packets[host] if not packet.outer and is_shared(packet.destination)]

    def passed_on(self, host: str) -> list:
        mine = self.plane.underlays[host]
        return [packet for packet in self.packets[host] if packet.outer and packet.outer.source == mine]

    def received(self, host: str) -> list:
        """What other hosts handed to this one."""
        mine = self.plane.underlays[host]
        return [packet for packet in self.packets[host] if packet.outer and packet.outer.source != mine]

    def owner(self, packet: wire.Packet) -> str | None:
        return self.plane.owner(packet.destination, packet.dport)

    def own(self, host: str) -> list:
        """What came to this host, either way, for a port of its own."""
        return [packet for packet in self.arrived(host) + self.received(host) if self.owner(packet) == host]

    def resets(self, place: str) -> tuple:
        """RSTs made at this host or server: after both FINs, and at any other time. iperf3's server ends streams so."""
        host = place if place in self.hosts else None
        seen = [packet for packet in self.packets[place]
                if packet.protocol == wire.TCP and packet.sport != IPERF3
                and (is_shared(packet.source) or not host or self.owner(packet) == host)]
        return tuple([packet for packet in found if is_shared(packet.source) == bool(host)]
                     for found in wire.resets(seen))

    def openings(self, host: str) -> Counter:
        """(flow, initial sequence number) of each TCP connection the host opened -> how often its SYN was sent."""
        return Counter((packet.flow, packet.seq) for packet in self.sent(host)
                       if packet.flags & (wire.SYN | wire.ACK) == wire.SYN)

    def udp_flows(self, host: str) -> set:
        return {packet.flow for packet in self.sent(host) if packet.protocol == wire.UDP}


@pytest.fixture(scope="module")
def job(new_lab):
    return Job(new_lab())


def web_log(lab) -> Counter:
    """Program -> connections, as the web servers saw them: each carried one request."""
    lines = [line.split() for node in ("web1", "web2")
             for line in (lab.state / node / "access.log").read_text().splitlines()]
    assert all(is_shared(line[0]) and line[3] == "200" for line in lines)
    return Counter({WEB1: "squid", WEB2: "squid"}.get(line[2], line[2]) for line in lines)


def test_nothing_was_dropped_by_the_captures(job):
    assert {place: capture.dropped for place, capture in job.captures.items()} == dict.fromkeys(job.captures, 0)


def test_every_request_of_every_program_is_answered(job):
    assert job.answers == {"curl": EACH * len(job.hosts), "squid": PROXIED, "haproxy": PROXIED, "nginx": PROXIED,
                           "unbound": NAMES}
    tcp, udp = job.iperf3
    # What is under way when the client says "done", all that socket buffers take, is not in the server's sum.
    assert tcp["sum_sent"]["bytes"] >= 2 << 20 and tcp["sum_received"]["bytes"] >= 1 << 16
    assert udp["sum"]["packets"] > 500 and udp["sum"]["lost_packets"] == 0


def test_the_servers_saw_each_programs_connections(job):
    assert web_log(job.lab) == {"curl": EACH * len(job.hosts), "squid": PROXIED, "haproxy": PROXIED, "nginx": PROXIED}
    opened = Counter(flow[3:] for host in job.hosts for flow, _ in job.openings(host))
    assert opened[DNS, 53] >= NAMES
    assert opened[WEB1, IPERF3] == 6, "iperf3: two control connections and four streams"
    assert opened[WEB1, 80] + opened[WEB2, 80] == sum(web_log(job.lab).values())
    assert sum(flow[3:] == (WEB1, IPERF3) for flow in job.udp_flows("lhr2")) == 2
    assert opened.total() >= 10_000


def test_no_connection_is_lost_on_the_wire(job):
    """Every SYN got its SYN-ACK to its own host, and every connection ended with a FIN from either side; but for
    iperf3, whose server may end a stream by RST."""
    for host in job.hosts:
        opened = set(job.openings(host))
        accepted = {(packet.back, (packet.ack - 1) % 2**32) for packet in job.own(host)
                    if packet.flags & (wire.SYN | wire.ACK) == wire.SYN | wire.ACK}
        assert opened == accepted, host
        flows = {flow for flow, _ in opened if flow[4] != IPERF3}
        assert flows <= {packet.flow for packet in job.sent(host) if packet.flags & wire.FIN}, host
        assert flows <= {packet.back for packet in job.own(host) if packet.flags & wire.FIN}, host


def test_no_packet_of_a_shared_address_leaves_outside_the_slices_of_its_sender(job):
    for host in job.hosts:
        assert job.sent(host)
        assert {job.plane.owner(packet.source, packet.sport) for packet in job.sent(host)} == {host}


def test_no_connection_is_reset_before_it_has_ended(job):
    assert not [packet for place in job.packets for packet in job.resets(place)[1]]


def test_resets_after_the_end_are_few_and_all_counted(job):
    """When the path swaps the last two segments, the server's TIME_WAIT acknowledges one of them a second time, and
    that finds a closed port: any stack answers it with RST (RFC 9293 section 3.10.7.1), so the dispatcher does."""
    late = {host: len(job.resets(host)[0]) for host in job.hosts}
    assert {host: job.moved[host]["dispatch", "reject_tcp"] for host in job.hosts} == late
    assert sum(late.values()) <= 20, late


def test_many_replies_first_hit_a_host_that_is_not_the_owner_and_many_a_wrong_site(job):
    total = sum(len(job.arrived(host)) for host in job.hosts)
    not_owner = sum(job.owner(packet) != host for host in job.hosts for packet in job.arrived(host))
    wrong_site = sum(job.plane.site(packet.destination) != job.plane.host_sites[host]
                     for host in job.hosts for packet in job.arrived(host))
    assert total > 30_000
    assert not_owner >= 0.4 * total and wrong_site >= 0.2 * total, (total, not_owner, wrong_site)


@pytest.mark.parametrize("reason", HANDED_ON)
def test_counters_of_packets_handed_on_equal_the_wire(job, reason):
    on_wire = {host: sum(packet.outer.port == HANDED_ON[reason] for packet in job.passed_on(host))
               for host in job.hosts}
    assert {host: job.moved[host]["dispatch", reason] for host in job.hosts} == on_wire
    assert min(on_wire.values()) > 0


def test_the_counters_of_packets_for_own_ports_equal_the_wire(job):
    """Delivered, or late for a connection that has ended: answered, or dropped if it came with no steps left."""
    on_wire = {host: len(job.own(host)) for host in job.hosts}
    assert {host: sum(job.moved[host]["dispatch", reason] for reason in OWN) for host in job.hosts} == on_wire


def test_no_packet_met_any_other_verdict(job):
    others = {(host, reason): n for host in job.hosts for (part, reason), n in job.moved[host].items()
              if part == "dispatch" and reason not in {"not_ours", *OWN, *HANDED_ON} and n}
    assert not others


def test_the_counter_of_connects_equals_the_connections_on_the_wire(job):
    on_wire = {host: len(job.openings(host)) + len(job.udp_flows(host)) for host in job.hosts}
    assert {host: job.moved[host]["egress", "connect"] for host in job.hosts} == on_wire


def test_no_call_of_a_program_was_refused_and_every_port_came_back(job):
    for host in job.hosts:
        moved = {reason: n for (part, reason), n in job.moved[host].items() if part == "egress"}
        assert not {reason: n for reason, n in moved.items() if n and reason.startswith(REFUSALS)}
        assert moved["release"] + moved["quarantine"] >= moved["connect"]
