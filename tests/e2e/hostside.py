# SPDX-License-Identifier: MIT
"""What tests of one host need: its agent, what stands on it, and a plan to play with."""
import json
import os
import re
import select
import signal
import subprocess
from pathlib import Path

import agents
import place
import process

WEB = "203.0.113.2"
LOCAL = re.compile(r"^local 198\.51\.100\.\d+ dev lo ", re.M)
KEPT_BY_A_DAEMON = {"control.sock", "lock"}


def binary(name: str) -> Path:
    return place.binary({"portslice": "src/cli/portslice", "portsliced": "src/agent/portsliced"}[name])


def pins(lab, host: str) -> Path:
    return place.PINS / agents.instance(lab.name, host)


def run_dir(lab, host: str) -> Path:
    return place.SOCKETS / agents.instance(lab.name, host)


def cli(lab, host: str, *args, check: bool = True, store: str | None = None, **options):
    return lab.portslice(host, "--store", store or agents.store(lab.name), *map(str, args), check=check, **options)


def asked(lab, host: str, *args, **options):
    """The answer of a verb with --json."""
    return json.loads(cli(lab, host, *args, "--json", **options).stdout)


def status(lab, host: str) -> dict:
    return asked(lab, host, "status")


def events(lab, host: str) -> list:
    return [json.loads(line) for line in cli(lab, host, "events", "--json").stdout.splitlines()]


def counters(lab, host: str) -> dict:
    return {(row["part"], row["reason"]): row["packets"] for row in asked(lab, host, "show", "counters")}


def dealt(lab, text: str | None = None) -> str:
    return subprocess.run([binary("portslice"), "plan", "deal", "-"], input=text or lab.plan_text(), text=True,
                          capture_output=True, check=True).stdout


def apply(lab, text: str, *options, host: str = "lhr1", check: bool = True, store: str | None = None):
    file = lab.state / "applied.yaml"
    file.write_text(text)
    return cli(lab, host, "plan", "apply", *options, file, check=check, store=store)


def daemon(lab, host: str, *extra, before: list = (), **options) -> subprocess.Popen:
    """portsliced as start_agents() starts it, but bare: nobody waits for it. Its log is a pipe."""
    argv = [*before, *agents.daemon_argv(lab.name, host, binary("portsliced"), list(map(str, extra)))]
    return lab.popen(host, argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **options)


def ends(child: subprocess.Popen, timeout: float = 10) -> tuple:
    """(exit code, all that it said)."""
    said = child.communicate(timeout=timeout)[0]
    return child.returncode, said


def kill_agent(lab, host: str, how: signal.Signals = signal.SIGKILL) -> None:
    pid = lab.agent_pid(host)
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, how)
    assert select.select([handle], [], [], 5)[0], f"{host}: agent {pid} does not end"
    os.close(handle)
    process.finish(lab._agents.pop(host), 5)


def end(child: subprocess.Popen, how: signal.Signals = signal.SIGKILL) -> None:
    child.send_signal(how)
    child.communicate(timeout=5)


def end_all(lab) -> None:
    """Ends the programs that a test began and did not wait for."""
    for child in lab._children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL) if os.getpgid(child.pid) == child.pid else child.kill()
            child.wait(5)


def start_missing(lab) -> None:
    if missing := [host for host in lab.topology.hosts if not lab.agent_pid(host)]:
        lab.start_agents(hosts=missing)


def in_class(lab, host: str, argv: list, choice: list = (), **options) -> subprocess.Popen:
    """A program that `portslice run` puts into a class."""
    return lab.popen(host, [binary("portslice"), "run", *choice, "--", *argv], cgroup=lab.cgroup(host),
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def fetch(lab, host: str, choice: list = ()) -> str:
    """The address and port from which the web server saw a request; '' when there was no answer."""
    said = in_class(lab, host, ["curl", "-s", "--max-time", "5", f"http://{WEB}/"], choice).communicate(timeout=20)[0]
    return said.split(" ")[0]


def link_ids(lab, host: str) -> dict:
    """pin -> id of the pinned link; a link made anew has another id."""
    found = {}
    for pin in sorted(pins(lab, host).iterdir()):
        if pin.name.startswith(("hook-", "uplink-")):
            said = subprocess.run(["bpftool", "-j", "link", "show", "pinned", pin], capture_output=True, check=True)
            shown = json.loads(said.stdout)
            found[pin.name] = (shown[0] if isinstance(shown, list) else shown)["id"]
    return found


def settings(lab, host: str) -> dict:
    """Sysctls and routes: what observing must not touch."""
    def sh(command: str) -> str:
        return lab.run(host, ["sh", "-c", command]).stdout
    return {"sysctl": "\n".join(sorted(sh("cd /proc/sys/net && grep -rs . ipv4/conf ipv4/ip_local_port_range "
                                          "ipv4/ip_nonlocal_bind ipv4/ip_forward").splitlines())),
            "local": sh("ip route show table local"), "routes": sh("ip route show")}


def snapshot(lab, host: str) -> dict:
    """All that an agent may change on its host, as text."""
    def sh(command: str) -> str:
        return lab.run(host, ["sh", "-c", command]).stdout
    group, pin_dir, folder = lab.cgroup(host), pins(lab, host), run_dir(lab, host)
    devices = sh("ls /sys/class/net; ip -o link").splitlines()
    names = sorted({line.split(": ")[1].split("@")[0] for line in devices if ": " in line})
    left = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return {**settings(lab, host),
            "qdisc": sh("tc qdisc show"),
            "filter": "".join(sh(f"tc filter show dev {dev} {way} 2>/dev/null || true")
                              for dev in names for way in ("ingress", "egress")),
            "xdp": "\n".join(line for line in devices if "xdp" in line),
            "hooks": sh(f"bpftool cgroup tree {group}"),
            "groups": sh(f"find {group} -type d | sort"),
            "pins": sh(f"find {pin_dir} 2>/dev/null || true"),
            "run": " ".join(name for name in left if name not in KEPT_BY_A_DAEMON)}


def stands(lab, host: str, n_routes: int = 2) -> dict:
    """Every fact that is wrong about an attached host; empty: all in order."""
    now = snapshot(lab, host)
    facts = {
        "routes": len(LOCAL.findall(now["local"])) == n_routes,
        "arp_ignore": "ipv4/conf/eth0/arp_ignore:1" in now["sysctl"],
        "arp_announce": "ipv4/conf/eth0/arp_announce:2" in now["sysctl"],
        "guard": now["filter"].count("handle 0x5053 ps_guard_out") == 1,
        "one clsact": now["qdisc"].count("clsact") == 1,
        "xdp": "xdp" in now["xdp"],
        "hooks": sum(now["hooks"].count(f"ps_{name}") for name in ("connect4", "connect6", "bind4", "bind6",
                                                                  "sendmsg4", "sendmsg6", "sock_release",
                                                                  "sock_create", "sockops")) == 9,
        "pins": sum(name in now["pins"] for name in ("uplink-eth0", "hook-connect4", "pages",
                                                     "dispatch-counters")) == 4,
        "journal": "undo.json" in now["run"] and "plan.yaml" in now["run"],
        "no draft": ".new" not in now["run"],
    }
    return {fact: now for fact, holds in facts.items() if not holds}
