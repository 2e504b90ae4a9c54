# SPDX-License-Identifier: MIT
"""The agent dies, is taken off, is meddled with: connections live, and nothing is ever half done."""
import random
import re
import signal
import subprocess
import sys
import time

import pytest

import hostside
from conftest import ONE_SITE
from hostside import WEB

HOSTS = ("lhr1", "lhr2", "lhr3")

THEIR_FILTER = ["tc", "filter", "add", "dev", "eth0", "egress", "pref", "7", "bpf", "bytecode", "1,6 0 0 0"]

IDLE = """
import socket, sys
with socket.create_connection(('203.0.113.2', 80), 5) as wire:
    print(wire.getsockname()[0], flush=True)
    sys.stdin.readline()
    wire.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    print(b'200 OK' in wire.recv(4096), flush=True)
"""


@pytest.fixture(scope="module")
def lab(new_lab):
    """One site with agents and a plan in force on every host; each test leaves it so."""
    lab = new_lab(ONE_SITE)
    lab.baseline = hostside.snapshot(lab, "lhr1")
    lab.plan = hostside.dealt(lab)
    lab.start_agents()
    hostside.apply(lab, lab.plan)
    return lab


@pytest.fixture(autouse=True)
def all_well(lab):
    """What a test that failed left undone is not the next one's trouble."""
    hostside.end_all(lab)
    hostside.start_missing(lab)
    for host in HOSTS:
        if hostside.status(lab, host)["state"] == "detached":
            hostside.cli(lab, host, "attach")
    hostside.apply(lab, lab.plan)
    lab.wait(lambda: not hostside.stands(lab, "lhr1"), 3, "lhr1 stands")


def load(lab, host: str) -> dict:
    """Programs that use the host's slices all the while: short connections, a long download, one that waits."""
    many = ["curl", "-s", "--rate", "100/s", "-H", "Connection: close", "-o", "/dev/null", "-w", "%{http_code}\n",
            "--max-time", "20", f"http://{WEB}/?[1-600]"]
    running = {"many": hostside.in_class(lab, host, many),
               "long": hostside.in_class(lab, host, ["curl", "-s", "--limit-rate", "3M", "-o", "/dev/null", "-w",
                                                     "%{size_download}", "--max-time", "40",
                                                     "-r", f"0-{20 << 20}", f"http://{WEB}/large"]),
               "idle": hostside.in_class(lab, host, [sys.executable, "-c", IDLE], stdin=subprocess.PIPE)}
    assert running["idle"].stdout.readline().startswith("198.51.100.")
    return running


def moved(text: str) -> str:
    """The plan with lhr1's slice of the first address given to lhr2."""
    changed = re.sub(r"198\.51\.100\.1: \{ lhr1: 1, lhr2: 2,", '198.51.100.1: { lhr1: 4, lhr2: "1-2",', text)
    assert changed != text
    return changed


def test_an_agent_stopped_or_killed_under_load_loses_no_connection(lab):
    running, before = load(lab, "lhr1"), hostside.link_ids(lab, "lhr1")
    counted = hostside.counters(lab, "lhr1")
    for how in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
        hostside.kill_agent(lab, "lhr1", how)
        assert not hostside.stands(lab, "lhr1")
        time.sleep(0.3)  # a while without an agent, under load
        lab.start_agents(hosts=["lhr1"])
        lab.wait(lambda: hostside.status(lab, "lhr1")["state"] == "attached", 3, "attached again")
        assert hostside.link_ids(lab, "lhr1") == before
        lab.wait(lambda: hostside.counters(lab, "lhr1")["egress", "connect"] > counted["egress", "connect"], 2,
                 "the counters go on")
        now = hostside.counters(lab, "lhr1")
        assert all(now[key] >= counted[key] for key in counted)
        counted = now
        refused = hostside.apply(lab, moved(lab.plan), check=False)
        assert refused.returncode == 2 and "lhr1 refuses: slice 198.51.100.1:2048-4095 is in use by lhr1" in refused.stderr
    running["idle"].stdin.write("\n")
    said = {name: child.communicate(timeout=40) for name, child in running.items()}
    assert said["many"][0].split() == ["200"] * 600
    assert said["long"][0] == str((20 << 20) + 1)
    assert said["idle"][0].strip() == "True"
    lab.wait(lambda: sum(row["claims"] for row in hostside.asked(lab, "lhr1", "show", "slices")) == 0, 3,
             "every port is given back")


