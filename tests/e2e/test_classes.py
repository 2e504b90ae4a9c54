# SPDX-License-Identifier: MIT
"""Which class a program belongs to, as the far end sees it on the wire, and as `portslice explain` says it."""
import ipaddress
import json
import subprocess

import pytest
from scapy.all import IP, TCP, rdpcap

import hostside
import programs
from conftest import ONE_SITE

PYTHON = "/usr/bin/python3"
WEB, OTHER = "203.0.113.2", "203.0.113.6"   # OTHER is client1
USERS = 12

# Order matters: the first class that matches is taken.
CLASSES = [
    {"name": "resolver", "match": {"cgroup": "/resolver"}, "tags": {"location": "LHR"}},
    {"name": "fixed", "match": {"from": "198.51.100.32/28"}, "tags": {"country": "DE"}},
    {"name": "partner", "match": {"cgroup": "/team", "to": f"{OTHER}/32"}, "tags": {"country": "FR"}},
    {"name": "person", "match": {"cgroup": "/team", "uid": "2000-2999"}, "tags": {"country": "IE"}},
    {"name": "marked", "match": {"cgroup": "/team", "mark": 9}, "tags": {"country": "DE"}},
    {"name": "team", "match": {"cgroup": "/team"}, "tags": {"country": "GB"}},
    {"name": "all", "match": {"mark": 5}, "tags": {"country": "FR"}},
    {"name": "guests", "match": {}, "tags": {"country": "GB", "trust": "untrusted"}},
]
BLOCKS = {"gb": "198.51.100.0/28", "ie": "198.51.100.16/28", "de": "198.51.100.32/28", "fr": "198.51.100.48/28",
          "site": "198.51.100.64/28", "guests": "198.51.100.80/28"}
TAGS = {"gb": {"country": "GB"}, "ie": {"country": "IE"}, "de": {"country": "DE"}, "fr": {"country": "FR"},
        "site": {"country": "FR", "location": "LHR"}, "guests": {"country": "GB", "trust": "untrusted"}}

# Connects from an address or from none, with a mark or with none, says who it is and where it stands, and waits.
PROGRAM = """
import os, socket, sys
mark, source, to = sys.argv[1:4]
held = socket.socket()
if mark != '0':
    held.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(mark))
uid = int(sys.argv[4])
if uid:
    os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
if source != '-':
    held.bind((source, 0))
held.settimeout(5)
held.connect((to, 80))
print(os.getpid(), '%s:%d' % held.getsockname(), flush=True)
sys.stdin.read()
"""


