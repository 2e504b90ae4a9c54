#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A network of sites, hosts and an Internet, in namespaces of this machine: library and command.

    from lab import Lab
    lab = Lab.up("lab/two-sites.yaml", "mine", with_pid=os.getpid())
    print(lab.run("lhr1", ["curl", "-s", "http://203.0.113.2/"]).stdout)
    lab.down()
"""
import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import agents
import bird
import guardian
import net
import place
import plan
import process
from capture import Capture
from place import LabError
from teardown import teardown
from topology import HOST, Topology, TopologyError, load

HERE = Path(__file__).resolve().parent
DEFAULT = HERE / "two-sites.yaml"


class Lab:
    """A lab that is up. Lab.up() makes one, Lab.open() finds one that somebody else made."""

    def __init__(self, topology: Topology, name: str, guard: subprocess.Popen | None = None):
        self.topology, self.name = topology, name
        self.state = place.state(name)
        self._guard, self._children, self._agents = guard, [], {}
        self._captures = []

    @classmethod
    def up(cls, topology: str | Path = DEFAULT, name: str = "lab", with_pid: int | None = None) -> "Lab":
        """Builds the lab, about 2 s. With `with_pid` it goes when that process goes, however it dies."""
        place.check_name(name)
        parsed = load(topology)
        return cls(parsed, name, guardian.start(name, Path(topology).resolve(), with_pid))

    @classmethod
    def open(cls, name: str) -> "Lab":
        place.check_name(name)
        try:
            return cls(load(place.state(name) / "topology.yaml"), name)
        except (OSError, TopologyError):
            hint = "is damaged; try: lab.py down" if place.traces(name) else "is not up; try: lab.py up"
            raise LabError(f"lab {name} {hint} --name {name}") from None

    def down(self) -> None:
        """Ends every process of the lab and removes all it made. Idempotent; raises if something stays."""
        left = teardown(self.name)
        for capture in self._captures:
            capture.stop()
        for child in (*self._children, *self._agents.values(), *([self._guard] if self._guard else [])):
            process.finish(child, timeout=2)
            if child is self._guard:
                child.stdin.close()
        self._guard, self._children, self._agents, self._captures = None, [], {}, []
        if left:
            raise LabError(f"lab {self.name}: would not go: {', '.join(map(str, left))}")

    # -- processes ---------------------------------------------------------------------------------------------

    def netns(self, node: str) -> str:
        """The name of the node's namespace, as `ip -n` takes it."""
        if node not in self.topology.nodes:
            raise LabError(f"lab {self.name} has no node {node}; there are: {', '.join(self.topology.nodes)}")
        return f"{self.name}-{node}"

    def cgroup(self, host: str) -> Path:
        """The group whose programs the host's agent steers; made if it is not there."""
        self.netns(host)
        return process.make_group(self.name, host)

    def argv(self, node: str, argv: list, cgroup: Path | None = None) -> list:
        """The command that runs argv in the node; without a group it counts among the lab's own daemons."""
        self.netns(node)
        group = cgroup or process.make_group(self.name, process.LAB_GROUP)
        return process.in_group([*net.enter(self.name, node), *map(str, argv)], Path(group))

    def environment(self, node: str, env: dict | None = None) -> dict:
        instance = {"PORTSLICE_INSTANCE": agents.instance(self.name, node)} if node in self.topology.hosts else {}
        return {**os.environ, **instance, **(env or {})}

    def run(self, node: str, argv: list, check: bool = True, timeout: float = 30, cgroup: Path | None = None,
            env: dict | None = None, **options) -> subprocess.CompletedProcess:
        """Runs a command in the node to its end; text in and out. LabError if it fails or takes too long."""
        options = {"stdin": subprocess.DEVNULL, "text": True, **options}
        if "input" in options:
            del options["stdin"]
        try:
            done = subprocess.run(self.argv(node, argv, cgroup), capture_output=True, timeout=timeout, check=False,
                                  env=self.environment(node, env), **options)
        except subprocess.TimeoutExpired:
            raise LabError(f"{node}: {shlex.join(map(str, argv))}: not done within {timeout} s") from None
        if check and done.returncode:
            raise LabError(f"{node}: {shlex.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(self, node: str, argv: list, cgroup: Path | None = None, env: dict | None = None,
              **options) -> subprocess.Popen:
        """Starts a command in the node; it dies with the lab. Options are those of subprocess.Popen."""
        options = {"stdin": subprocess.DEVNULL, "text": True, **options}
        child = subprocess.Popen(self.argv(node, argv, cgroup), env=self.environment(node, env), **options)
        self._children.append(child)
        return child

    def capture(self, node: str, dev: str, filter: str = "", snaplen: int = 160) -> Capture:
        """Starts writing the packets of a device that match a pcap filter; returns when it is listening."""
        path = self.state / "pcap" / f"{node}-{dev}-{len(self._captures)}.pcap"
        argv = ["tcpdump", "-n", "-U", "--immediate-mode", "-B", "32768", "-s", snaplen, "-Z", "root",
                "-i", dev, "-w", path, *filter.split()]
        capture = Capture(path, self.argv(node, argv))
        self._captures.append(capture)
        return capture

    @staticmethod
    def wait(condition, timeout: float, what: str):
        """Polls until condition() is true and returns its value; LabError names `what` and the last value."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise LabError(f"{what}: not within {timeout} s (last: {value!r})")
            time.sleep(0.01)
        return value

    def kill_host(self, host: str) -> None:
        """The host loses power: nothing more comes out of it, and everything that ran there is gone."""
        self.netns(host)
        net.silence(self.topology, self.name, host)
        process.kill_groups(place.cgroup(self.name) / host)
        process.kill_namespaces([place.netns(self.name, host)])

    # -- portslice ---------------------------------------------------------------------------------------------

    def plan_text(self, pools: dict | None = None, classes: list | None = None, over: int = 4,
                  host: dict | None = None) -> str:
        return plan.text(self.topology, pools, classes, over, host)

    def start_agents(self, binary: str | Path | None = None, hosts: list | None = None, extra: list = (),
                     timeout: float = 10) -> None:
        """Starts portsliced (of the build, unless told) on all hosts or these; returns when each answers."""
        binary = Path(binary) if binary else place.binary("src/agent/portsliced")
        started = {}
        for host in hosts or self.topology.hosts:
            with open(agents.log(self.name, host), "a") as log:
                started[host] = subprocess.Popen(
                    self.argv(host, agents.daemon_argv(self.name, host, binary, list(extra))), stdout=log, stderr=log,
                    stdin=subprocess.DEVNULL, env=self.environment(host), start_new_session=True)
            (self.state / host / "agent.pid").write_text(str(started[host].pid))
        self._agents.update(started)
        agents.wait_ready(self.name, started, timeout)

    def agent_pid(self, host: str) -> int | None:
        return agents.pid(self.name, host)

    def stop_agents(self, hosts: list | None = None, timeout: float = 5) -> None:
        """SIGTERM to each agent, and SIGKILL to one that does not listen; the data path stays in place."""
        for host in hosts or self.topology.hosts:
            if (pid := agents.pid(self.name, host)) is not None:
                process.stop(pid, self.name, timeout)
            if host in self._agents:
                process.finish(self._agents.pop(host), timeout)

    def portslice(self, host: str, *args: str, **options) -> subprocess.CompletedProcess:
        """The command line, for this host's agent; options are those of run()."""
        return self.run(host, [place.binary("src/cli/portslice"), *args], **options)

    # -- what a person wants to see ----------------------------------------------------------------------------

    def status(self) -> list:
        """One dict for each node: kind, site, address, BGP and BFD sessions, routes, agent."""
        rows = []
        for node in self.topology.nodes.values():
            row = {"node": node.name, "kind": node.kind, "site": node.site,
                   "address": self.topology.neighbours(node.name)[0][0].ip,
                   "sessions": bird.sessions(self.name, node.name) if node.asn else [],
                   "routes": {prefix: sorted(devices) for prefix, devices in net.routes(self.name, node.name).items()}}
            if node.kind == HOST:
                row["agent_pid"] = agents.pid(self.name, node.name)
            rows.append(row)
        return rows