def test_other_hosts_refuse_a_plan_too_that_takes_a_slice_in_use(lab):
    idle = hostside.in_class(lab, "lhr1", [sys.executable, "-c", IDLE], stdin=subprocess.PIPE)
    assert idle.stdout.readline().startswith("198.51.100.")
    lab.wait(lambda: any(peer["name"] == "lhr1" and peer["slices_in_use"] == 1
                         for peer in hostside.status(lab, "lhr2")["peers"]), 3, "lhr2 hears of it")
    refused = hostside.apply(lab, moved(lab.plan), check=False)
    assert refused.returncode == 2 and "lhr2 refuses: slice 198.51.100.1:2048-4095 is in use by lhr1" in refused.stderr
    idle.communicate("\n", timeout=10)
    def heard():
        return all(peer["slices_in_use"] == 0 for peer in hostside.status(lab, "lhr2")["peers"])
    lab.wait(heard, 4, "lhr2 hears that it is over")
    hostside.apply(lab, moved(lab.plan))
    assert hostside.fetch(lab, "lhr2").startswith("198.51.100.1:")
    hostside.apply(lab, lab.plan)


@pytest.mark.parametrize("daemon", ["with", "without"])
def test_detach_restores_the_host_exactly_and_attach_brings_it_back(lab, daemon):
    if daemon == "without":
        hostside.kill_agent(lab, "lhr1")
    hostside.cli(lab, "lhr1", "detach")
    assert hostside.snapshot(lab, "lhr1") == lab.baseline
    if daemon == "with":
        assert hostside.status(lab, "lhr1")["state"] == "detached"
        assert hostside.cli(lab, "lhr1", "attach").stdout == "attached\n"
    else:
        assert not hostside.run_dir(lab, "lhr1").exists()
        lab.start_agents(hosts=["lhr1"])
        lab.wait(lambda: hostside.status(lab, "lhr1")["state"] == "attached", 3, "attached")
    assert not hostside.stands(lab, "lhr1")
    assert hostside.fetch(lab, "lhr1").startswith("198.51.100.1:")


def test_settings_changed_between_detach_and_attach_are_those_restored(lab):
    """The journal starts anew with each attach."""
    hostside.cli(lab, "lhr1", "detach")
    lab.run("lhr1", ["sysctl", "-w", "net.ipv4.conf.eth0.arp_announce=1"])
    lab.run("lhr1", ["tc", "qdisc", "add", "dev", "eth0", "clsact"])
    lab.run("lhr1", THEIR_FILTER)
    theirs = hostside.snapshot(lab, "lhr1")
    hostside.cli(lab, "lhr1", "attach")
    hostside.cli(lab, "lhr1", "detach")
    assert hostside.snapshot(lab, "lhr1") == theirs
    lab.run("lhr1", ["tc", "qdisc", "del", "dev", "eth0", "clsact"])
    lab.run("lhr1", ["sysctl", "-w", "net.ipv4.conf.eth0.arp_announce=0"])
    assert hostside.snapshot(lab, "lhr1") == lab.baseline
    hostside.cli(lab, "lhr1", "attach")


def test_a_filter_that_others_put_into_our_qdisc_survives_detach(lab):
    lab.run("lhr1", THEIR_FILTER)
    hostside.cli(lab, "lhr1", "detach")
    left = hostside.snapshot(lab, "lhr1")
    assert "pref 7 bpf" in left["filter"] and "ps_guard" not in left["filter"]
    lab.run("lhr1", ["tc", "qdisc", "del", "dev", "eth0", "clsact"])
    hostside.cli(lab, "lhr1", "attach")


