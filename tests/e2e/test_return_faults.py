# SPDX-License-Identifier: MIT
"""Next hops, links and routes change under traffic: connections live, and no frame has half a header."""
import json
import subprocess
import time

import pytest

import backbone
import bird
import plane
import wire
from backbone import GB, PYTHON, WEB, WIDE

ECHO_PORT = 7
SERVE = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    request_queue_size = 100
Server(('', 7), Echo).serve_forever()
"""
# Many connections, each asking every few milliseconds; what they met when the input ends.
TALK = """
import json, socket, sys, threading, time
done, seen = threading.Event(), []
def talk(server, counted):
    with socket.create_connection((server, 7), 10) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.settimeout(30)
        counted['from'] = one.getsockname()[0]
        while not done.is_set():
            began = time.monotonic()
            one.sendall(b'x' * 200)
            left = 200
            while left:
                left -= len(one.recv(left)) or sys.exit('closed')
            counted['rounds'] += 1
            counted['longest_ms'] = max(counted['longest_ms'], round((time.monotonic() - began) * 1000))
            time.sleep(0.004)
        counted['alive'] = True
for server in sys.argv[2:]:
    for _ in range(int(sys.argv[1])):
        seen.append({'from': '', 'rounds': 0, 'longest_ms': 0, 'alive': False})
        threading.Thread(target=talk, args=(server, seen[-1]), daemon=True).start()
rounds = lambda: sum(one['rounds'] > 3 for one in seen)
while rounds() < len(seen):
    time.sleep(0.01)
print('talking', flush=True)
for line in sys.stdin:
    for one in seen:
        one['rounds'] = 0
    while rounds() < len(seen):
        time.sleep(0.01)
    print('all answered again', flush=True)
done.set()
for thread in threading.enumerate():
    thread is threading.current_thread() or thread.join(30)
print(json.dumps(seen))
"""
# Datagrams that never pause: connections do, when what they send is lost.
STREAM = """
import socket, sys, time
made = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(64)]
while True:
    for one in made:
        one.sendto(b'x', (sys.argv[1], int(sys.argv[2])))
        time.sleep(0.0003)
"""
TALKERS = ("lhr1", "lhr2", "cdg1")
EACH = 6
STRANGE = ("02:a5:a5:a5:a5:a5", "06:5a:5a:5a:5a:5a")   # differ in every byte: a mixture would show
SECONDS_TO_FRESH = 3


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(backbone.TOPOLOGY)
    backbone.set_backbone(lab, WIDE)
    plane.start(lab, lab.plan_text(host={"mtu": WIDE}))
    for server in WEB:
        lab.popen(server, [PYTHON, "-c", SERVE], stdout=subprocess.DEVNULL)
        lab.wait(lambda: lab.run(server, ["ss", "-Hltn", "sport = :7"]).stdout, 5, "echo servers")
    return lab


class Traffic:
    """Connections of three hosts to both servers, through the whole of a test."""

    def __init__(self, lab):
        self._lab = lab
        self._talkers = [plane.popen(lab, host, GB, [PYTHON, "-c", TALK, EACH, *WEB.values()], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE) for host in TALKERS]
        assert all(talker.stdout.readline() == "talking\n" for talker in self._talkers)

    def goes_on(self) -> None:
        """Returns when every connection has been answered several times more."""
        for talker in self._talkers:
            talker.stdin.write("\n")
            talker.stdin.flush()
        assert all(talker.stdout.readline() == "all answered again\n" for talker in self._talkers)

    def end(self) -> int:
        """The longest that any connection waited for an answer, ms; all must have lived."""
        seen = [one for talker in self._talkers for one in json.loads(talker.communicate("", timeout=60)[0])]
        assert len(seen) == len(TALKERS) * EACH * len(WEB) and all(one["alive"] for one in seen)
        assert all(one["from"].startswith("198.51.100.") for one in seen)
        return max(one["longest_ms"] for one in seen)


@pytest.fixture
def traffic(lab):
    made = Traffic(lab)
    yield made
    for talker in made._talkers:
        talker.kill()


def encapsulated(capture) -> list:
    return [(when, *wire.macs(frame)) for when, frame in wire.timed(capture.path)]


def test_a_neighbour_that_changes_its_mac_is_followed_and_no_frame_has_half_of_it(lab, traffic):
    """lhr2's router changes its MAC, back and forth; what lhr2 hands on for lhr1 goes there."""
    original = backbone.mac(lab, "lhr-r", "s2")
    own = backbone.mac(lab, "lhr2", "eth0")
    stale = []
    stream = lab.popen("web1", [PYTHON, "-c", STREAM, "198.51.100.1", "2500"])   # lhr1's
    with lab.capture("lhr-r", "s2", f"udp dst port 6080 and src host {lab.topology.address('lhr2')}", 60) as capture:
        for new in (*STRANGE * 3, original):
            changed = time.time()
            lab.run("lhr-r", ["ip", "link", "set", "s2", "address", new])
            lab.wait(lambda: encapsulated(capture)[-1][1] == new, 10, "a frame to the new MAC")
            stale.append(max([when - changed for when, to, _ in encapsulated(capture) if to != new and when > changed],
                             default=0.0))
            traffic.goes_on()
    stream.kill()
    sent = encapsulated(capture)
    assert {to for _, to, _ in sent} <= {original, *STRANGE} and {source for _, _, source in sent} == {own}
    print(f"longest stale {max(stale):.3f} s, longest wait {traffic.end()} ms, {len(sent)} frames")
    assert max(stale) < SECONDS_TO_FRESH


