# SPDX-License-Identifier: MIT
"""The lab itself: it carries traffic as said, shows the problem portslice solves, and leaves nothing behind."""
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import agents
import bird
import net
import place
import process
from conftest import ONE_SITE, REPO, TWO_SITES, fresh_name
from lab import Lab, LabError
from topology import TopologyError, load

WEB1, WEB2, DNS = "203.0.113.2", "203.0.113.130", "203.0.113.6"
SHARED = "198.51.100.0/24"
COMMAND = [sys.executable, str(REPO / "lab" / "lab.py")]

SEND = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.sendto(b'x', (sys.argv[1], 9))
"""

CONNECT = """
import select, socket, sys
host, first, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
open_, poll, ok = {}, select.poll(), 0
for port in range(first, first + n):
    wire = socket.socket()
    wire.setblocking(False)
    wire.bind(('198.51.100.7', port))
    wire.connect_ex((host, 80))
    open_[wire.fileno()] = wire
    poll.register(wire, select.POLLOUT)
while open_ and (ready := poll.poll(700)):
    for fd, _ in ready:
        poll.unregister(fd)
        with open_.pop(fd) as wire:
            ok += wire.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
print(ok)
"""

BOUNCE = """
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#define SWAP(a, b) do { __typeof__(a) was = a; a = b; b = was; } while (0)
SEC("xdp") int bounce(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (eth->h_proto != bpf_htons(ETH_P_IP) || ip->protocol != 17 || udp->dest != bpf_htons(7))
		return XDP_PASS;
	for (int i = 0; i < ETH_ALEN; i++)
		SWAP(eth->h_source[i], eth->h_dest[i]);
	SWAP(ip->saddr, ip->daddr);
	SWAP(udp->source, udp->dest);
	return XDP_TX;
}
char _license[] SEC("license") = "GPL";
"""

ECHOED = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
    wire.settimeout(2)
    wire.connect((sys.argv[1], 7))
    for n in range(20):
        wire.send(b'packet %d' % n)
        assert wire.recv(100) == b'packet %d' % n
"""


def python(lab, node, script, *args):
    return lab.run(node, ["/usr/bin/python3", "-c", script, *args]).stdout


def curl(lab, node, url, *options, **more):
    return lab.run(node, ["curl", "-sS", "-m", "5", *options, url], **more)


