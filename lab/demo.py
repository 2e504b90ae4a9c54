#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The main job on real traffic, narrated; every claim is checked, the first that fails ends the demo with 1.

BREAK=dispatch|guard|hook leaves that part out of every agent, so that a claim must fail.
"""
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import agents
import forge
import place
from lab import Lab

NEAR, FAR = "203.0.113.2", "203.0.113.130"  # web1 beside LHR, web2 beside CDG
EACH = 1000       # connections of every host
WITHOUT = 150     # connections to each web server while the dispatcher is off
PARALLEL = 50
COUNTRY_MARKS = {"GB": (3128, 1), "IE": (3129, 2)}  # squid's port, and the mark it sets

SQUID = """\
http_port 3128 name=gb
http_port 3129 name=ie
acl gb myportname gb
acl ie myportname ie
tcp_outgoing_mark 0x1 gb
tcp_outgoing_mark 0x2 ie
http_access allow all
cache deny all
pid_filename {state}/squid.pid
cache_log {state}/squid.log
access_log none
coredump_dir {state}
shutdown_lifetime 0 seconds
"""


class Broken(Exception):
    """A claim that does not hold."""


class Stage:
    """Tells what happens, in colour on a terminal."""

    def __init__(self):
        self.colour, self.started, self.claims = sys.stdout.isatty(), time.monotonic(), 0

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colour else text

    def say(self, text: str) -> None:
        print(f"{self._paint('2', f'[{time.monotonic() - self.started:5.1f} s]')} {text}", flush=True)

    def chapter(self, title: str) -> None:
        print(f"\n{self._paint('1', title)}", flush=True)

    def claim(self, name: str, holds: bool, shown: str) -> None:
        mark = self._paint("32", "holds ") if holds else self._paint("31", "BROKEN")
        print(f"  {mark} {name}: {shown}", flush=True)
        self.claims += 1
        if not holds:
            raise Broken(name)


def curl(lab: Lab, host: str, url: str, count: int, patience: int) -> tuple:
    """Fresh connections by curl in class gb: how many were answered, and from which (address, port)."""
    argv = agents.portslice_argv(lab.name, host, "run", "--tag", "country=GB", "--", "curl", "--no-progress-meter",
                                 "--parallel", "--parallel-immediate", "--parallel-max", str(PARALLEL), "--connect-timeout", str(patience),
                                 "--max-time", str(patience + 5), "--header", "Connection: close",
                                 "--output", "/dev/null", "--write-out", "%{http_code} %{local_ip} %{local_port}\n",
                                 f"http://{url}/?[1-{count}]")
    process = subprocess.Popen(process_in(lab, host, argv), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               text=True)
    return process, count


def process_in(lab: Lab, host: str, argv: list) -> list:
    return lab.argv(host, argv, lab.cgroup(host))


def answers(started: tuple) -> list:
    process, _ = started
    lines = process.communicate(timeout=120)[0].splitlines()
    return [line.split()[1:] for line in lines if line.startswith("200 ")]


def apply_plan(lab: Lab, stage: Stage) -> None:
    plan = lab.state / "plan.yaml"
    plan.write_text(lab.plan_text())
    portslice = place.binary("src/cli/portslice")
    for verb in (["check"], ["deal"]):
        stage.say(subprocess.run([portslice, "plan", *verb, plan], check=True, capture_output=True,
                                 text=True).stdout.strip().replace(f"{plan}: ", "plan: "))
    applied = subprocess.run([portslice, "--store", agents.store(lab.name), "plan", "apply", plan], check=True,
                             capture_output=True, text=True)
    stage.say(applied.stdout.strip().splitlines()[-1])


def without_dispatcher(lab: Lab, stage: Stage) -> None:
    stage.chapter("1. Hosts share an address, but nobody dispatches the replies")
    lab.start_agents(extra=["--without", "dispatch", "--without", "guard"])
    apply_plan(lab, stage)
    siblings = [lab.capture(host, "eth0", "tcp[tcpflags] & tcp-rst != 0 and src net 198.51.100.0/24")
                for host in ("lhr2", "lhr3", "cdg1", "cdg2", "cdg3")]
    runs = {name: curl(lab, "lhr1", url, WITHOUT, 1) for name, url in (("near", NEAR), ("far", FAR))}
    ok = {name: len(answers(run)) for name, run in runs.items()}
    for wire in siblings:
        wire.stop()
    resets = sum(wire.count() for wire in siblings)
    lost = {name: WITHOUT - ok[name] for name in ok}
    stage.say(f"lhr1 opens {WITHOUT} connections to each web server; replies arrive at any of six hosts")
    stage.claim("most connections die at the near site", WITHOUT * 0.5 < lost["near"] < WITHOUT * 0.85,
                f"{lost['near']} of {WITHOUT} (two of three replies reach a sibling)")
    stage.claim("all connections die at the far site", ok["far"] == 0, f"{lost['far']} of {WITHOUT}")
    stage.claim("wrong servers answer with RST", resets > 0, f"{resets} RSTs from servers that knew nothing of it")
    lab.stop_agents()
    for host in lab.topology.hosts:
        lab.portslice(host, "detach")  # else the pinned programs would live on


def seen_by_web(lab: Lab) -> dict:
    """site -> Counter of source address, and host ranges, from both web servers' logs."""
    seen = Counter()
    for node in ("web1", "web2"):
        for line in (lab.state / node / "access.log").read_text().splitlines():
            address, port = line.split()[:2]
            seen[address, int(port)] += 1
    return seen