def plan_text(lab) -> str:
    pools = {name: {"tags": TAGS[name], "slice": 2048, "addresses": [{"prefix": block, "site": "LHR"}]}
             for name, block in BLOCKS.items()}
    # lhr1 has eight addresses of the pool gb with equal standing; the rest is dealt.
    slices = "slices:\n" + "".join(f"  198.51.100.{n}: {{ lhr1: 1 }}\n" for n in range(1, 9))
    return hostside.dealt(lab, lab.plan_text(pools, CLASSES) + slices)


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(ONE_SITE)
    lab.plan = plan_text(lab)
    lab.start_agents()
    hostside.apply(lab, lab.plan)
    lab.popen("client1", [PYTHON, "-m", "http.server", "80"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    programs.await_listener(lab, "client1", 80)
    return lab


def folder(lab, path: str):
    group = lab.cgroup("lhr1") / path
    group.mkdir(parents=True, exist_ok=True)
    return group


class Program:
    """A connection that is held open, by a program in a cgroup below the host's."""

    def __init__(self, lab, cgroup: str, to: str = WEB, mark: int = 0, source: str = "-", uid: int = 0):
        argv = [PYTHON, "-c", PROGRAM, str(mark), source, to, str(uid)]
        self.process = lab.popen("lhr1", argv, cgroup=folder(lab, cgroup) if cgroup else lab.cgroup("lhr1"),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said = self.process.stdout.readline().split()
        self.pid, self.end = (said + [None, None])[:2]
        self.argv = ["--pid", self.pid, "--to", f"{to}:80", "--mark", mark] + (["--from", source] if source != "-" else [])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.error = self.process.communicate(timeout=10)[1]

    def explained(self, lab) -> dict:
        return hostside.asked(lab, "lhr1", "explain", *self.argv)


def pool_of(address: str) -> str | None:
    return next((name for name, block in BLOCKS.items()
                 if ipaddress.ip_address(address) in ipaddress.ip_network(block)), None)


@pytest.mark.parametrize("cgroup, more, klass, pool", [
    ("team", {}, "team", "gb"),
    ("team/deep/er", {}, "team", "gb"),
    ("teams", {"mark": 9, "to": WEB}, None, None),
    ("team", {"mark": 9}, "marked", "de"),
    ("team", {"uid": 2000}, "person", "ie"),
    ("team", {"uid": 2999, "mark": 9}, "person", "ie"),
    ("team", {"uid": 3000}, "team", "gb"),
    ("team", {"to": OTHER}, "partner", "fr"),
    ("team", {"to": OTHER, "uid": 2500}, "partner", "fr"),
    ("team", {"source": "FIXED"}, "fixed", "de"),
    ("", {"source": "FIXED"}, "fixed", "de"),
    ("", {"mark": 5}, "all", "fr"),
    ("resolver", {"mark": 5, "to": OTHER}, "resolver", "site"),
    ("", {}, None, None),
])
def test_each_program_leaves_from_the_pool_of_its_class_and_explain_says_so(lab, cgroup, more, klass, pool):
    fixed = next(iter(held for held in slices(lab, "de")))["address"]
    more = {key: fixed if value == "FIXED" else value for key, value in more.items()}
    node = "client1" if more.get("to") == OTHER else "web1"
    if klass is None:   # nobody outside the lab answers to the host's own address
        said = hostside.asked(lab, "lhr1", "explain", "--pid", sleeper(lab, cgroup).pid, "--to", f"{WEB}:80",
                              "--mark", more.get("mark", 0))
        assert said["verdict"] == "outside" and said["class"] is None and not any(row["match"] for row in said["tried"])
        return
    with lab.capture(node, "eth0", "tcp dst port 80") as wire:
        with Program(lab, cgroup, **more) as program:
            said = program.explained(lab)
    assert program.end, program.error
    address, port = program.end.split(":")
    seen = {(packet[IP].src, packet[TCP].sport) for packet in rdpcap(str(wire.path)) if IP in packet}
    assert (address, int(port)) in seen and {pool_of(source) for source, _ in seen} == {pool}
    assert (said["verdict"], said["class"], said["pool"], said["address"]) == ("served", klass, pool, address)
    assert said["slices"][0]["first_port"] <= int(port) < said["slices"][0]["first_port"] + said["slices"][0]["ports"]
    assert [row["class"] for row in said["tried"] if row["match"]] == [klass] == [said["tried"][-1]["class"]]


def slices(lab, pool: str, host: str = "lhr1") -> list:
    return [held for held in hostside.asked(lab, "lhr1", "plan", "show")["slices"]
            if (held["host"], held["pool"]) == (host, pool)]


def sleeper(lab, cgroup: str):
    """A program that does nothing, in a cgroup; ends with the lab."""
    return lab.popen("lhr1", ["sleep", "300"], cgroup=folder(lab, cgroup) if cgroup else lab.cgroup("lhr1"))


def test_curl_asks_for_its_source_by_interface(lab):
    wanted = slices(lab, "de")[0]["address"]
    for cgroup in ("team", ""):
        done = lab.run("lhr1", ["curl", "-sS", "-o", "/dev/null", "-w", "%{local_ip}", "--interface", wanted, f"http://{WEB}/"],
                       cgroup=folder(lab, cgroup) if cgroup else lab.cgroup("lhr1"))
        assert done.stdout == wanted
    stolen = lab.run("lhr1", ["curl", "-sS", "--interface", slices(lab, "ie")[0]["address"], f"http://{WEB}/"],
                     cgroup=folder(lab, "team"), check=False)
    assert stolen.returncode == 45   # CURLE_INTERFACE_FAILED: another class's address


def test_one_user_keeps_one_address_and_users_are_spread(lab):
    homes = {}
    with lab.capture("web1", "eth0", "tcp dst port 80 and tcp[tcpflags] & tcp-syn != 0") as wire:
        for user in range(USERS):
            for _ in range(3):
                with Program(lab, f"team/user{user}") as program:
                    said = program.explained(lab)
                homes.setdefault(user, set()).add(program.end.split(":")[0])
                assert said["address"] in homes[user] and len(said["slices"]) == 8
    assert all(len(addresses) == 1 for addresses in homes.values()), homes
    used = set.union(*homes.values())
    assert len(used) >= 4 and used <= {f"198.51.100.{n}" for n in range(1, 9)}
    assert {packet[IP].src for packet in rdpcap(str(wire.path)) if IP in packet} == used


def test_run_by_several_tags_comes_before_every_match(lab):
    argv = [hostside.binary("portslice"), "run", "--tag", "country=GB", "--tag", "trust=untrusted", "--",
            PYTHON, "-c", PROGRAM, "9", "-", OTHER, "2500"]
    child = lab.popen("lhr1", argv, cgroup=folder(lab, "team"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid, end = child.stdout.readline().split()
    said = hostside.asked(lab, "lhr1", "explain", "--pid", pid, "--to", f"{OTHER}:80", "--mark", 9)
    child.communicate(timeout=10)
    assert pool_of(end.split(":")[0]) == "guests"
    assert (said["class"], said["pool"], said["address"]) == ("guests", "guests", end.split(":")[0])
    assert said["tried"] == [{"class": "guests", "match": True, "why": "`portslice run` started the program in it"}]


@pytest.mark.parametrize("more, code, verdict, words", [
    (["--to", "198.51.100.1:443"], 3, "refused", "shared address: ECONNREFUSED"),
    (["--to", "10.1.2.1:22"], 0, "direct", "host's own address"),
    (["--to", "127.0.0.1:22"], 0, "direct", "host's own address"),
    (["--to", f"{WEB}:80", "--from", "198.51.100.20"], 3, "refused", "no slice of the source asked for"),
    (["--to", "[2001:db8::1]:80"], 3, "refused", "IPv6 on this host: ENETUNREACH"),
])
def test_explain_tells_what_would_be_refused_or_left_alone(lab, more, code, verdict, words):
    program = sleeper(lab, "team")
    done = hostside.cli(lab, "lhr1", "explain", "--pid", program.pid, *more, check=False)
    assert done.returncode == code, done
    last = done.stdout.splitlines()[-1]
    assert last.startswith(f"{verdict}: ") and words in last
    known = hostside.cli(lab, "lhr1", "explain", "--pid", program.pid, *more, "--json", check=False)
    assert known.returncode == code and json.loads(known.stdout)["verdict"] == verdict


def test_explain_sees_programs_that_the_hooks_do_not(lab):
    elsewhere = lab.popen("lhr1", ["unshare", "-n", "sleep", "300"], cgroup=folder(lab, "team"))
    lab.wait(lambda: "namespace" in hostside.asked(lab, "lhr1", "explain", "--pid", elsewhere.pid, "--to",
                                                   f"{WEB}:80")["why"], 5, "another namespace")
    said = hostside.asked(lab, "lhr1", "explain", "--pid", 1, "--to", f"{WEB}:80")
    assert said["verdict"] == "unseen" and "not below the hooks' root" in said["why"]


@pytest.mark.parametrize("args, words", [
    ([], "expected --pid N and --to ADDRESS:PORT"), (["--pid", "x", "--to", "1.2.3.4:5"], "`x` is not a process id"),
    (["--pid", "1", "--to", "1.2.3.4"], "is not ADDRESS:PORT"), (["--pid", "1"], "expected --pid N and --to"),
    (["--pid", "1", "--to", "1.2.3.4:5", "--mark", "z"], "`z` is not a socket mark"),
    (["--pid", "1", "--to", "1.2.3.4:5", "--from", "z"], "`z` is not an address"),
    (["--pid", "4194304", "--to", "1.2.3.4:5"], "there is no process 4194304"),
])
def test_explain_says_what_is_wrong_with_the_question(lab, args, words):
    done = hostside.cli(lab, "lhr1", "explain", *args, check=False)
    assert done.returncode == 1 and words in done.stderr