def strays(name):
    """Processes that still speak of this lab."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if int(entry) != os.getpid() and (name in words or any(f"/portslice-lab/{name}/" in word for word in words)):
            found.append((int(entry), words))
    return found


def nothing_left(name):
    return not place.traces(name) and not strays(name)


def wait_gone(name):
    Lab.wait(lambda: nothing_left(name), 10, f"lab {name} to be gone")


# -- traffic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["lab", "small_lab"])
def test_a_client_gets_pages_and_the_log_names_it(which, request):
    lab = request.getfixturevalue(which)
    mine = lab.topology.address("client1")
    assert curl(lab, "client1", f"http://{WEB1}/").stdout.startswith(f"{mine}:")
    size = curl(lab, "client1", f"http://{WEB1}/large", "-o", "/dev/null", "-w", "%{size_download}").stdout
    assert int(size) == 64 << 20
    lines = (lab.state / "web1" / "access.log").read_text().splitlines()
    assert lines and all(line.split()[0] == mine and line.split()[2:] == [WEB1, "200"] for line in lines)


@pytest.mark.parametrize("which, source, hosts", [
    ("lab", "web1", ["lhr1", "lhr2", "lhr3"]), ("lab", "client1", ["cdg1", "cdg2", "cdg3"]),
    ("small_lab", "web1", ["lhr1", "lhr2", "lhr3"])])
def test_flows_to_the_shared_prefix_spread_over_the_hosts_of_the_near_site(which, source, hosts, request):
    lab = request.getfixturevalue(which)
    captures = [lab.capture(host, "eth0", "udp and port 9") for host in hosts]
    python(lab, source, SEND, "198.51.100.77", 300)
    counts = [(capture.stop(), capture.count())[1] for capture in captures]
    assert sum(counts) == 300 and min(counts) > 50, counts


def test_the_name_server_knows_the_web_servers(lab):
    for name, address in (("web1.lab", WEB1), ("web2.lab", WEB2)):
        assert lab.run("client1", ["dig", "+short", "+tcp", f"@{DNS}", name]).stdout.strip() == address


def test_the_silent_network_never_answers(lab):
    with lab.capture("silent", "eth0", "net 100.96.0.0/20") as wire:
        assert curl(lab, "client1", "http://100.96.3.4/", "-m", "1", check=False).returncode == 28
    assert wire.count("dst 100.96.3.4") >= 1 and wire.count("src net 100.96.0.0/20") == 0


def test_sites_reach_each_other_over_the_backbone_only(lab):
    server = lab.popen("cdg1", ["/usr/bin/python3", "-m", "http.server", "8000"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with lab.capture("lhr-r", "bb", "tcp port 8000") as bb, lab.capture("isp-l", "any", "net 10.0.0.0/8") as outside:
        lab.wait(lambda: curl(lab, "lhr1", "http://10.2.1.1:8000/", check=False).returncode == 0, 5, "an answer")
    server.kill()
    assert bb.count() >= 10 and outside.count("tcp port 8000") == 0
    assert not [prefix for prefix in net.routes(lab.name, "isp-l") if prefix.startswith("10.")]


def test_each_host_answers_for_the_edge_address_of_its_site(lab):
    for host in lab.topology.hosts:
        edge = lab.topology.sites[lab.topology.nodes[host].site]
        assert lab.run(host, ["ip", "route", "get", edge]).stdout.startswith(f"local {edge}")


def test_hosts_keep_the_default_port_range_and_own_no_shared_address(lab):
    assert lab.run("lhr1", ["cat", "/proc/sys/net/ipv4/ip_local_port_range"]).stdout.split() == ["32768", "60999"]
    assert lab.run("lhr1", ["cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter"]).stdout.strip() == "0"
    assert "198.51.100" not in lab.run("lhr1", ["ip", "route", "show", "table", "all"]).stdout


@pytest.mark.parametrize("which, peers", [("lab", ["lhr2", "cdg2"]), ("small_lab", ["lhr2"])])
def test_what_xdp_sends_back_out_of_a_host_arrives(which, peers, request, tmp_path):
    """In the lab without BGP nothing else would wake the router's end of the link."""
    lab = request.getfixturevalue(which)
    (tmp_path / "bounce.c").write_text(BOUNCE)
    subprocess.run(net.compile_bpf(tmp_path / "bounce.c", tmp_path / "bounce.o"), check=True)
    pin = place.pass_pin(lab.name)
    net.pin_bpf(tmp_path / "bounce.o", pin)
    lab.run("lhr1", ["ip", "link", "set", "eth0", "xdp", "pinned", pin])
    pin.unlink()
    for peer in peers:
        python(lab, peer, ECHOED, "10.1.1.1")
    lab.run("lhr1", ["ip", "link", "set", "eth0", "xdp", "off"])


# -- the problem --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target, node, first_port, most", [(WEB1, "web1", 10240, 0.45), (WEB2, "web2", 20480, 0)])
def test_without_a_dispatcher_most_connections_die(lab, target, node, first_port, most):
    """With three hosts the near site's router brings one reply in three to the right one; the far site's, none."""
    total = 600
    for host in lab.topology.hosts:
        lab.run(host, ["ip", "route", "add", "local", SHARED, "dev", "lo"])
    with lab.capture(node, "eth0", "tcp port 80") as wire:
        ok = int(python(lab, "lhr1", CONNECT, target, first_port, total))
    for host in lab.topology.hosts:
        lab.run(host, ["ip", "route", "del", "local", SHARED, "dev", "lo"])
    resets = wire.count("tcp[tcpflags] & tcp-rst != 0 and src 198.51.100.7")
    assert wire.dropped == 0
    assert (0.2 * total < ok < most * total) if most else ok == 0
    assert resets >= total - ok, "every lost connection was reset by a host that does not know it"


# -- hosts die ----------------------------------------------------------------------------------------------------