def forget_web(lab: Lab) -> None:
    for node in ("web1", "web2"):
        with open(lab.state / node / "access.log", "r+", encoding="utf-8") as log:
            log.truncate()


def arriving_at(lab: Lab, host: str):
    """First answers (SYN-ACK) as the router hands them to the host, before anybody forwarded them."""
    own, router = lab.topology.uplink(host)
    return lab.capture(router.node, router.dev, f"net {lab.topology.shared} and tcp[tcpflags] & 18 == 18 and not udp")


def arrivals(wire) -> list:
    """(address, port) that each answer is for."""
    lines = subprocess.run(["tcpdump", "-n", "-t", "-r", wire.path], capture_output=True, text=True,
                           check=True).stdout.splitlines()
    ends = [re.search(r"> ([\d.]+)\.(\d+): ", line) for line in lines]
    return [(end[1], int(end[2])) for end in ends if end]


def first_hits(lab: Lab, stage: Stage, wires: dict) -> None:
    """Compares where each answer arrived with the owner that the plan names."""
    plan = json.loads(subprocess.run(agents.portslice_argv(lab.name, "lhr1", "plan", "show", "--json"), check=True,
                                     capture_output=True, text=True).stdout)
    owner = {(row["address"], row["slice"]): row["host"] for row in plan["slices"]}
    site = {host: lab.topology.nodes[host].site for host in wires}
    total = strangers = abroad = 0
    for host, wire in wires.items():
        for address, port in arrivals(wire):
            holder = owner[address, port // 2048]
            total, strangers, abroad = total + 1, strangers + (holder != host), abroad + (site[holder] != site[host])
    stage.claim("replies reach any server of either site", strangers > 0.4 * total and abroad > 0.2 * total > 0,
                f"of {total} first answers {100 * strangers // total} % met a host that is not the owner, "
                f"{100 * abroad // total} % the wrong site; counted at the routers")


def with_dispatcher(lab: Lab, stage: Stage, extra: list) -> None:
    stage.chapter("2. The same with the dispatcher")
    lab.start_agents(extra=extra)
    forget_web(lab)
    hosts = list(lab.topology.hosts)
    wires = {host: arriving_at(lab, host) for host in hosts}
    runs = {host: [curl(lab, host, url, EACH // 2, 5) for url in (NEAR, FAR)] for host in hosts}
    got = {host: [answer for run in pair for answer in answers(run)] for host, pair in runs.items()}
    for wire in wires.values():
        wire.stop()
    total = sum(map(len, got.values()))
    stage.claim("every connection of every host succeeds", total == EACH * len(hosts),
                f"{total} of {EACH * len(hosts)} answered, {EACH} fresh ones from each of {len(hosts)} hosts")
    first_hits(lab, stage, wires)
    ranges_in_log(lab, stage)


def ranges_in_log(lab: Lab, stage: Stage) -> None:
    ports = {}
    for address, port in seen_by_web(lab):
        ports.setdefault(address, {}).setdefault(port // 2048, []).append(port)
    addresses = sorted(ports)
    for address in addresses:
        text = ", ".join(f"{min(p)}-{max(p)}" for _, p in sorted(ports[address].items()))
        stage.say(f"the web servers saw {address} with ports {text}")
    stage.claim("one address and three disjoint port ranges for each site",
                len(addresses) == 2 and all(len(slices) == 3 for slices in ports.values()),
                f"{len(addresses)} addresses, {[len(ports[a]) for a in addresses]} slices")


def country_by_mark(lab: Lab, stage: Stage) -> None:
    stage.chapter("3. squid on lhr1 picks the country by a socket mark")
    forget_web(lab)
    folder = lab.state / "lhr1"
    folder.chmod(0o777)  # squid gives up root
    config = folder / "squid.conf"
    config.write_text(SQUID.format(state=folder))
    lab.popen("lhr1", ["squid", "-N", "-f", config], cgroup=lab.cgroup("lhr1"),
              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lab.wait(lambda: all(lab.run("lhr1", ["sh", "-c", f"ss -Hltn sport = :{port} | grep -q ."], check=False).returncode
                         == 0 for port, _ in COUNTRY_MARKS.values()), 20, "squid listens")
    pools = {"GB": "198.51.100.1", "IE": "198.51.100.128"}
    for country, (port, mark) in COUNTRY_MARKS.items():
        lab.run("lhr1", ["curl", "--silent", "--fail", "--max-time", "10", "--proxy", f"http://10.1.1.1:{port}",
                         f"http://{NEAR}/?{country}"], check=False)
        addresses = {address for address, _ in seen_by_web(lab)}
        stage.claim(f"port {port} of the proxy, mark {mark}, leaves from {country}", addresses == {pools[country]},
                    f"web server saw {', '.join(sorted(addresses)) or 'nothing'}")
        forget_web(lab)


def nothing_forged_leaves(lab: Lab, stage: Stage) -> None:
    stage.chapter("4. A program forges packets with a shared address")
    with lab.capture("lhr-r", "s1", "host 198.51.100.1 and dst 203.0.113.6") as wire:
        lab.run("lhr1", [sys.executable, forge.__file__, "198.51.100.1", "203.0.113.6", "5000", "100"])
        lab.run("lhr1", [sys.executable, forge.__file__, "198.51.100.1", "203.0.113.6", "2100", "3"])
    foreign, own = wire.count("src port 5000"), wire.count("src port 2100")
    stage.claim("no packet leaves with a port of another host's slice", foreign == 0 and own == 3,
                f"{foreign} of 100 forged from port 5000 (lhr2's) seen by the router; {own} of 3 from port 2100 (own)")


def host_dies(lab: Lab, stage: Stage) -> None:
    stage.chapter("5. A host dies")
    others = [host for host in lab.topology.hosts if host != "lhr3"]
    runs = {host: [curl(lab, host, url, EACH // 4, 8) for url in (NEAR, FAR)] for host in others}
    time.sleep(0.2)  # let the load begin
    lab.kill_host("lhr3")
    stage.say("lhr3 is cut off and killed while the others work; BFD takes it out of the routers' ECMP")
    got = {host: sum(len(answers(run)) for run in pair) for host, pair in runs.items()}
    wanted = EACH // 4 * 2
    stage.claim("the other five do not notice", all(n == wanted for n in got.values()),
                f"{sum(got.values())} of {wanted * len(others)} connections answered during the failure")


def draw_plane(lab: Lab, stage: Stage) -> None:
    stage.chapter("6. The port plane")
    env = dict(os.environ, PORTSLICE_COLOR="1" if stage.colour else "0")
    print(subprocess.run(agents.portslice_argv(lab.name, "lhr1", "show", "plane"), env=env, check=True,
                         capture_output=True, text=True).stdout)


def perform(lab: Lab, stage: Stage, broken: str) -> None:
    extra = ["--without", broken] if broken else []
    without_dispatcher(lab, stage)
    with_dispatcher(lab, stage, extra)
    country_by_mark(lab, stage)
    nothing_forged_leaves(lab, stage)
    host_dies(lab, stage)
    draw_plane(lab, stage)


def main() -> int:
    broken = os.environ.get("BREAK", "")
    if not re.fullmatch("(dispatch|guard|hook)?", broken):
        print("BREAK takes dispatch, guard or hook", file=sys.stderr)
        return 2
    stage = Stage()
    lab = Lab.up(Path(__file__).with_name("two-sites.yaml"), f"demo{os.getpid()}", with_pid=os.getpid())
    try:
        stage.say(f"two sites of three hosts, routers with BGP and BFD, a backbone, an Internet: {lab.name} is up")
        if broken:
            stage.say(f"BREAK={broken}: every agent leaves that part out")
        perform(lab, stage, broken)
        stage.say(f"all {stage.claims} claims hold")
        return 0
    except Broken as claim:
        print(f"\ndemo: claim does not hold: {claim}", file=sys.stderr)
        return 1
    finally:
        lab.down()


if __name__ == "__main__":
    sys.exit(main())
