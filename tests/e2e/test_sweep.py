# SPDX-License-Identifier: MIT
"""The ledger against the kernel's own list of sockets, leaks that others cause, and what its memory is."""
import json
import re
import signal
import subprocess
import sys

import hostside
import pytest
from conftest import ONE_SITE

HOST = "lhr1"
CLAIM = ("protocol", "address", "port", "peer", "peer_port")
# Connects and binds in every way, most of it given back at once; says so, and holds the rest until told.
LOAD = """
import random, socket, sys
seed, n = int(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
kept = []
def tcp(port=80):
    one = socket.socket()
    one.setblocking(False)
    try:
        one.connect(('203.0.113.%d' % random.choice((2, 130)), port))
    except BlockingIOError:
        pass
    return one
def refused(): return tcp(9)
def udp():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(('203.0.113.2', random.randrange(1, 9)))
    return one
def moved():
    one = udp()
    try:
        one.connect(('203.0.113.130', random.randrange(1, 9)))
    except OSError as error:
        assert error.errno == 99    # its port is in use towards there; it stays where it was
    return one
def bound():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(('198.51.100.1', 0))
    return one
def listening():
    one = socket.socket()
    one.bind(('198.51.100.1', 0))
    one.listen()
    return one
for i in range(n):
    kept.append(random.choice((tcp, tcp, tcp, refused, udp, moved, bound, listening))())
    if len(kept) > 40:
        kept.pop(random.randrange(len(kept))).close()
kept = [one for one in kept if one.getsockname()[1]]
print('ready', flush=True)
sys.stdin.readline()
"""
NO_ROUTE = """
import socket, sys
one = socket.socket()
try:
    one.connect(('192.0.2.1', 80))
except OSError as error:
    print(error.errno, flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(ONE_SITE)
    lab.start_agents()
    hostside.apply(lab, hostside.dealt(lab))
    return lab


def program(lab, text: str, *args):
    return hostside.in_class(lab, HOST, [sys.executable, "-c", text, *map(str, args)], stdin=subprocess.PIPE)


def shown(lab) -> set:
    return {tuple(row[key] for key in CLAIM) for row in hostside.asked(lab, HOST, "show", "claims")}


def endpoint(text: str) -> tuple:
    address, port = text.rsplit(":", 1)
    address = address.split("%")[0].strip("[]").removeprefix("::ffff:")
    return (None, None) if port == "*" else (address, int(port))


def dumped(lab) -> set:
    """What `ss` says of sockets with a shared address; a port in TIME_WAIT with timestamps is free again."""
    found = set()
    for line in lab.run(HOST, ["ss", "-Htuan"]).stdout.splitlines():
        protocol, state, _, _, local, peer = line.split()[:6]
        if local.startswith("198.51.100.") and state != "TIME-WAIT":
            found.add((protocol, *endpoint(local), *endpoint(peer)))
    return found


def ledger(lab) -> dict:
    return hostside.status(lab, HOST)["ledger"]


def sweep(lab) -> tuple:
    said = hostside.cli(lab, HOST, "sweep", "--json", check=False)
    return said.returncode, json.loads(said.stdout)


def same(lab) -> bool:
    """Both may change between two looks, while connections end."""
    return shown(lab) == dumped(lab)


def restart(lab) -> None:
    """The first sweep comes half a minute after."""
    hostside.kill_agent(lab, HOST)
    lab.start_agents(hosts=[HOST])
    lab.wait(lambda: hostside.status(lab, HOST)["state"] == "attached", 5, "attached again")


def test_after_a_load_the_ledger_equals_the_kernels_sockets(lab):
    """No sweep ran meanwhile; half of the programs die by kill -9 in the middle."""
    restart(lab)
    load = [program(lab, LOAD, seed, 600) for seed in range(4)]
    for one in load:
        assert one.stdout.readline() == "ready\n", one.stderr.read()
    dead = [program(lab, LOAD, seed, 100000) for seed in range(4, 8)]
    before = hostside.counters(lab, HOST)["egress", "connect"]
    lab.wait(lambda: hostside.counters(lab, HOST)["egress", "connect"] > before + 500, 10, "the others connect")
    for one in dead:
        lab.run(HOST, ["kill", "-9", one.pid])
        one.communicate(timeout=5)
    lab.wait(lambda: same(lab), 10, "ledger and socket dump say the same")
    assert len(shown(lab)) > 60
    assert "swept_ms_ago" not in ledger(lab), "a sweep hid what this test is about"
    assert sweep(lab)[1]["freed"] == 0
    for one in load:
        one.communicate("go\n", timeout=5)
    lab.wait(lambda: shown(lab) == dumped(lab) == set(), 10, "every port is given back")
    assert sweep(lab) == (0, {"claims": 0, "freed": 0, "unsent": 0})


def test_leaks_that_others_cause_are_repaired_beside_live_sockets(lab):
    """The agent is killed and the hooks that give back are taken off; then programs die."""
    dying, living = program(lab, LOAD, 11, 300), program(lab, LOAD, 12, 300)
    assert dying.stdout.readline() == living.stdout.readline() == "ready\n"
    lab.wait(lambda: same(lab), 10, "connections that fail have failed")
    before = shown(lab)
    hostside.kill_agent(lab, HOST, signal.SIGKILL)
    for hook in ("hook-sock_release", "hook-sockops"):
        subprocess.run(["bpftool", "link", "detach", "pinned", hostside.pins(lab, HOST) / hook], check=True)
    lab.run(HOST, ["kill", "-9", dying.pid])
    dying.communicate(timeout=5)
    lab.wait(lambda: len(dumped(lab)) < len(before), 5, "the dead are gone")
    assert shown(lab) == before
    lab.start_agents(hosts=[HOST])
    lab.wait(lambda: not hostside.stands(lab, HOST), 5, "hooks stand again")
    alive = dumped(lab)
    code, said = sweep(lab)
    assert (code, said["freed"]) == (3, len(before - alive)) and said["freed"] > 10
    assert shown(lab) == alive and sweep(lab)[0] == 0
    assert ledger(lab)["leaks_repaired"] == said["freed"]
    assert hostside.counters(lab, HOST)["egress", "leak"] == said["freed"]
    told = [one for one in hostside.events(lab, HOST) if one["kind"] == "leak"]
    assert len(told) == 11 and f"{said['freed'] - 10} more ports" in told[-1]["text"]
    for one in told[:-1]:
        address, port = endpoint(one["source"])
        assert any(claim[:3] == (one["protocol"], address, port) for claim in before - alive)
        assert re.search(r"pool \w+", one["text"]) and one["pool"] != "none"
    living.communicate("go\n", timeout=5)
    lab.wait(lambda: shown(lab) == set(), 10, "the living give back themselves")


def test_a_connect_that_sent_nothing_is_counted_apart(lab):
    lab.run(HOST, ["ip", "route", "add", "unreachable", "192.0.2.0/24"])
    child = program(lab, NO_ROUTE)
    assert child.stdout.readline().strip() in ("113", "101")
    assert sweep(lab) == (0, {"claims": 1, "freed": 0, "unsent": 1})
    assert ledger(lab)["unsent"] == 1 and ledger(lab)["swept_ms_ago"] < 5000
    child.communicate("go\n", timeout=5)
    lab.run(HOST, ["ip", "route", "del", "unreachable", "192.0.2.0/24"])
    assert sweep(lab) == (0, {"claims": 0, "freed": 0, "unsent": 0})


def test_the_ledgers_memory_is_what_the_plan_says_and_changes_under_open_sockets(lab):
    text, child = hostside.dealt(lab), program(lab, LOAD, 21, 200)
    assert child.stdout.readline() == "ready\n"
    lab.wait(lambda: same(lab), 10, "connections that fail have failed")
    before, was = shown(lab), ledger(lab)
    assert was["memory_mib"] == 32 and was["pages_max"] == 8 * was["wide_pages_max"] == 131072
    assert was["claims"] == len(before) and 0 < was["pages"] <= len(before)
    hostside.apply(lab, text.replace(f"  {HOST}: {{site", f"  {HOST}: {{ledger_mib: 2, site", 1))
    lab.wait(lambda: ledger(lab)["memory_mib"] == 2, 5, "the plan is in force")
    now = ledger(lab)
    assert now["pages_max"] == 8192 and shown(lab) == before
    assert 28 << 20 < was["bytes"] - now["bytes"] < 29 << 20
    child.communicate("go\n", timeout=5)
    lab.wait(lambda: shown(lab) == set(), 10, "every port is given back")
    hostside.apply(lab, text)