def ways_to(lab, host: str, destination: str) -> tuple:
    """Captures of what lhr1 sends to the destination encapsulated, by each of its links."""
    sent = f"udp dst portrange 6078-6080 and src host {lab.topology.address(host)} and dst host {destination}"
    return tuple(lab.capture(node, dev, sent, 60) for node, dev, _ in backbone.sent_by(lab, host))


HANDED_ON = {"10.1.2.1": ("198.51.100.1", "4500"), "10.2.255.1": ("198.51.100.64", "2500")}


@pytest.mark.parametrize("neighbour", ["known", "unknown"])
@pytest.mark.parametrize("destination", HANDED_ON, ids=["host", "site"])
def test_a_route_that_changes_is_followed_by_whole_frames_only(lab, traffic, destination, neighbour):
    """What lhr1 hands on leaves by its other link, and back."""
    ends = lab.topology.neighbours("lhr1")
    right = [(backbone.mac(lab, other.node, other.dev), backbone.mac(lab, own.node, own.dev)) for own, other in ends]
    captures, stale = ways_to(lab, "lhr1", destination), []
    stream = lab.popen("web1", [PYTHON, "-c", STREAM, *HANDED_ON[destination]])
    other = [destination, "via", ends[1][1].ip, "dev", ends[1][0].dev, "metric", "5"]
    for now, verb in ((1, "add"), (0, "del")):
        if neighbour == "unknown":
            lab.run("lhr1", ["ip", "neigh", "flush", "dev", ends[now][0].dev])
        changed = time.time()
        lab.run("lhr1", ["ip", "route", verb, *other])
        lab.wait(lambda: any(when > changed for when, *_ in encapsulated(captures[now])), 10, "frames by the other link")
        stale.append(max([when - changed for when, *_ in encapsulated(captures[1 - now])], default=0.0))
        traffic.goes_on()
    stream.kill()
    waited = traffic.end()
    for capture, pair in zip(captures, right):
        capture.stop()
        assert {tuple(macs) for _, *macs in encapsulated(capture)} == {pair}
    print(f"stale {stale} s, longest wait {waited} ms")
    assert max(stale) < SECONDS_TO_FRESH


DOWN = {"carrier lost": ("lhr-r", "s1"), "interface down": ("lhr1", "eth0")}


@pytest.mark.parametrize("how", DOWN)
def test_a_link_that_goes_down_and_up_costs_no_connection(lab, traffic, how):
    """lhr1 loses one of its two links, and gets it again; its underlay address is on neither."""
    node, dev = DOWN[how]
    lab.run(node, ["ip", "link", "set", dev, "down"])
    traffic.goes_on()
    lab.run(node, ["ip", "link", "set", dev, "up"])
    bird.converge(lab.topology, lab.name)
    traffic.goes_on()
    waited = traffic.end()
    print(f"longest wait {waited} ms")
    lab.wait(lambda: all(uplink["present"] for uplink in backbone.status(lab, "lhr1")["uplinks"]), 5, "both uplinks")
