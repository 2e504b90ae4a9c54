# SPDX-License-Identifier: MIT
"""Answers too large for one packet, and packets too large for the way between two sites."""
import json
import re
import subprocess
import time
from collections import Counter
from contextlib import ExitStack

import pytest

import backbone
import plane
from backbone import DNS, GB, NARROW, OVERHEAD, WEB, WIDE
from services import LARGE_TEXTS

INTERNET = 1500
FRAGMENT = "ip[6:2] & 0x3fff != 0 and src net 203.0.113.0/24 and ether src"
FAR = {"lhr1": "2", "cdg1": "1"}   # the number of the web and name server behind the other site
QUESTIONS = 40
TEXT = re.compile(r'\sTXT\s+"(\d\d)x{248}"$')


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(backbone.TOPOLOGY)
    plane.start(lab, lab.plan_text(host={"mtu": WIDE}))
    return lab


@pytest.fixture
def wide(lab):
    """Everything between hosts carries the Internet's packets whole."""
    backbone.set_backbone(lab, WIDE)
    backbone.apply(lab, lab.plan_text(host={"mtu": WIDE}))
    yield lab
    backbone.set_backbone(lab, NARROW)


# -- large answers over UDP ------------------------------------------------------------------------------------------

def ask(lab, host: str, server: str, questions: int) -> subprocess.Popen:
    """One question after the other for a large answer; TCP is no way out. dig binds before it connects."""
    batch = lab.state / host / "large-names"
    batch.write_text("large.lab TXT\n" * questions)
    argv = ["dig", f"@{DNS[server]}", "+bufsize=4096", "+notcp", "+ignore", "+tries=1", "+time=2", "+noall", "+answer"]
    return plane.popen(lab, host, GB, [*argv, "-f", batch], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def texts(dig: subprocess.Popen) -> Counter:
    """How often each of the answer's texts came in its full length; else the line, to be seen."""
    said = dig.communicate(timeout=60)[0].splitlines()
    return Counter(int(found[1]) if (found := TEXT.search(line)) else line for line in said)


def all_texts(questions: int) -> Counter:
    return Counter(dict.fromkeys(range(LARGE_TEXTS), questions))


def reassembly(lab, host: str) -> dict:
    """The kernel's own account: fragments that it got, packets it made of them, packets it gave up."""
    stats = json.loads(lab.run(host, ["nstat", "-jsz"]).stdout)["kernel"]
    return {name: stats[name] for name in ("IpReasmReqds", "IpReasmOKs", "IpReasmFails")}


FAR_ISP = {"isp-l": ("dns1", "100.64.0.1"), "isp-c": ("dns2", "100.64.0.0")}
# By the site of the shared address: first fragments take the way by that site, later ones by the other.
SPLIT = """
table ip split {{
  chain pre {{ type filter hook prerouting priority -150;
  iifname {server} ip daddr {near} ip frag-off & 0x1fff != 0 meta mark set 77
  iifname {server} ip daddr {far} ip frag-off & 0x3fff == 0x2000 meta mark set 77
  }}
}}
"""
AT = {"isp-l": "{ 198.51.100.0/26, 198.51.100.128/26 }", "isp-c": "{ 198.51.100.64/26, 198.51.100.192/26 }"}


@pytest.fixture
def split(wide):
    """Providers that hash ports: only first fragments have any, so a packet's fragments take both ways.

    Later fragments get the longer one: those that overtake their first are dropped (doc/dispatch.md).
    """
    for isp, other in (("isp-l", "isp-c"), ("isp-c", "isp-l")):
        server, via = FAR_ISP[isp]
        wide.run(isp, ["nft", SPLIT.format(server=server, near=AT[isp], far=AT[other])])
        wide.run(isp, ["ip", "rule", "add", "fwmark", "77", "lookup", "77"])
        wide.run(isp, ["ip", "route", "add", "198.51.100.0/24", "via", via, "dev", "peer", "table", "77"])
    yield wide
    for isp in FAR_ISP:
        wide.run(isp, ["nft", "delete table ip split"])
        wide.run(isp, ["ip", "rule", "del", "fwmark", "77"])


def test_every_large_answer_arrives_whole_though_its_fragments_come_by_other_hosts_and_sites(split):
    before, kernel = backbone.dispatched(split), {host: reassembly(split, host) for host in FAR}
    with ExitStack() as stack:
        wires = {(node, dev): stack.enter_context(split.capture(node, dev, f"{FRAGMENT} {backbone.mac(split, node, dev)}"))
                 for node, dev, _ in backbone.sent_to(split, split.topology.hosts)}
        digs = [ask(split, host, server, QUESTIONS) for host in FAR for server in DNS]
        assert [texts(dig) for dig in digs] == [all_texts(QUESTIONS)] * len(digs)
    seen = {way: wire.count() for way, wire in wires.items()}
    assert not any(wire.dropped for wire in wires.values())
    assert sum(seen.values()) == 3 * QUESTIONS * len(digs)   # 3,720 bytes and a UDP header: three fragments
    at = {router: sum(n for (node, _), n in seen.items() if node == router) for router in ("lhr-r", "cdg-r")}
    assert at == dict.fromkeys(at, (1 + 2) * QUESTIONS * 2)   # firsts of its own addresses, followers of the others'
    after = backbone.dispatched(split)
    moved = after - before
    assert not backbone.gone(before, after)
    assert moved["to_gatherer"] and moved["to_host"] and moved["to_site"] == 2 * QUESTIONS * len(digs)
    for host in FAR:
        now = reassembly(split, host)
        assert {name: now[name] - kernel[host][name] for name in now} == {
            "IpReasmReqds": 3 * QUESTIONS * 2, "IpReasmOKs": QUESTIONS * 2, "IpReasmFails": 0}


def test_every_large_answer_arrives_whole_over_an_underlay_as_wide_as_the_internet(lab):
    backbone.set_backbone(lab, INTERNET)
    backbone.apply(lab, lab.plan_text(host={"mtu": INTERNET}))
    digs = [ask(lab, host, server, 3) for host in FAR for server in DNS]
    answers = [texts(dig) for dig in digs]
    backbone.set_backbone(lab, NARROW)
    assert answers == [all_texts(3)] * len(digs)


# -- too big for the way ---------------------------------------------------------------------------------------------

DOWNLOAD = ["curl", "-s", "-o", "/dev/null", "--max-time", "40", "-w", "%{http_code} %{size_download}"]
MIB = 96   # lab/backbone.yaml: 100,663,296 bytes
OURS = {"lhr1": "198.51.100.1", "cdg1": "198.51.100.64"}   # both hold slice 1: ports 2,048 to 4,095


def download(lab, host: str, mss: bool = True) -> float:
    """Seconds for 100 MB from the web server behind the other site, every byte of it.

    Without `mss` by a program that our hooks do not see and that binds by itself: nothing lowers its MSS.
    """
    argv = [*DOWNLOAD, f"http://{WEB['web' + FAR[host]]}/large"]
    began = time.monotonic()
    if mss:
        said = plane.run(lab, host, GB, argv, timeout=60, check=False)
    else:
        said = lab.run(host, [*argv, "--interface", OURS[host], "--local-port", "2048-4095"], timeout=60, check=False)
    assert said.stdout == f"200 {MIB << 20}", said
    return time.monotonic() - began


@pytest.fixture(scope="module")
def reference(lab):
    """host -> seconds, over a backbone that is as wide as it needs to be."""
    backbone.set_backbone(lab, WIDE)
    backbone.apply(lab, lab.plan_text(host={"mtu": WIDE}))
    taken = {host: min(download(lab, host) for _ in range(2)) for host in FAR}
    backbone.set_backbone(lab, NARROW)
    return taken


def forget_path_mtus(lab, host: str) -> str:
    """Returns the server that is about to learn one."""
    server = "web" + FAR[host]
    lab.run(server, ["ip", "route", "flush", "cache"])
    backbone.restart_agents(lab, [other for other in lab.topology.hosts if other[:3] != host[:3]])
    return server


@pytest.mark.parametrize("host", FAR)
@pytest.mark.parametrize("mtu", [NARROW, INTERNET], ids=["plan right", "plan wrong"])
@pytest.mark.parametrize("mss", [True, False], ids=["MSS set", "MSS not set"])
def test_100_mb_over_a_narrow_backbone_two_hops_away_take_no_longer_than_over_a_wide_one(lab, reference, host, mtu, mss):
    backbone.apply(lab, lab.plan_text(host={"mtu": mtu}))
    server = forget_path_mtus(lab, host)
    others = [other for other in lab.topology.hosts if other[:3] != host[:3]]
    before = backbone.dispatched(lab, others)
    taken = download(lab, host, mss)
    moved = backbone.dispatched(lab, others) - before
    print(f"{taken:.2f} s, over a wide backbone {reference[host]:.2f} s")
    # A black hole never ends; a sender that must time out for each step of the way takes seconds.
    assert taken < 3 * reference[host] + 2, (taken, reference)
    fits = mss and mtu == NARROW
    assert bool(moved["too_big"]) == (not fits) and bool(moved["mtu_hint"]) == (mtu != NARROW), moved
    assert backbone.path_mtu(lab, server, OURS[host]) == (None if fits else NARROW - OVERHEAD)
    learned = {row["mtu"] for other in others for row in backbone.status(lab, other)["learned_mtus"]}
    assert learned == (set() if mtu == NARROW else {NARROW})