def test_a_killed_host_is_routed_around_within_a_second_and_others_go_on(new_lab):
    lab = new_lab()
    before = net.routes(lab.name, "lhr-r")
    assert before[SHARED] == {"s1", "s2", "s3"}
    lab.kill_host("lhr2")
    lab.wait(lambda: net.routes(lab.name, "lhr-r")[SHARED] == {"s1", "s3"}, 1, "BFD to notice")
    assert json.loads(lab.run("lhr-r", ["ip", "-j", "link", "show", "s2"]).stdout)[0]["operstate"] == "UP"
    captures = [lab.capture(host, "eth0", "udp and port 9") for host in ("lhr1", "lhr3")]
    python(lab, "web1", SEND, "198.51.100.77", 100)
    assert sum((capture.stop(), capture.count())[1] for capture in captures) == 100
    for host in ("lhr1", "lhr3", "cdg1"):
        assert bird.sessions(lab.name, host) == [{"peer": "eth0", "bgp": "Established", "bfd": "Up"}]


def test_a_killed_host_loses_its_programs_and_says_no_more(new_lab):
    lab = new_lab(ONE_SITE)
    child = lab.popen("lhr1", ["sleep", "60"], cgroup=lab.cgroup("lhr1"))
    lab.kill_host("lhr1")
    assert child.wait(5) == -signal.SIGKILL
    with lab.capture("lhr-r", "s1") as wire:
        assert curl(lab, "client1", "http://10.1.1.1/", "-m", "1", check=False).returncode == 28
    assert wire.count("src 10.1.1.1") == 0


# -- labs live and die alone --------------------------------------------------------------------------------------


def test_labs_side_by_side_do_not_see_each_other(small_lab, new_lab):
    other = new_lab(ONE_SITE)
    before = len((small_lab.state / "web1" / "access.log").read_text().splitlines())
    curl(other, "client1", f"http://{WEB1}/")
    other.down()
    assert nothing_left(other.name)
    curl(small_lab, "client1", f"http://{WEB1}/")
    assert len((small_lab.state / "web1" / "access.log").read_text().splitlines()) == before + 1


def test_a_name_in_use_is_refused_and_that_lab_is_left_in_peace(small_lab):
    with pytest.raises(LabError, match="is there already"):
        Lab.up(ONE_SITE, small_lab.name)
    assert curl(small_lab, "client1", f"http://{WEB1}/").returncode == 0


@pytest.mark.parametrize("moment", ["claimed", "namespaces", "daemons"])
def test_kill_9_of_up_in_the_middle_leaves_nothing(can_lab, moment):
    name = fresh_name()
    reached = {"claimed": lambda: place.state(name).exists(),
               "namespaces": lambda: len(place.all_netns(name)) >= 3,
               "daemons": lambda: list(place.state(name).glob("*/bird.pid"))}[moment]
    up = subprocess.Popen([*COMMAND, "up", "--name", name], stdout=subprocess.DEVNULL)
    Lab.wait(reached, 10, moment)
    assert up.poll() is None
    up.kill()
    up.wait()
    wait_gone(name)


def test_kill_9_of_the_guardian_in_the_middle_leaves_nothing(can_lab):
    name = fresh_name()
    up = subprocess.Popen([*COMMAND, "up", "--name", name], stderr=subprocess.PIPE, text=True)
    Lab.wait(lambda: len(place.all_netns(name)) >= 3, 10, "namespaces")
    os.kill(int((place.state(name) / "guardian.pid").read_text()), signal.SIGKILL)
    assert up.wait(10) == 1 and "guardian died" in up.stderr.read()
    assert nothing_left(name)


def test_kill_9_of_the_owner_takes_everything_along(can_lab):
    name = fresh_name()
    owner = subprocess.Popen(["sleep", "600"])
    subprocess.run([*COMMAND, "up", "--name", name, "--with", str(owner.pid), "--topology", ONE_SITE], check=True)
    lab = Lab.open(name)
    (place.PINS / f"{name}-lhr1").mkdir(parents=True)
    (place.SOCKETS / f"{name}-lhr1").mkdir(parents=True)
    (lab.cgroup("lhr1") / "deep" / "er").mkdir(parents=True)
    child = lab.popen("lhr1", ["setsid", "sleep", "600"], cgroup=lab.cgroup("lhr1") / "deep" / "er")
    assert child.poll() is None and not nothing_left(name)
    owner.kill()
    owner.wait()
    child.wait(10)
    wait_gone(name)


