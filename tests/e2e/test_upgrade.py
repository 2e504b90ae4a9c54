# SPDX-License-Identifier: MIT
"""An agent that finds the pins of a version with other maps: no connection is lost, nothing leaks, none is refused."""
import signal
import subprocess
import sys
import time

import hostside
import pytest
from conftest import ONE_SITE
from hostside import WEB

HOST = "lhr1"
HOLD = """
import socket, sys
def stream(): return socket.create_connection(('203.0.113.2', 80), 5)
streams, datagram, bound = [stream() for _ in range(20)], socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
datagram.connect(('203.0.113.2', 7))
bound.bind(('198.51.100.1', 0))
ends = [one.getsockname() for one in (*streams, datagram, bound)]
print('ready', flush=True)
sys.stdin.readline()
for one in streams:
    one.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    assert b'200 OK' in one.recv(4096)
datagram.send(b'hello')
assert datagram.recv(100) == b'HELLO'
bound.connect(('203.0.113.2', 80))
assert ends == [one.getsockname() for one in (*streams, datagram, bound)]
print('well', flush=True)
"""
UPPER = """
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind(('203.0.113.2', 7))
while True:
    said, peer = one.recvfrom(100)
    one.sendto(said.upper(), peer)
"""


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(ONE_SITE)
    lab.start_agents()
    hostside.apply(lab, hostside.dealt(lab))
    lab.popen("web1", [sys.executable, "-c", UPPER])
    return lab


def claims(lab) -> int:
    return sum(row["claims"] for row in hostside.asked(lab, HOST, "show", "slices"))


def make_strange(lab, name: str) -> None:
    """The pin becomes a map of another layout, as another version would have left; the hooks keep theirs."""
    pin = hostside.pins(lab, HOST) / name
    pin.unlink()
    subprocess.run(["bpftool", "map", "create", pin, "type", "hash", "key", "8", "value", "24", "entries", "16", "name",
                    "strange"], check=True)


def test_an_agent_with_other_maps_takes_over_under_load(lab):
    holder = hostside.in_class(lab, HOST, [sys.executable, "-c", HOLD], stdin=subprocess.PIPE)
    assert holder.stdout.readline() == "ready\n" and claims(lab) == 22
    many = ["curl", "-s", "--rate", "100/s", "-H", "Connection: close", "-o", "/dev/null", "-w", "%{http_code}\n",
            "--max-time", "20", f"http://{WEB}/?[1-500]"]
    connects = hostside.counters(lab, HOST)["egress", "connect"]
    load = hostside.in_class(lab, HOST, many)
    lab.wait(lambda: hostside.counters(lab, HOST)["egress", "connect"] > connects, 5, "the load runs")
    for _ in range(3):
        hostside.kill_agent(lab, HOST, signal.SIGKILL)
        make_strange(lab, "pages")
        make_strange(lab, "egress-counters")
        time.sleep(0.2)    # a while without an agent, under load
        lab.start_agents(hosts=[HOST])
        lab.wait(lambda: hostside.status(lab, HOST)["state"] == "attached", 5, "attached again")
        assert not list(hostside.pins(lab, HOST).glob("old-*")) and not hostside.stands(lab, HOST)
        assert hostside.counters(lab, HOST)["egress", "seed"] >= 22
    said = load.communicate(timeout=30)
    assert said[0].split() == ["200"] * 500, said[1]
    lab.wait(lambda: claims(lab) == 22, 3, "the load's ports are given back")
    said = holder.communicate("go\n", timeout=10)
    assert said[0] == "well\n", said[1]
    lab.wait(lambda: claims(lab) == 0, 3, "every port is given back")


def test_programs_killed_amid_a_load_leave_no_port_behind(lab):
    """Half of them by kill -9, and an agent too; what the others asked for they get."""
    argv = ["curl", "-s", "--limit-rate", "2M", "-o", "/dev/null", "-w", "%{size_download}\n", "-r", f"0-{12 << 20}",
            "--parallel", "--parallel-immediate", f"http://{WEB}/large?[1-8]"]
    half = [hostside.in_class(lab, HOST, argv) for _ in range(8)]
    lab.wait(lambda: claims(lab) == 64, 5, "all are connected")
    for child in half[::2]:
        lab.run(HOST, ["kill", "-9", child.pid])
    hostside.kill_agent(lab, HOST)
    lab.start_agents(hosts=[HOST])
    lab.wait(lambda: claims(lab) <= 32, 5, "the dead have given back")
    for child in half[1::2]:
        assert child.communicate(timeout=30)[0].split() == [str((12 << 20) + 1)] * 8
    lab.wait(lambda: claims(lab) == 0, 5, "every port is given back")
