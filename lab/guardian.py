# SPDX-License-Identifier: MIT
"""Builds a lab and answers for it: `guardian.py NAME TOPOLOGY OWNER_PID` (0: nobody).

Whoever wants a lab starts this process in a session of its own and keeps a pipe to its standard input. The
guardian forks a builder and watches three things: the builder, the pipe (its end means that the starter died)
and the owner. Whichever fails, the lab goes, half-built or whole. Builder and guardian live in the lab's own
control group, so that `down` ends them together with everything they started.

Without an owner the guardian's task ends when the lab stands. The answer is one line on standard output:
`ready` or `error TEXT`.
"""
import os
import select
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import bird
import net
import place
import process
import services
from teardown import teardown
from topology import Topology, TopologyError, load


def _folders(topology: Topology, name: str) -> None:
    for folder in (*topology.nodes, "store", "pcap"):
        (place.state(name) / folder).mkdir()
    for host in topology.hosts:
        process.make_group(name, host)


def build(topology: Topology, name: str) -> None:
    """Everything, in order; raises at the first thing that fails and leaves the rest to teardown()."""
    _folders(topology, name)
    net.mount_bpffs()
    net.create(topology, name)
    bird.start(topology, name)
    services.start(topology, name)
    if topology.bgp:
        bird.converge(topology, name)


def _let_go(*fds: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(nowhere, fd)
    os.close(nowhere)


def _fork_builder(topology: Topology, name: str) -> tuple:
    """(pid, pipe): the pipe brings the text of a failure, nothing on success."""
    back, forth = os.pipe()
    pid = os.fork()
    if pid:
        os.close(forth)
        return pid, back
    try:
        _let_go(0, 1)   # else the starter would not see the guardian die while the builder lives
        build(topology, name)
        os._exit(0)
    except (place.LabError, OSError) as error:
        os.write(forth, str(error).encode()[:4000])
    except BaseException:
        os.write(forth, traceback.format_exc().encode()[-4000:])
    os._exit(1)


def _watch_build(builder: int, owner: int | None) -> str:
    """Waits for the builder; an empty answer means that it was done and nobody died meanwhile."""
    done = os.pidfd_open(builder)
    ready = select.select([fd for fd in (done, 0, owner) if fd is not None], [], [])[0]
    if 0 in ready:
        return "whoever asked for the lab died"
    if owner in ready:
        return "the lab's owner died"
    return "" if os.waitpid(builder, 0)[1] == 0 else "failed"


def _claim(name: str, topology_file: str) -> None:
    """Making the state folder is what makes a name ours; only then may anything else be touched."""
    others = [path for path in place.traces(name) if path != place.state(name)]
    try:
        place.make_below(place.state(name))
    except FileExistsError:
        others.append(place.state(name))
    if others:
        raise FileExistsError(f"lab {name} is there already ({others[0]}); try: lab.py down --name {name}")
    (place.state(name) / "guardian.pid").write_text(str(os.getpid()))
    process.enter_group(process.make_group(name, process.LAB_GROUP))
    shutil.copyfile(topology_file, place.state(name) / "topology.yaml")


def _answer(text: str) -> None:
    """To the starter, which may be dead. Afterwards nothing of the starter's is held open."""
    try:
        os.write(1, (" ".join(text.split()) + "\n").encode())
    except OSError:
        pass
    _let_go(0, 1, 2)


def guard(name: str, topology_file: str, owner_pid: int) -> int:
    owner = os.pidfd_open(owner_pid) if owner_pid else None
    topology = load(topology_file)
    _claim(name, topology_file)
    try:
        builder, pipe = _fork_builder(topology, name)
        trouble = _watch_build(builder, owner)
        if trouble:
            process.leave_groups_of(name)
            process.kill_groups(place.cgroup(name))
            trouble = os.read(pipe, 4000).decode() or trouble
    except BaseException:
        teardown(name)
        raise
    if trouble:
        teardown(name)
        _answer(f"error {trouble}")
        return 1
    _answer("ready")
    if owner is not None:
        select.select([owner], [], [])
        teardown(name)
    return 0


def _claimed_by(name: str, pid: int) -> bool:
    try:
        return (place.state(name) / "guardian.pid").read_text() == str(pid)
    except OSError:
        return False


def start(name: str, topology_file: Path, owner_pid: int | None) -> subprocess.Popen:
    """Starts a guardian and returns when the lab stands; the caller keeps the process. Raises LabError."""
    child = subprocess.Popen([sys.executable, __file__, name, str(topology_file), str(owner_pid or 0)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    answer = child.stdout.readline().strip()
    if answer == "ready":
        child.stdout.close()
        return child
    child.stdin.close()
    child.wait()
    if not answer and _claimed_by(name, child.pid):
        teardown(name)
    raise place.LabError(f"lab {name}: {answer.removeprefix('error ') or 'its guardian died'}")


if __name__ == "__main__":
    try:
        sys.exit(guard(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    except (OSError, TopologyError, place.LabError) as failure:
        _answer(f"error {failure}")
        sys.exit(1)