def test_an_owner_that_is_dead_already_gets_no_lab(can_lab):
    name = fresh_name()
    dead = subprocess.Popen(["true"])
    dead.wait()
    with pytest.raises(LabError, match="No such process"):
        Lab.up(ONE_SITE, name, with_pid=dead.pid)
    assert nothing_left(name)


def test_down_needs_the_name_only_and_may_be_said_twice(can_lab):
    name = fresh_name()
    lab = Lab.up(ONE_SITE, name)
    lab.popen("lhr1", ["sleep", "600"])
    outside = subprocess.Popen(["nsenter", f"--net={place.netns(name, 'lhr2')}", "sleep", "600"])
    for damaged in lab.state.rglob("*.pid"):
        damaged.write_text("nonsense")
    (lab.state / "topology.yaml").write_text("]")
    assert subprocess.run([*COMMAND, "status", "--name", name], capture_output=True).returncode == 1
    for _ in range(2):
        subprocess.run([*COMMAND, "down", "--name", name], check=True)
        assert nothing_left(name)
    assert outside.wait(5) == -signal.SIGKILL
    lab.down()


def test_a_build_that_fails_says_why_and_leaves_nothing(can_lab, tmp_path):
    name = fresh_name()
    broken = tmp_path / "broken.yaml"
    broken.write_text(ONE_SITE.read_text().replace("web1:eth0", "web1:name-that-is-too-long"))
    with pytest.raises(LabError, match="name-that-is-too-long"):
        Lab.up(broken, name)
    assert nothing_left(name)


# -- library and command ------------------------------------------------------------------------------------------


def test_a_command_that_fails_or_hangs_is_an_error_that_names_it(small_lab):
    with pytest.raises(LabError, match="lhr1: false: exit 1"):
        small_lab.run("lhr1", ["false"])
    with pytest.raises(LabError, match="not done within 0.2 s"):
        small_lab.run("lhr1", ["sleep", "5"], timeout=0.2)
    with pytest.raises(LabError, match="has no node lhr9"):
        small_lab.run("lhr9", ["true"])
    with pytest.raises(LabError, match=r"the moon: not within 0.1 s \(last: None\)"):
        small_lab.wait(lambda: None, 0.1, "the moon")


def test_exec_enters_namespace_group_and_instance_of_a_host(small_lab):
    script = "ip -br addr show eth0; tail -1 /proc/self/cgroup; echo $PORTSLICE_INSTANCE"
    done = subprocess.run([*COMMAND, "exec", "--name", small_lab.name, "lhr2", "--", "sh", "-c", script],
                          capture_output=True, text=True, check=True).stdout
    assert "10.1.2.1/31" in done and f"/portslice-lab/{small_lab.name}/lhr2\n" in done
    assert done.endswith(f"{small_lab.name}-lhr2\n")
    daemons = small_lab.run("lhr2", ["tail", "-1", "/proc/self/cgroup"]).stdout
    assert daemons.strip().endswith(f"/{small_lab.name}/{process.LAB_GROUP}")


def test_status_and_list_show_the_lab(lab):
    rows = json.loads(subprocess.run([*COMMAND, "status", "--json", "--name", lab.name], capture_output=True,
                                     check=True).stdout)
    by_name = {row["node"]: row for row in rows}
    assert by_name["lhr-r"]["routes"][SHARED] == ["s1", "s2", "s3"] and by_name["lhr1"]["agent_pid"] is None
    assert all(session["bgp"] == "Established" and session["bfd"] == "Up"
               for row in rows for session in row["sessions"])
    listed = subprocess.run([*COMMAND, "list", "--json"], capture_output=True, check=True).stdout
    assert lab.name in json.loads(listed)


AGENT = """#!/bin/sh
echo "$PORTSLICE_INSTANCE $*" >>"{out}/agent-args"
trap 'exit 0' TERM
[ ! -e "{out}/broken" ] || {{ echo no such luck >&2; exit 1; }}
touch "{out}/ready-$2"
while sleep 0.05; do :; done
"""
CLI = """#!/bin/sh
echo "$*" >>"{out}/cli-args"
[ "$3" != status ] || [ -e "{out}/ready-$2" ] || exit 4
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Programs that only note how they are called: what is tested is the lab's side of the bargain."""
    for path, text in (("src/agent/portsliced", AGENT), ("src/cli/portslice", CLI)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text.format(out=tmp_path))
        (tmp_path / path).chmod(0o755)
    monkeypatch.setenv("BUILD", str(tmp_path))
    return tmp_path


