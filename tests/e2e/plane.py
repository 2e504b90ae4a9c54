# SPDX-License-Identifier: MIT
"""Plans in a lab: written, applied, and asked who owns a port; and programs run in the classes they name."""
import json
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import agents
import place
from lab import Lab

STEP = 128   # the smallest slice there is


class Plane:
    """Who owns which port, as `portslice plan show` says it of a plan."""

    def __init__(self, plan: dict):
        self.plan, self._owners, self._sites = plan, {}, {}
        for held in plan["slices"]:
            for port in range(held["first"], held["first"] + held["count"], STEP):
                self._owners[held["address"], port // STEP] = held["host"]
        for pool in plan["pools"]:
            for block in pool["addresses"]:
                self._sites[ip_network(block["prefix"])] = block["site"]
        self.host_sites = {host["name"]: host["site"] for host in plan["hosts"]}
        self.underlays = {host["name"]: host["underlay"] for host in plan["hosts"]}

    def owner(self, address: str, port: int) -> str | None:
        return self._owners.get((address, port // STEP))

    def site(self, address: str) -> str | None:
        ip = ip_address(address)
        return next((site for prefix, site in self._sites.items() if ip in prefix), None)

    def slices(self, host: str, pool: str) -> list:
        """(address, range of ports) of what the host holds in the pool."""
        return [(held["address"], range(held["first"], held["first"] + held["count"]))
                for held in self.plan["slices"] if (held["host"], held["pool"]) == (host, pool)]


def portslice(lab: Lab, *args, check: bool = True) -> subprocess.CompletedProcess:
    """The command line without a daemon of its own, on the lab's store."""
    done = subprocess.run([place.binary("src/cli/portslice"), "--store", agents.store(lab.name), *map(str, args)],
                          capture_output=True, text=True, timeout=60, check=False)
    assert not check or done.returncode == 0, f"portslice {args}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def write(lab: Lab, text: str, name: str = "plan.yaml", deal: bool = True) -> Path:
    path = lab.state / name
    path.write_text(text)
    if deal:
        portslice(lab, "plan", "deal", path)
    return path


def show(lab: Lab, path: Path | None = None) -> Plane:
    """The plan of a file; without one, the plan in force at the first host."""
    words = ("--json", "plan", "show")
    done = portslice(lab, *words, path) if path else lab.portslice(list(lab.topology.hosts)[0], *words)
    return Plane(json.loads(done.stdout))


def start(lab: Lab, text: str, **options) -> Plane:
    """Agents on every host, the plan dealt and in force at all of them."""
    path = write(lab, text)
    lab.start_agents(**options)
    portslice(lab, "plan", "apply", path)
    return show(lab, path)


def in_class(wish: str, argv: list) -> list:
    """argv run in a class: `country=GB` by a tag, `3` by a mark."""
    option = "--tag" if "=" in wish else "--mark"
    return [place.binary("src/cli/portslice"), "run", option, wish, "--", *argv]


def run(lab: Lab, host: str, wish: str, argv: list, **options) -> subprocess.CompletedProcess:
    return lab.run(host, in_class(wish, argv), cgroup=lab.cgroup(host), **options)


def popen(lab: Lab, host: str, wish: str, argv: list, **options) -> subprocess.Popen:
    return lab.popen(host, in_class(wish, argv), cgroup=lab.cgroup(host), **options)


def counters(lab: Lab, host: str) -> dict:
    """(part, reason) -> count."""
    rows = json.loads(lab.portslice(host, "--json", "show", "counters").stdout)
    return {(row["part"], row["reason"]): row["packets"] for row in rows}


def events(lab: Lab, host: str, kind: str) -> list:
    found = map(json.loads, lab.portslice(host, "--json", "events").stdout.splitlines())
    return [event for event in found if event["kind"] == kind]
