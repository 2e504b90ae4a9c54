# SPDX-License-Identifier: MIT
"""What people and their machines do wrong: each is told what is wrong and what to do, and nothing is half done."""
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import agents
import hostside
from conftest import ONE_SITE

HOSTS = ("lhr1", "lhr2", "lhr3")


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(ONE_SITE)
    lab.baseline = hostside.snapshot(lab, "lhr1")
    lab.plan = hostside.dealt(lab)
    return lab


@pytest.fixture
def running(lab):
    """Agents on every host with a plan in force."""
    hostside.end_all(lab)
    hostside.start_missing(lab)
    hostside.apply(lab, lab.plan)
    lab.wait(lambda: not hostside.stands(lab, "lhr1"), 3, "lhr1 stands")
    return lab


@pytest.fixture
def bare(lab):
    """A store with a plan, but no agent on lhr1, and nothing of ours on it."""
    hostside.end_all(lab)
    hostside.start_missing(lab)
    hostside.apply(lab, lab.plan)
    lab.stop_agents(["lhr1"])
    hostside.cli(lab, "lhr1", "detach")
    assert hostside.snapshot(lab, "lhr1") == lab.baseline
    return lab


# -- preconditions ------------------------------------------------------------------------------------------------

PRECONDITIONS = {
    "a missing capability": (["setpriv", "--bounding-set", "-bpf"], [], "missing capability CAP_BPF: run as root"),
    "two missing capabilities": (["setpriv", "--bounding-set", "-bpf,-net_admin"], [],
                                 "missing capability CAP_NET_ADMIN, CAP_BPF: run as root"),
    "nobody": (["setpriv", "--reuid", "65534", "--clear-groups"], [], "missing capability CAP_NET_ADMIN, CAP_BPF, "),
    "no BTF": (["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$0" "$@"'], [],
               "this kernel has no BTF (/sys/kernel/btf/vmlinux): use a kernel built with CONFIG_DEBUG_INFO_BTF"),
    "no bpffs": (["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys/fs/bpf && '
                  'exec setpriv --bounding-set -sys_admin "$0" "$@"'], [],
                 "/sys/fs/bpf is not a BPF file system and cannot be mounted: mount -t bpf bpf /sys/fs/bpf"),
    "a cgroup that is none": ([], ["--cgroup", "/tmp"], "/tmp is not a cgroup2 folder: name one with --cgroup"),
    "a cgroup that is not there": ([], ["--cgroup", "/nowhere"], "/nowhere is not a cgroup2 folder: name one"),
    "a store of an unknown kind": ([], ["--store", "mongo:/x"], "--store mongo:/x: "),
}


@pytest.mark.parametrize("what", PRECONDITIONS)
def test_an_agent_that_can_never_work_says_why_and_ends_with_2(bare, what):
    before, extra, message = PRECONDITIONS[what]
    code, said = hostside.ends(hostside.daemon(bare, "lhr1", *extra, before=before))
    assert code == 2 and message in said and len(said.splitlines()) == 1
    assert hostside.snapshot(bare, "lhr1") == bare.baseline


def test_a_missing_bpffs_is_mounted_by_an_agent_that_may(bare):
    script = 'mount -t tmpfs none /sys/fs/bpf && "$0" "$@"; findmnt -no FSTYPE /sys/fs/bpf | tail -1'
    child = hostside.daemon(bare, "lhr1", "--detach", before=["unshare", "-m", "sh", "-c", script])
    assert hostside.ends(child)[1].split() == ["bpf"]


def test_a_damaged_journal_is_named_and_left_to_the_operator(bare):
    journal = hostside.run_dir(bare, "lhr1") / "undo.json"
    journal.parent.mkdir(parents=True)
    journal.write_text("{")
    code, said = hostside.ends(hostside.daemon(bare, "lhr1"))
    assert code == 2 and f"{journal}: damaged (remove it if" in said and journal.read_text() == "{"
    journal.unlink()
    hostside.cli(bare, "lhr1", "detach")


@pytest.mark.parametrize("wrong", [["--nonsense"], ["stray"], ["--without", "soul"], ["--instance", "a/b"]])
def test_wrong_use_of_the_daemon_ends_with_1_and_a_hint(bare, wrong):
    code, said = hostside.ends(hostside.daemon(bare, "lhr1", *wrong))
    assert code == 1 and ("portsliced --help" in said or "--without takes" in said)


def test_an_xdp_program_of_others_is_named_and_nothing_is_half_done(bare):
    pin = f"/sys/fs/bpf/{bare.name}_theirs"
    bare.run("lhr1", ["sh", "-c", f"bpftool prog load {bare.state}/pass.bpf.o {pin}; "
                      f"ip link set eth0 xdp pinned {pin}; rm {pin}"])
    theirs = hostside.snapshot(bare, "lhr1")
    number = re.search(r"prog/xdp id (\d+)", theirs["xdp"])[1]
    child = hostside.daemon(bare, "lhr1")
    def refusal():
        try:
            return hostside.status(bare, "lhr1")["refusal"]
        except Exception:
            return None
    said = bare.wait(refusal, 5, "refused")
    assert f"XDP program 'lab_pass' (id {number}) is already attached to eth0: detach it first, e.g. ip link set dev eth0 xdp off" in said
    assert {**hostside.snapshot(bare, "lhr1"), "pins": theirs["pins"]} == theirs
    bare.run("lhr1", ["ip", "link", "set", "eth0", "xdp", "off"])
    bare.wait(lambda: hostside.status(bare, "lhr1")["state"] == "attached", 8, "attached by itself")
    assert not hostside.stands(bare, "lhr1")
    hostside.end(child)


def test_an_uplink_whose_driver_has_no_xdp_is_served_in_generic_mode(bare):
    bare.run("lhr1", ["ip", "link", "add", "dum0", "type", "bridge"])
    plan = bare.plan.replace("underlay: 10.1.1.1, uplinks: [eth0]", "underlay: 10.1.1.1, uplinks: [eth0, dum0]")
    bare.start_agents(hosts=["lhr1"])
    hostside.apply(bare, plan)
    assert {uplink["name"]: uplink["xdp"] for uplink in hostside.status(bare, "lhr1")["uplinks"]} == \
        {"eth0": "native", "dum0": "generic"}
    notes = {uplink["name"]: uplink["note"] for uplink in hostside.asked(bare, "lhr1", "show", "uplinks")}
    assert notes == {"eth0": None, "dum0": "bridge has no native XDP: packets cost several times as much"}
    hostside.apply(bare, bare.plan)
    assert "xdp" not in bare.run("lhr1", ["ip", "link", "show", "dum0"]).stdout  # left by the new plan
    bare.run("lhr1", ["ip", "link", "del", "dum0"])


def test_a_second_agent_of_the_same_instance_is_refused_and_the_first_unharmed(running):
    before = hostside.link_ids(running, "lhr1")
    code, said = hostside.ends(hostside.daemon(running, "lhr1"))
    assert code == 2 and f"another portsliced runs as instance `{running.name}-lhr1`: stop it, or choose" in said
    assert hostside.link_ids(running, "lhr1") == before and not hostside.stands(running, "lhr1")


@pytest.mark.parametrize("underlay", ["10.1.1.1", "10.1.1.99"])
def test_a_second_agent_on_the_same_uplink_is_refused_and_the_first_unharmed(running, underlay):
    """With the same plan, or with one of its own that gives it another underlay address."""
    store, name = running.state / "second.db", f"{running.name}-second"
    running.run("lhr1", ["ip", "addr", "replace", "10.1.1.99/32", "dev", "lo"])
    before, filters = hostside.link_ids(running, "lhr1"), hostside.snapshot(running, "lhr1")["filter"]
    child = hostside.daemon(running, "lhr1", "--instance", name, "--store", f"sqlite:{store}")
    said = lambda: running.run("lhr1", [hostside.binary("portslice"), "--instance", name, "status", "--json"],
                               check=False).stdout
    running.wait(said, 5, "the second answers")
    refused = hostside.apply(running, running.plan.replace("10.1.1.1", underlay), store=f"sqlite:{store}", check=False)
    assert refused.returncode == 2 and f"{name} refuses: XDP program " in refused.stderr
    assert not json.loads(said())["store_trouble"] and json.loads(said())["state"] == "waiting"
    hostside.end(child)
    assert hostside.link_ids(running, "lhr1") == before
    assert hostside.snapshot(running, "lhr1")["filter"] == filters
    assert hostside.fetch(running, "lhr1").startswith("198.51.100.1:")
    running.run("lhr1", [hostside.binary("portslice"), "--instance", name, "detach"])
    assert hostside.link_ids(running, "lhr1") == before and not hostside.stands(running, "lhr1")


# -- plans --------------------------------------------------------------------------------------------------------

PLANS = {
    "no such host": (("  lhr3:", "  lhr9:"), "lhr3", "the plan has no host `lhr3`: add it under `hosts`, or start"),
    "no such uplink": (("10.1.2.1, uplinks: [eth0]", "10.1.2.1, uplinks: [eth7]"), "lhr2",
                       "uplink `eth7` of host `lhr2` does not exist here: name an interface that `ip link` shows"),
}


@pytest.mark.parametrize("what", PLANS)
def test_a_plan_that_does_not_fit_one_host_is_refused_by_name_and_not_written(running, what):
    (old, new), who, message = PLANS[what]
    text = hostside.dealt(running, running.plan_text().replace(old, new))
    before = hostside.status(running, who)["revision"]
    done = hostside.apply(running, text, check=False)
    assert done.returncode == 2 and f"{running.name}-{who} refuses: {message}" in done.stderr
    assert "applied" not in done.stdout
    assert len(hostside.asked(running, "lhr1", "plan", "history")) == before == hostside.status(running, who)["revision"]


def test_a_plan_that_reached_the_store_some_other_way_is_refused_loudly_and_the_old_state_stays(running):
    """An apply cannot ask an agent that does not run just then."""
    before = hostside.link_ids(running, "lhr2")
    lone = running.plan.replace("10.1.2.1, uplinks: [eth0]", "10.1.2.1, uplinks: [eth7]")
    hostside.kill_agent(running, "lhr2")
    hostside.apply(running, lone)
    running.start_agents(hosts=["lhr2"])
    running.wait(lambda: "eth7" in (hostside.status(running, "lhr2")["refusal"] or ""), 3, "lhr2 says why")
    assert "plan_refused" in [event["kind"] for event in hostside.events(running, "lhr2")]
    assert hostside.link_ids(running, "lhr2") == before
    running.wait(lambda: "plan_differs" in [event["kind"] for event in hostside.events(running, "lhr1")], 4, "lhr1 says so")
    assert hostside.fetch(running, "lhr2").startswith("198.51.100.1:")
    done = hostside.apply(running, running.plan)  # the earlier refusal is not taken for this one's
    assert "in force at 3 agents" in done.stdout and not hostside.status(running, "lhr2")["refusal"]


def test_a_store_named_in_another_way_is_known_as_the_same(running):
    store = Path(agents.store(running.name).removeprefix("sqlite:"))
    other = f"sqlite:{store.parent}/./{store.name}"
    done = hostside.apply(running, running.plan.replace("10.1.2.1, uplinks: [eth0]", "10.1.2.1, uplinks: [eth7]"),
                          store=other, check=False)
    assert done.returncode == 2 and f"{running.name}-lhr2 refuses: uplink `eth7`" in done.stderr


# -- the store ----------------------------------------------------------------------------------------------------

def _newer(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version = 99")


def _truncate(file: Path) -> None:
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(file, file.stat().st_size // 2)


def _replace_by_garbage(file: Path) -> None:
    fresh = file.with_suffix(".garbage")
    fresh.write_bytes(b"garbage " * 1000)
    for path in file.parent.glob(file.name + "-*"):
        path.unlink()
    fresh.rename(file)


def _replace_by_folder(file: Path) -> None:
    for path in file.parent.glob(file.name + "*"):
        path.unlink()
    file.mkdir()


def _delete_folder(file: Path) -> None:
    shutil.rmtree(file.parent)


STORES = {
    "deleted with its folder": (_delete_folder, "cannot be created: make its folder first|is gone: restore it, or write it anew"),
    "a folder": (_replace_by_folder, "is not a file: name another path"),
    "unreadable": (lambda file: file.chmod(0), "must be readable and writable"),
    "truncated": (_truncate, "is damaged|is not a portslice store"),
    "garbage": (_replace_by_garbage, "is not a portslice store: name another path, or move it away"),
    "empty": (lambda file: (_replace_by_garbage(file), os.truncate(file, 0)), "is empty, a store never is: restore"),
    "newer": (_newer, "made by a newer portslice, .*upgrade portslice on this host"),
}


@pytest.mark.parametrize("when", ["running", "starting"])
@pytest.mark.parametrize("what", STORES)
def test_a_store_that_is_broken_is_named_with_the_remedy_and_stops_nothing(running, what, when):
    lab, (damage, message) = running, STORES[what]
    folder = lab.state / "own-store"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    file, url = folder / "own.db", f"sqlite:{folder}/own.db"
    lab.stop_agents(["lhr1"])
    lab.start_agents(hosts=["lhr1"], extra=["--store", url])
    hostside.apply(lab, lab.plan, store=url)
    with sqlite3.connect(file) as db:
        good = folder.with_suffix(".backup")
        good.unlink(missing_ok=True)
        db.execute("VACUUM INTO ?", (str(good),))
    before = hostside.link_ids(lab, "lhr1")
    if when == "starting":
        lab.stop_agents(["lhr1"])
    damage(file)
    if when == "starting":
        lab.start_agents(hosts=["lhr1"], extra=["--store", url])
    elif what in ("truncated", "newer", "unreadable"):  # an open file is not asked these again
        hostside.kill_agent(lab, "lhr1")
        lab.start_agents(hosts=["lhr1"], extra=["--store", url])
    def trouble():
        return hostside.status(lab, "lhr1")["store_trouble"] or ""
    lab.wait(lambda: str(file) in trouble() and re.search(message, trouble()), 4, "said so in status")
    assert [event for event in hostside.events(lab, "lhr1") if event["kind"] == "store_trouble"]
    assert hostside.status(lab, "lhr1")["state"] == "attached"
    assert hostside.link_ids(lab, "lhr1") == before and not hostside.stands(lab, "lhr1")
    assert hostside.fetch(lab, "lhr1").startswith("198.51.100.1:")
    if what != "unreadable":  # the command line has root's full power, the agent has not
        done = hostside.apply(lab, lab.plan, store=url, check=False)
        assert done.returncode == 2 and re.search(message, done.stderr)

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(good, file)
    lab.wait(lambda: not hostside.status(lab, "lhr1")["store_trouble"], 4, "the agent recovers by itself")
    hostside.apply(lab, lab.plan.replace("lhr3: 3", 'lhr3: "3,8"'), store=url)
    lab.stop_agents(["lhr1"])


def test_a_store_file_deleted_alone_is_told_until_the_plan_is_applied_again(running):
    """A lost store is no order to take anything off, and is not replaced by an empty one."""
    lab, folder = running, running.state / "own-store"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    url = f"sqlite:{folder}/own.db"
    lab.stop_agents(["lhr1"])
    lab.start_agents(hosts=["lhr1"], extra=["--store", url])
    hostside.apply(lab, lab.plan, store=url)
    for path in folder.iterdir():
        path.unlink()
    lab.wait(lambda: "own.db is gone" in (hostside.status(lab, "lhr1")["store_trouble"] or ""), 3, "said so")
    assert not list(folder.iterdir())
    assert not hostside.stands(lab, "lhr1") and hostside.fetch(lab, "lhr1").startswith("198.51.100.1:")
    assert "applied as revision 1" in hostside.apply(lab, lab.plan, store=url).stdout
    assert not hostside.status(lab, "lhr1")["store_trouble"]
    lab.stop_agents(["lhr1"])


# -- the control socket -------------------------------------------------------------------------------------------

def _connect(lab, host: str) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX)
    wire.settimeout(10)
    wire.connect(str(hostside.run_dir(lab, host) / "control.sock"))
    return wire


def _rss_kib(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


@pytest.mark.parametrize("line", [b"garbage", b"\xff\x00\xfe", b"[]", b"{}", b'{"verb": 7}', b'{"verb": "status"', b"",
                                  b'{"verb": "no such"}', b'{"verb": "class", "name": 7}', b'{"verb": "judge"}',
                                  b'{"verb": "judge", "text": "\\u0000"}', b"[" * 100000])
def test_nonsense_on_the_control_socket_is_answered_with_an_error(running, line):
    with _connect(running, "lhr1") as wire:
        wire.sendall(line + b"\n")
        assert "error" in json.loads(wire.makefile().readline())


def test_fifty_megabytes_without_a_newline_are_not_kept(running):
    pid = running.agent_pid("lhr1")
    before = _rss_kib(pid)
    with _connect(running, "lhr1") as wire:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(50):
                wire.sendall(b"x" * (1 << 20))
    assert hostside.status(running, "lhr1")["state"] == "attached"
    running.wait(lambda: _rss_kib(pid) < before + 4096, 3, "the memory is given back")


def test_clients_that_stop_half_way_or_never_read_do_not_hold_the_agent_up(running):
    pid, wires = running.agent_pid("lhr1"), []
    before = _rss_kib(pid)
    try:
        for _ in range(20):
            wires.append(_connect(running, "lhr1"))
            wires[-1].sendall(b'{"verb": "sta')
        for _ in range(5):
            wires.append(_connect(running, "lhr1"))
            wires[-1].setblocking(False)
            try:
                while True:  # asks without end, reads nothing
                    wires[-1].send(b'{"verb": "plan"}\n' * 1000)
            except BlockingIOError:
                pass
        began = time.monotonic()
        for _ in range(5):
            assert hostside.status(running, "lhr1")["state"] == "attached"
        assert time.monotonic() - began < 5
        assert _rss_kib(pid) < before + 20 * 1024
    finally:
        for wire in wires:
            wire.close()


def test_a_user_may_read_but_not_change_and_cannot_use_up_the_daemon(running):
    user = ["setpriv", "--reuid", "65534", "--clear-groups"]
    portslice = [*user, hostside.binary("portslice")]
    for verb in (["status"], ["show", "slices"], ["show", "counters"], ["events"], ["plan", "show"], ["show", "hosts"],
                 ["who", "198.51.100.1:2048"]):
        assert running.run("lhr1", [*portslice, *verb]).returncode == 0
    for verb in ("attach", "detach"):
        done = running.run("lhr1", [*portslice, verb], check=False)
        assert done.returncode == 2 and "not permitted: run as root" in done.stderr
    crowd = "import socket, sys, time\nopen_ = []\ntry:\n  for _ in range(900):\n    s = socket.socket(socket.AF_UNIX)\n" \
            f"    s.connect('{hostside.run_dir(running, 'lhr1')}/control.sock'); open_.append(s)\n" \
            "except OSError: pass\nprint(len(open_), flush=True)\nsys.stdin.read()\n"
    child = running.popen("lhr1", [*user, sys.executable, "-c", crowd], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert int(child.stdout.readline()) > 100
    pid = running.agent_pid("lhr1")
    running.wait(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 200, 5, "the crowd is sent away")
    assert hostside.status(running, "lhr1")["state"] == "attached"  # root is served
    child.communicate("", timeout=10)


def test_a_daemon_that_hangs_is_told_as_not_reachable(running):
    """A socket that accepts and says nothing, in place of the daemon's."""
    folder = Path("/run/portslice") / f"{running.name}-mute"
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(folder / "control.sock"))
        mute.listen()
        child = subprocess.Popen([hostside.binary("portslice"), "--instance", folder.name, "status"],
                                 stderr=subprocess.PIPE, text=True)
        wire, _ = mute.accept()
        wire.close()
        assert "hung up or hangs" in child.communicate(timeout=10)[1] and child.returncode == 4
    shutil.rmtree(folder)