def _table(rows: list, shared: str) -> str:
    lines = [f"{'NODE':9}{'KIND':10}{'SITE':6}{'ADDRESS':16}{'BGP':6}{'BFD':6}{'ROUTES':8}{'AGENT':9}{shared} VIA"]
    for row in rows:
        sessions = row["sessions"]
        up = {key: sum(session[key] == state for session in sessions)
              for key, state in (("bgp", "Established"), ("bfd", "Up"))}
        bgp, bfd = (f"{up[key]}/{len(sessions)}" if sessions else "-" for key in ("bgp", "bfd"))
        agent = str(row["agent_pid"] or "down") if "agent_pid" in row else "-"
        lines.append(f"{row['node']:9}{row['kind']:10}{row['site'] or '-':6}{row['address']:16}{bgp:6}{bfd:6}"
                     f"{len(row['routes']):<8}{agent:9}{' '.join(row['routes'].get(shared, ['-']))}")
    return "\n".join(lines)


def _up(args) -> None:
    began = time.monotonic()
    lab = Lab.up(args.topology or DEFAULT, args.name, args.with_pid)
    print(f"lab {args.name}: {len(lab.topology.nodes)} nodes up in {time.monotonic() - began:.1f} s; "
          f"look: {sys.argv[0]} status --name {args.name}")