def test_killed_at_random_moments_it_leaves_nothing_that_detach_or_a_new_agent_cannot_mend(lab):
    """During start and first apply, attach, detach, and a change of plan."""
    chance = random.Random(2)
    wider = lab.plan.replace("lhr1: 1, lhr2", 'lhr1: "1,9", lhr2')
    for verb in ("start", "attach", "detach", "apply") * 3:
        if verb == "start":
            hostside.kill_agent(lab, "lhr1")
            hostside.cli(lab, "lhr1", "detach")
            child = hostside.daemon(lab, "lhr1")
            time.sleep(chance.uniform(0, 0.25))
            hostside.end(child)
        else:
            if verb == "attach":
                hostside.cli(lab, "lhr1", "detach")
            file = lab.state / "wider.yaml"
            file.write_text(wider)
            told = ["plan", "apply", file] if verb == "apply" else [verb]
            child = lab.popen("lhr1", [hostside.binary("portslice"), "--store", hostside.agents.store(lab.name), *told],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(chance.uniform(0, 0.15))
            hostside.kill_agent(lab, "lhr1")
            child.kill()  # `plan apply` would wait for the agent to come back
            child.wait(5)
        if chance.random() < 0.5:
            hostside.cli(lab, "lhr1", "detach")
            assert hostside.snapshot(lab, "lhr1") == lab.baseline, verb
        lab.start_agents(hosts=["lhr1"])
        lab.wait(lambda: hostside.status(lab, "lhr1")["state"] == "attached", 4, f"attached after {verb}")
        lab.wait(lambda: not hostside.stands(lab, "lhr1"), 2, f"all in order after {verb}")
        hostside.apply(lab, lab.plan)
    assert hostside.fetch(lab, "lhr1").startswith("198.51.100.1:")


MEDDLE = {
    "local routes": ["sh", "-c", "ip route show table local proto 190 | while read r; do ip route del table local $r; done"],
    "sysctls": ["sysctl", "-w", "net.ipv4.conf.eth0.arp_ignore=0", "net.ipv4.conf.eth0.arp_announce=0"],
    "guards": ["tc", "qdisc", "del", "dev", "eth0", "clsact"],
    "guards, the filter alone": ["tc", "filter", "del", "dev", "eth0", "egress"],
    "dispatchers": ["sh", "-c", "bpftool link detach pinned {pins}/uplink-eth0"],
    "cgroup hooks": ["sh", "-c", "bpftool link detach pinned {pins}/hook-connect4"],
    "cgroup hooks, the pins": ["sh", "-c", "rm {pins}/hook-*"],
}


@pytest.mark.parametrize("what", MEDDLE)
def test_what_others_remove_is_put_back_and_said(lab, what):
    told = len(hostside.events(lab, "lhr1"))
    lab.run("lhr1", [word.format(pins=hostside.pins(lab, "lhr1")) for word in MEDDLE[what]])
    lab.wait(lambda: not hostside.stands(lab, "lhr1"), 2, f"{what} restored")
    lab.wait(lambda: any(event["kind"] == "restored" and event["text"].startswith(what.split(",")[0] + ": ")
                         for event in hostside.events(lab, "lhr1")[told:]), 1, "said so")
    assert hostside.fetch(lab, "lhr1").startswith("198.51.100.1:")


def test_a_cgroup_of_a_class_that_was_removed_is_made_anew(lab):
    (lab.cgroup("lhr1") / "portslice" / "ie").rmdir()
    lab.wait(lambda: "cgroup_moved" in [event["kind"] for event in hostside.events(lab, "lhr1")], 3, "said so")
    lab.wait(lambda: hostside.fetch(lab, "lhr1", ["--class", "ie"]).startswith("198.51.100.128:"), 5, "it serves")


def test_detach_leaves_the_cgroup_of_a_program_that_runs(lab):
    sleeper = hostside.in_class(lab, "lhr1", ["sleep", "60"])
    group = lab.cgroup("lhr1") / "portslice" / "gb"
    lab.wait(lambda: str(sleeper.pid) in (group / "cgroup.procs").read_text().split(), 3, "it runs")
    hostside.cli(lab, "lhr1", "detach")
    left = hostside.snapshot(lab, "lhr1")
    assert str(group) in left.pop("groups") and sleeper.poll() is None
    assert left == {key: value for key, value in lab.baseline.items() if key != "groups"}
    hostside.end(sleeper)
    group.rmdir()
    group.parent.rmdir()
    hostside.cli(lab, "lhr1", "attach")


def test_the_guard_stops_forged_packets_but_not_those_that_bypass_the_qdisc(lab):
    """The boundary that doc/operations.md tells of: a privileged program can evade the guard."""
    forge = "import socket, sys\nfrom scapy.all import Ether, IP, UDP\n" \
            "wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); wire.bind(('eth0', 0))\n" \
            "wire.setsockopt(263, 20, int(sys.argv[1]))  # SOL_PACKET, PACKET_QDISC_BYPASS\n" \
            "wire.send(bytes(Ether(dst='ff:ff:ff:ff:ff:ff') / IP(src='198.51.100.1', dst='203.0.113.6') / " \
            "UDP(sport=5000 + int(sys.argv[1]), dport=9)))"
    with lab.capture("lhr-r", "s1", "udp and src host 198.51.100.1") as wire:
        for bypass in "01":
            lab.run("lhr1", ["/usr/bin/python3", "-c", forge, bypass], check=bypass == "1")
    assert wire.count("src port 5000") == 0 and wire.count("src port 5001") == 1


def test_an_uplink_set_down_and_up_works_again(lab):
    lab.run("lhr1", ["sh", "-c", "r=$(ip route show default); ip link set eth0 down; ip link set eth0 up; "
                     "ip route replace $r"])
    lab.wait(lambda: hostside.fetch(lab, "lhr1").startswith("198.51.100.1:"), 5, "traffic flows")


def test_an_uplink_that_goes_and_comes_is_taken_up_again(lab):
    """As a network reload or a driver update does it. The other end needs its own settings again."""
    own, router = lab.topology.uplink("lhr1")
    mac = lab.run(router.node, ["ip", "-br", "link", "show", router.dev]).stdout.split()[2]
    default = lab.run("lhr1", ["ip", "route", "show", "default"]).stdout.strip()
    to_shared = lab.run(router.node, ["ip", "route", "show", "198.51.100.0/24"]).stdout.replace("\n", " ").strip()
    hostside.subprocess.run(["ip", "-n", lab.netns("lhr1"), "link", "del", own.dev], check=True)
    lab.wait(lambda: "uplink_gone" in [event["kind"] for event in hostside.events(lab, "lhr1")], 2, "said so")
    assert hostside.status(lab, "lhr1")["state"] == "attached" and not hostside.status(lab, "lhr1")["host_trouble"]
    refused = hostside.apply(lab, lab.plan.replace("lhr3: 3", 'lhr3: "3,8"'), check=False)
    assert refused.returncode == 2 and "uplink `eth0` of host `lhr1` does not exist here" in refused.stderr
    lab.run("lhr1", ["sh", "-c", f"""set -e
        ip link add {own.dev} type veth peer name {router.dev} netns /run/netns/{lab.netns(router.node)}
        ip addr add {own.address} dev {own.dev}; ip link set {own.dev} up; ip route replace {default}
        ethtool -K {own.dev} tx off >/dev/null"""])
    pin = f"/sys/fs/bpf/{lab.name}_pass"
    lab.run(router.node, ["sh", "-c", f"""set -e
        ip link set {router.dev} address {mac}; ip addr add {router.address} dev {router.dev}; ip link set {router.dev} up
        ethtool -K {router.dev} tx off >/dev/null
        bpftool prog load {lab.state}/pass.bpf.o {pin}; ip link set {router.dev} xdp pinned {pin}; rm {pin}
        ip route replace {to_shared}"""])
    lab.wait(lambda: not hostside.stands(lab, "lhr1"), 2, "everything stands on the new uplink")
    lab.wait(lambda: "uplink_back" in [event["kind"] for event in hostside.events(lab, "lhr1")], 1, "said so")
    lab.wait(lambda: hostside.fetch(lab, "lhr1").startswith("198.51.100.1:"), 5, "traffic flows")


def test_an_agent_restarted_without_its_uplink_address_keeps_the_data_path(lab):
    """The address comes back seconds later, as after a network reload; connections must not pay for it."""
    before = hostside.link_ids(lab, "lhr1")
    idle = hostside.in_class(lab, "lhr1", [sys.executable, "-c", IDLE], stdin=subprocess.PIPE)
    assert idle.stdout.readline().startswith("198.51.100.")
    hostside.kill_agent(lab, "lhr1")
    own = lab.topology.uplink("lhr1")[0]
    default = lab.run("lhr1", ["ip", "route", "show", "default"]).stdout.strip()
    lab.run("lhr1", ["ip", "addr", "del", own.address, "dev", own.dev])
    lab.start_agents(hosts=["lhr1"])
    lab.wait(lambda: "cannot listen on underlay address 10.1.1.1" in (hostside.status(lab, "lhr1")["refusal"] or ""), 3,
             "said why")
    assert hostside.link_ids(lab, "lhr1") == before
    lab.run("lhr1", ["sh", "-c", f"ip addr add {own.address} dev {own.dev}; ip route replace {default}"])
    lab.wait(lambda: hostside.status(lab, "lhr1")["state"] == "attached", 3, "attached")
    assert idle.communicate("\n", timeout=10)[0].strip() == "True"


def test_an_agent_that_observes_counts_and_changes_nothing(lab):
    hostside.kill_agent(lab, "lhr1")
    hostside.cli(lab, "lhr1", "detach")
    before = hostside.settings(lab, "lhr1")
    lab.start_agents(hosts=["lhr1"], extra=["--observe"])
    lab.wait(lambda: hostside.status(lab, "lhr1")["state"] == "observing", 3, "observing")
    asks = "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, 36, 1); s.settimeout(1)\n" \
           "print(s.connect_ex(('10.1.255.1', 9)), end=' ')\n" \
           "s.close(); s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, 36, 1); s.settimeout(0.2)\n" \
           "print(s.connect_ex(('203.0.113.2', 80)), s.getsockname()[0])"
    said = lab.run("lhr1", [sys.executable, "-c", asks], cgroup=lab.cgroup("lhr1")).stdout.split()
    assert said[0] == "111" and said[2] == "10.1.1.1"
    asks_shared = "import socket\nfor p in range(4000, 4300):\n s = socket.socket(); s.setblocking(False)\n" \
                  " s.connect_ex(('198.51.100.1', p))"
    lab.run("client1", [sys.executable, "-c", asks_shared])
    now = hostside.counters(lab, "lhr1")
    assert now["egress", "connect"] >= 1 and now["egress", "direct"] >= 1
    assert sum(n for (part, _), n in now.items() if part == "dispatch") > 0
    assert hostside.settings(lab, "lhr1") == before
    hostside.kill_agent(lab, "lhr1", signal.SIGTERM)
    lab.start_agents(hosts=["lhr1"])
    lab.wait(lambda: hostside.status(lab, "lhr1")["state"] == "attached", 3, "attached")


def test_seventy_plans_later_nothing_has_leaked(lab):
    other = lab.plan.replace("lhr3: 3", 'lhr3: "3,8"')
    pid = lab.agent_pid("lhr1")
    lab.stop_agents(["lhr2", "lhr3"])  # a third of the time

    def size() -> dict:
        kib = re.search(r"VmRSS:\s+(\d+)", hostside.Path(f"/proc/{pid}/status").read_text())
        held = {what: subprocess.run(["bpftool", what], capture_output=True, text=True).stdout.count("  name ")
                for what in ("prog", "map")}
        return {"rss_kib": int(kib[1]), "fds": len(list(hostside.Path(f"/proc/{pid}/fd").iterdir())), **held}

    for text in (other, lab.plan) * 5:
        hostside.apply(lab, text)
    before = size()
    for text in (other, lab.plan) * 30:
        hostside.apply(lab, text)
    after = size()
    assert after["fds"] <= before["fds"] + 2, (before, after)
    assert after["rss_kib"] < before["rss_kib"] + 1024, (before, after)
    # Other labs may load programs meanwhile, and the kernel frees late; one kept for each plan would be 60.
    lab.wait(lambda: all(size()[what] < before[what] + 40 for what in ("prog", "map")), 10, f"freed ({before})")
