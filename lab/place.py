# SPDX-License-Identifier: MIT
"""Where a lab keeps things: everything global that it makes is named here and nowhere else.

  /run/netns/NAME-NODE               namespaces
  /run/portslice-lab/NAME/           topology, configs, logs, pcaps, pid files, store
  CGROUP2/portslice-lab/NAME/HOST    programs of a host: what the agent's hooks steer
  CGROUP2/portslice-lab/NAME/_lab    daemons of the lab itself: what they must not steer
  /sys/fs/bpf/portslice/NAME-HOST/   pins of a host's agent
  /run/portslice/NAME-HOST/          its control socket
"""
import os
import re
from pathlib import Path

STATE = Path("/run/portslice-lab")
NETNS = Path("/run/netns")
PINS = Path("/sys/fs/bpf/portslice")
SOCKETS = Path("/run/portslice")
REPO = Path(__file__).resolve().parent.parent
os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"   # su keeps a user's PATH


class LabError(Exception):
    """Something a lab could not do; the text says what and, where known, the cure."""


def check_name(name: str) -> str:
    """No dash: else lab `a` could not tell its namespace `a-b-c` from one of lab `a-b`."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,15}", name):
        raise LabError(f"lab name {name!r}: want a letter, then at most 15 letters, digits or '_', all lower case")
    return name


def cgroup2() -> Path:
    """The place where cgroup v2 is mounted, whichever it is."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind = line.split()[:3]
        if kind == "cgroup2":
            return Path(where)
    raise LabError("no cgroup2 is mounted; try: mount -t cgroup2 none /sys/fs/cgroup/unified")


def state(name: str) -> Path:
    return STATE / name


def cgroup(name: str) -> Path:
    return cgroup2() / "portslice-lab" / name


def netns(name: str, node: str) -> Path:
    return NETNS / f"{name}-{node}"


def pass_pin(name: str) -> Path:
    """Where lab/pass.bpf.c is pinned while the lab is being built."""
    return PINS.parent / f"portslice-lab-{name}"


def _below(root: Path, name: str) -> list:
    return sorted(root.glob(f"{name}-*")) if root.is_dir() else []


def all_netns(name: str) -> list:
    return _below(NETNS, name)


def all_pins(name: str) -> list:
    return _below(PINS, name)


def all_sockets(name: str) -> list:
    return _below(SOCKETS, name)


def traces(name: str) -> list:
    """Every path by which this lab shows on the machine; empty: it is not there."""
    fixed = [path for path in (state(name), cgroup(name), pass_pin(name)) if path.exists()]
    return fixed + all_netns(name) + all_pins(name) + all_sockets(name)


def names() -> list:
    """Labs that are up, or that left something."""
    roots = (STATE, cgroup2() / "portslice-lab")
    return sorted({path.name for root in roots if root.is_dir() for path in root.iterdir() if path.is_dir()})


def make_below(path: Path) -> None:
    """mkdir -p that survives another lab's `down` removing the empty parent at the same moment."""
    for _ in range(10):
        try:
            path.mkdir(parents=True)
            return
        except FileNotFoundError:
            continue
    raise LabError(f"cannot make {path}")


def build_dir() -> Path:
    return Path(os.environ.get("BUILD") or REPO / "build")


def binary(path: str) -> Path:
    """A program of the build: 'src/cli/portslice' or 'src/agent/portsliced'."""
    return build_dir() / path