def test_agents_start_with_their_instance_store_and_group_and_stop(small_lab, stand_in):
    lab = small_lab
    lab.start_agents(extra=["--observe"])
    told = sorted((stand_in / "agent-args").read_text().splitlines())
    assert told[0] == (f"{lab.name}-lhr1 --instance {lab.name}-lhr1 --host lhr1 "
                       f"--store sqlite:/run/portslice-lab/{lab.name}/store/store.db "
                       f"--cgroup {lab.cgroup('lhr1')} --observe")
    assert len(told) == 3 and all(lab.agent_pid(host) for host in lab.topology.hosts)
    lab.portslice("lhr2", "show", "slices")
    assert "show slices" in (stand_in / "cli-args").read_text()
    lab.stop_agents()
    assert not any(lab.agent_pid(host) for host in lab.topology.hosts)


def test_an_agent_that_does_not_start_is_told_with_the_end_of_its_log(small_lab, stand_in):
    (stand_in / "broken").touch()
    with pytest.raises(LabError, match="(?s)lhr1: portsliced ended with 1.*no such luck"):
        small_lab.start_agents(hosts=["lhr1"])


def test_down_detaches_every_instance_that_has_pins(new_lab, stand_in):
    lab = new_lab(ONE_SITE)
    (place.PINS / f"{lab.name}-lhr3").mkdir(parents=True)
    lab.down()
    assert f"--instance {lab.name}-lhr3 detach" in (stand_in / "cli-args").read_text()
    assert nothing_left(lab.name)


# -- data ---------------------------------------------------------------------------------------------------------


def test_the_plan_divides_the_shared_prefix_among_sites_and_countries(can_lab):
    import plan
    import yaml
    made = yaml.safe_load(plan.text(load(TWO_SITES)))
    assert made["hosts"]["cdg2"] == {"site": "CDG", "underlay": "10.2.2.1", "uplinks": ["eth0"]}
    assert [entry["prefix"] for entry in made["pools"]["ie"]["addresses"]] == ["198.51.100.128/26", "198.51.100.192/26"]
    assert made["classes"][1] == {"name": "ie", "match": {"mark": 2}, "tags": {"country": "IE"}}
    own = {"x": {"tags": {"trust": "no"}, "addresses": [{"prefix": "198.51.100.0/32", "site": "LHR"}]}}
    made = yaml.safe_load(plan.text(load(ONE_SITE), own))
    assert made["pools"] == own and made["classes"][0]["tags"] == {"trust": "no"} and made["direct"] == ["10.0.0.0/8"]


@pytest.mark.parametrize("old, new, complaint", [
    ("web1:eth0", "web9:eth0", "no node is called web9"),
    ("lhr1: { site: LHR }", "lhr1: { site: XXX }", "no site is called XXX"),
    ("203.0.113.2/30", "203.0.113.2/33", "want 'NODE:DEVICE ADDRESS/LEN'"),
    ("203.0.113.2/30", "203.0.113.2/30 2001:db8::/129", "or two"),
    ("203.0.113.2/30", "203.0.113.2/30 2001:db8::2/64", "web1:eth0: with `shared6`"),
    ("shared: 198.51.100.0/24", "", "shared"),
    ("client1: {}", "client1: {}\n  web2: {}", "more links than one"),
])
def test_a_mistake_in_a_topology_is_named(tmp_path, old, new, complaint):
    text = ONE_SITE.read_text()
    assert old in text
    (tmp_path / "bad.yaml").write_text(text.replace(old, new))
    with pytest.raises(TopologyError, match=complaint):
        load(tmp_path / "bad.yaml")


def test_a_lab_name_that_could_be_mistaken_for_anothers_is_refused():
    for name in ("a-b", "", "A", "1a", "a" * 17, "../x"):
        with pytest.raises(LabError, match="lab name"):
            place.check_name(name)