def _down(args) -> None:
    began, there = time.monotonic(), bool(place.traces(place.check_name(args.name)))
    if left := teardown(args.name):
        raise LabError(f"would not go: {', '.join(map(str, left))}")
    print(f"lab {args.name}: " + (f"down in {time.monotonic() - began:.1f} s" if there else "was not up"))


def _exec(args) -> None:
    lab = Lab.open(args.name)
    if not args.command:
        raise LabError("nothing to run; try: lab.py exec NODE -- COMMAND ...")
    argv = args.command[1:] if args.command[0] == "--" else args.command
    group = lab.cgroup(args.node) if args.node in lab.topology.hosts else None
    command = lab.argv(args.node, argv, group)
    os.execvpe(command[0], command, lab.environment(args.node))


def _status(args) -> None:
    lab = Lab.open(args.name)
    rows = lab.status()
    print(json.dumps(rows, indent=2) if args.json else _table(rows, lab.topology.shared))


def _list(args) -> None:
    found = place.names()
    print(json.dumps(found) if args.json else "\n".join(found) or "no lab is up")


def _plan(args) -> None:
    print(Lab.open(args.name).plan_text() if not args.topology else plan.text(load(args.topology)), end="")


def _agents(args) -> None:
    lab = Lab.open(args.name)
    if args.what == "start":
        lab.start_agents()
    else:
        lab.stop_agents()


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab.py", description="A network of sites in namespaces of this machine.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, call, text: str) -> argparse.ArgumentParser:
        found = verbs.add_parser(name, help=text, description=text)
        found.set_defaults(call=call)
        found.add_argument("--name", default="lab", help="the lab's name (default: lab)")
        return found

    up = verb("up", _up, "build a lab")
    up.add_argument("--topology", metavar="FILE", help="default: two-sites.yaml beside lab.py")
    up.add_argument("--with", dest="with_pid", type=int, metavar="PID", help="take it down when that process ends")
    verb("down", _down, "take a lab down; does no harm when there is none")
    run = verb("exec", _exec, "run a command in a node; on a host, where portslice steers it")
    run.add_argument("node")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    for name, call, text in (("status", _status, "nodes, sessions, routes and agents"),
                             ("list", _list, "labs that are up, or left something")):
        verb(name, call, text).add_argument("--json", action="store_true")
    verb("plan", _plan, "print a portslice plan for the lab").add_argument("--topology", metavar="FILE")
    verb("agents", _agents, "start or stop portsliced on every host").add_argument("what", choices=["start", "stop"])
    return parser


def main() -> int:
    args = _arguments().parse_args()
    try:
        place.check_name(args.name)
        args.call(args)
    except (LabError, TopologyError, OSError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130   # a half-built lab goes with us: its guardian sees to it
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
