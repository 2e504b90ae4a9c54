# SPDX-License-Identifier: MIT
"""Control groups and the processes in them: how a lab finds and ends what it started, and nothing else."""
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import place

LAB_GROUP = "_lab"   # the lab's own daemons, beside one group for each host


def make_group(name: str, leaf: str) -> Path:
    group = place.cgroup(name) / leaf
    if not group.is_dir():
        place.make_below(group)
    return group


def enter_group(group: Path, pid: int = 0) -> None:
    (group / "cgroup.procs").write_text(str(pid))


def own_group() -> Path:
    """The cgroup v2 of the calling process."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return place.cgroup2() / line[3:].lstrip("/")
    raise place.LabError("this process is in no cgroup2")


def in_group(argv: list, group: Path) -> list:
    """argv, changed so that it begins life inside the group."""
    return ["sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', str(group), *argv]


def belongs(pid: int, name: str) -> bool:
    """Whether the process is one of this lab's; guards a pid from a file against reuse."""
    try:
        return f"/portslice-lab/{name}/" in Path(f"/proc/{pid}/cgroup").read_text() + "/"
    except OSError:
        return False


def stop(pid: int, name: str, timeout: float) -> None:
    """SIGTERM, and SIGKILL when the time is over; returns when the process is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if belongs(pid, name):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not select.select([handle], [], [], timeout)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], timeout)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _groups(root: Path) -> list:
    """The group and all below it, the deepest first."""
    return [Path(where) for where, _, _ in os.walk(root, topdown=False)]


def kill_groups(root: Path, timeout: float = 3) -> None:
    """Ends every process below the group at once, forks in flight included, and waits for them."""
    deadline = time.monotonic() + timeout
    try:
        (root / "cgroup.kill").write_text("1")
        while "populated 1" in (root / "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.005)
    except OSError:
        return


def remove_groups(root: Path) -> None:
    for group in _groups(root):
        try:
            group.rmdir()
        except OSError:
            continue


def in_namespaces(spaces: list) -> list:
    """Pids whose network namespace is one of these files, except the caller's own."""
    wanted = {(found.st_dev, found.st_ino) for found in (path.stat() for path in spaces)}
    pids = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            found = os.stat(f"/proc/{entry}/ns/net")
        except OSError:
            continue
        if (found.st_dev, found.st_ino) in wanted:
            pids.append(int(entry))
    return pids


def kill_namespaces(spaces: list) -> None:
    """Ends whatever else lives in these namespaces, say a shell somebody opened there."""
    for _ in range(20):
        pids = in_namespaces(spaces)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not pids:
            return
        time.sleep(0.01)


def leave_groups_of(name: str) -> None:
    """Takes the caller out of the lab's groups, so that it may end them."""
    if place.cgroup(name) in own_group().parents:
        enter_group(place.cgroup2())


def finish(process: subprocess.Popen, timeout: float) -> None:
    """Waits for a child; kills it when the time is over."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
