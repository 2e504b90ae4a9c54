# SPDX-License-Identifier: MIT
"""What single programs meet: full destinations, listeners, sockets they bind themselves, and plans that change."""
import errno
import json
import subprocess
import time
from collections import Counter

import pytest
import yaml

import agents
import plane
import programs
import wire
from conftest import ONE_SITE
from programs import DNS, WEB1, WEB2

PYTHON = "/usr/bin/python3"
GB, SMALL = "country=GB", "size=small"
CLIENT = "203.0.113.134"
SERVICE = ("198.51.100.1", 4100)   # in lhr2's slice


def pool(tags: dict, lhr: str, cdg: str, **more) -> dict:
    addresses = [{"prefix": lhr, "site": "LHR"}, {"prefix": cdg, "site": "CDG"}]
    return {"tags": tags, "slice": 2048, "unowned": "reject", **more, "addresses": addresses}


POOLS = {"gb": pool({"country": "GB"}, "198.51.100.0/26", "198.51.100.64/26"),
         "ie": pool({"country": "IE"}, "198.51.100.128/27", "198.51.100.160/27"),
         "small": pool({"size": "small"}, "198.51.100.192/28", "198.51.100.208/28", slice=128),
         "quiet": pool({"country": "DE"}, "198.51.100.224/29", "198.51.100.240/29", unowned="drop")}
FRANCE = pool({"country": "FR"}, "198.51.100.248/30", "198.51.100.252/30")
SERVICES = f"services:\n  - {{ name: www, address: {SERVICE[0]}, port: {SERVICE[1]}, protocol: tcp, host: lhr2 }}\n"

HOLD = """
import socket, sys
held = [socket.create_connection(place.split(':'), 10) for place in sys.argv[2:] for _ in range(int(sys.argv[1]))]
print(*('%s:%d' % one.getsockname() for one in held), flush=True)
for line in sys.stdin:
    held[0].sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
    print(held[0].makefile().readline().strip(), flush=True)
"""
UDP_TALK = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    one.settimeout(2)
    one.connect((sys.argv[1], int(sys.argv[2])))
    print('%s:%d' % one.getsockname(), flush=True)
    one.send(b'hello')
    try:
        one.recv(100)
    except OSError as error:
        print(type(error).__name__)
"""
UDP_LOOSE = """
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', ('203.0.113.6', 9))
except OSError as error:
    print(error.errno)
"""
MARKED = """
import socket, sys
with socket.socket() as one:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(sys.argv[1]))
    one.connect(('203.0.113.2', 80))
    print(one.getsockname()[0])
"""
ACKED = """
from scapy.all import IP, TCP, sr1, conf
conf.verb = 0
reply = sr1(IP(dst='198.51.100.1') / TCP(sport=7777, dport=40001, flags='A', seq=1000, ack=5000), timeout=3)
print(reply[TCP].flags, reply[TCP].seq)
"""


def refuses(lab, url: str) -> bool:
    return curl(lab, "client1", url).returncode == 7


@pytest.fixture(scope="module")
def job(new_lab):
    """A lab with agents whose tables are fresh, and its plan. Tests leave the plan as they found it."""
    lab = new_lab()
    owned = plane.start(lab, lab.plan_text(POOLS) + SERVICES)
    for address in ("198.51.100.1", "198.51.100.64"):
        for port in range(40000, 40020):   # every host of both sites answers
            lab.wait(lambda: refuses(lab, f"http://{address}:{port}/"), 10, "fresh tables")
    return lab, owned


def curl(lab, node: str, url: str, *options, wish: str = "", **more):
    """A page by curl, from a class or from none: its body, then what curl says of its own end."""
    argv = ["curl", "-gsS", "--connect-timeout", "2", "-m", "5", "-w", "%{local_ip}:%{local_port}", *options, url]
    return plane.run(lab, node, wish, argv, check=False, **more) if wish else lab.run(node, argv, check=False, **more)


def hold(lab, host: str, wish: str, each: int, *places: str) -> tuple:
    """A process that keeps `each` connections open to every place, and its own view of their near ends."""
    process = plane.popen(lab, host, wish, [PYTHON, "-c", HOLD, each, *places], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE)
    return process, process.stdout.readline().split()


def let_go(process) -> None:
    process.stdin.close()
    assert process.wait(10) == 0


def listen(lab, host: str, port: int, bind: str = "0.0.0.0", wish: str = ""):
    """A web server on the host; the path is its log, one line a request."""
    log = lab.state / host / f"listener-{port}.log"
    argv = [PYTHON, "-u", "-m", "http.server", port, "--bind", bind, "--directory", lab.state / "web1" / "www"]
    with open(log, "w", encoding="utf-8") as out:
        more = {"stdout": subprocess.DEVNULL, "stderr": out}
        process = plane.popen(lab, host, wish, argv, **more) if wish else lab.popen(host, argv, **more)
    programs.await_listener(lab, host, port)
    return process, log


def end(process) -> None:
    process.terminate()
    process.wait(5)


def peers(lab, node: str, port: int) -> list:
    """The far ends of a server's connections, as its kernel has them."""
    lines = lab.run(node, ["ss", "-Htn", "state", "established", f"sport = :{port}"]).stdout.splitlines()
    return [line.split()[3] for line in lines]


# -- a destination becomes full ------------------------------------------------------------------------------------


def test_every_port_serves_three_destinations_at_once_and_then_programs_are_told(job):
    lab, owned = job
    (address, ports), = owned.slices("lhr1", "small")
    shared = ports[:len(ports) - len(ports) // 8]  # the others are for sockets without a peer
    wanted = {f"{address}:{port}" for port in shared}
    holder, own_view = hold(lab, "lhr1", SMALL, len(shared), f"{WEB1}:80", f"{WEB2}:80", f"{DNS}:53")
    for node, port in (("web1", 80), ("web2", 80), ("dns1", 53)):
        seen = peers(lab, node, port)
        assert len(seen) == len(shared) == 112 and set(seen) == wanted
    assert Counter(own_view) == dict.fromkeys(wanted, 3)

    before = plane.counters(lab, "lhr1")["egress", "exhausted"]
    full = curl(lab, "lhr1", f"http://{WEB1}/", "-v", wish=SMALL)
    assert full.returncode == 7 and "Cannot assign requested address" in full.stderr
    assert plane.counters(lab, "lhr1")["egress", "exhausted"] == before + 1
    event = lab.wait(lambda: plane.events(lab, "lhr1", "exhausted"), 5, "the event")[-1]
    assert (event["program"], event["destination"], event["pool"]) == ("curl", f"{WEB1}:80", "small")
    assert "another slice" in event["advice"]

    elsewhere = curl(lab, "lhr1", f"http://{CLIENT}/", "-v", wish=SMALL)
    assert "Connection refused" in elsewhere.stderr, "another destination has every port free"
    let_go(holder)
    assert curl(lab, "lhr1", f"http://{WEB1}/", wish=SMALL).returncode == 0


# -- what strangers reach ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["", GB, "country=DE"])
def test_a_listener_on_all_addresses_is_not_reachable_through_our_slice(job, wish):
    """Refused, or met by silence: if the pool drops, or the packet reached its owner with no steps left."""
    lab, owned = job
    (address, ports), = owned.slices("lhr1", "quiet" if wish == "country=DE" else "gb")
    port = ports[77]
    listener, log = listen(lab, "lhr1", port, wish=wish)
    with lab.capture("lhr1", "eth0", f"tcp dst port {port} and host {address}") as stack:
        for node in ("client1", "web1") * 3:
            answer = curl(lab, node, f"http://{address}:{port}/", "--connect-timeout", "0.5")
            assert answer.returncode in ((28,) if wish == "country=DE" else (7, 28))
    assert curl(lab, "lhr-r", f"http://10.1.1.1:{port}/").returncode == 0, "it does listen"
    end(listener)
    assert stack.count() == 0 and log.read_text().count("GET") == 1


def test_port_22_of_a_proxys_host_is_not_reachable_through_the_proxy(job):
    lab, owned = job
    listener, log = listen(lab, "lhr1", 22)
    programs.squid(lab, "lhr1", mark=1)
    tunnel = lambda place: curl(lab, "lhr-r", f"http://{place}/", "--proxytunnel", "--proxy", "http://10.1.1.1:3128",
                                "-w", "%{http_connect}").stdout  # noqa: E731
    shared = [address for name in ("gb", "ie", "small", "quiet") for address, _ in owned.slices("lhr1", name)]
    assert {address: tunnel(f"{address}:22")[-3:] for address in [*shared, "198.51.100.2"]} == dict.fromkeys(
        [*shared, "198.51.100.2"], "503")
    assert log.read_text() == ""
    assert tunnel("10.1.1.1:22").endswith("200"), "it does listen"
    end(listener)


@pytest.mark.parametrize("bind", ["0.0.0.0", SERVICE[0]])
def test_a_published_service_is_reachable_by_every_host_of_either_site(job, bind):
    lab, _ = job
    listener, log = listen(lab, "lhr2", SERVICE[1], bind)
    ends = {host: lab.topology.uplink(host)[1] for host in lab.topology.hosts}
    opening = f"dst host {SERVICE[0]} and tcp dst port {SERVICE[1]} and tcp[13] = 2"
    syns = {host: lab.capture(far.node, far.dev, opening) for host, far in ends.items()}
    for node in ("client1", "web1"):
        url = f"http://{SERVICE[0]}:{SERVICE[1]}/"
        assert programs.fetch(lab, node, url, 40, "--parallel-max", "2").count() == 40
    first_hit = {host: (syn.stop(), syn.count())[1] for host, syn in syns.items()}
    end(listener)
    assert min(first_hit.values()) > 0 and sum(first_hit.values()) == 80, first_hit
    assert log.read_text().count("GET") == 80


@pytest.mark.parametrize("address", ["198.51.100.1", "198.51.100.64"])
def test_a_connection_to_a_port_of_nobody_is_refused_at_once(job, address):
    lab, owned = job
    assert owned.owner(address, 40000) is None
    with lab.capture("client1", "eth0", "tcp port 40000") as port:
        answer = curl(lab, "client1", f"http://{address}:40000/")
    assert answer.returncode == 7
    syn, reset = wire.read(port.path)
    assert (syn.flags, reset.flags) == (wire.SYN, wire.RST | wire.ACK)
    assert (reset.seq, reset.ack, reset.flow) == (0, (syn.seq + 1) % 2**32, syn.back)


def test_a_segment_of_no_connection_to_a_port_of_nobody_draws_the_reset_it_asks_for(job):
    lab, _ = job
    assert lab.run("client1", [PYTHON, "-c", ACKED]).stdout.split() == ["R", "5000"]


@pytest.mark.parametrize("address", ["198.51.100.1", "198.51.100.64"])
def test_a_datagram_to_a_port_of_nobody_is_refused_by_icmp(job, address):
    lab, _ = job
    assert lab.run("client1", [PYTHON, "-c", UDP_TALK, address, 40000]).stdout.split()[1] == "ConnectionRefusedError"


@pytest.mark.parametrize("address", ["198.51.100.224", "198.51.100.240"])
def test_a_pool_that_drops_answers_nothing_for_a_port_of_nobody(job, address):
    lab, owned = job
    assert owned.site(address) and owned.owner(address, 40000) is None
    with lab.capture("client1", "eth0", f"host {address} or icmp") as port:
        assert curl(lab, "client1", f"http://{address}:40000/", "--connect-timeout", "0.5").returncode == 28
        lab.run("client1", [PYTHON, "-c", UDP_TALK.replace("settimeout(2)", "settimeout(0.5)"), address, 40000])
    assert port.count(f"dst host {address}") >= 2 and port.count(f"not dst host {address}") == 0


# -- programs with ideas of their own ------------------------------------------------------------------------------


@pytest.mark.parametrize("url, options", [
    (f"http://{WEB1}/", []),
    (f"http://[::ffff:{WEB1}]/", []),
    (f"http://{WEB2}/", ["--interface", "198.51.100.1"]),
    (f"http://{WEB2}/", ["--interface", "198.51.100.1", "--local-port", "2100-2110"])])
def test_a_program_sees_the_same_address_and_port_as_its_peer(job, url, options):
    lab, owned = job
    page = curl(lab, "lhr1", url, *options, wish=GB)
    assert page.returncode == 0, page.stderr
    body, own_view = page.stdout.splitlines()
    peers_view = body.split()[0]
    assert own_view.removeprefix("::ffff:") == peers_view
    address, port = peers_view.split(":")
    assert owned.owner(address, int(port)) == "lhr1" and address == "198.51.100.1"
    assert not options[2:] or 2100 <= int(port) <= 2110


@pytest.mark.parametrize("wish, options, complaint", [
    (GB, ["--interface", "198.51.100.2"], "Cannot assign requested address"),
    (GB, ["--interface", "198.51.100.128"], "Cannot assign requested address"),
    (GB, ["--interface", "198.51.100.1", "--local-port", "5000"], "Permission denied"),
    (GB, ["--local-port", "5000"], "Cannot assign requested address"),
    (GB, ["--local-port", "3999"], "Cannot assign requested address"),
    ("", ["--interface", "198.51.100.1"], "Permission denied")])
def test_a_program_that_binds_what_is_not_its_own_is_told_so(job, wish, options, complaint):
    lab, _ = job
    with lab.capture("lhr-r", "s1", f"tcp and dst {WEB1}") as port:
        argv = ["curl", "-sS", "-v", "-m", "5", *options, f"http://{WEB1}/"]
        argv = plane.in_class(wish, argv) if wish else argv
        page = lab.run("lhr1", argv, check=False, cgroup=lab.cgroup("lhr1"))
    assert page.returncode in (7, 45) and complaint in page.stderr
    assert port.count() == 0


def test_dig_asks_over_udp_from_our_slice(job):
    lab, owned = job
    with lab.capture("dns1", "eth0", "udp dst port 53") as port:
        done = plane.run(lab, "lhr1", GB, ["dig", "+short", "+tries=1", f"@{DNS}", "web1.lab"])
    assert done.stdout.strip() == WEB1
    question, = wire.read(port.path)
    assert question.source == "198.51.100.1" and owned.owner(question.source, question.sport) == "lhr1"


def test_a_connected_datagram_socket_sees_the_same_port_as_its_peer(job):
    lab, owned = job
    with lab.capture("dns1", "eth0", "udp dst port 9") as port:
        own_view = plane.run(lab, "lhr1", GB, [PYTHON, "-c", UDP_TALK, DNS, 9]).stdout.split()
    packet, = wire.read(port.path)
    assert own_view == [f"{packet.source}:{packet.sport}", "ConnectionRefusedError"], "dns1's ICMP reached it, too"
    assert owned.owner(packet.source, packet.sport) == "lhr1"


def test_a_datagram_without_connect_is_refused(job):
    lab, _ = job
    with lab.capture("lhr-r", "s1", f"udp and dst {DNS}") as port:
        done = plane.run(lab, "lhr1", GB, [PYTHON, "-c", UDP_LOOSE])
    assert int(done.stdout) == errno.EDESTADDRREQ and port.count() == 0


# -- plans that change ---------------------------------------------------------------------------------------------


class Load:
    """curl on every host, over and over, until stop(): connections asked for, and those answered."""

    BATCH = 20

    def __init__(self, lab):
        self._flag = lab.state / f"stop-{time.monotonic_ns()}"
        script = 'flag=$1; shift; while [ ! -e "$flag" ]; do "$@"; done'
        self._running = [
            plane.popen(lab, host, GB, ["sh", "-c", script, "load", self._flag,
                                        *programs.curl_argv(f"http://{url}/", self.BATCH, parallel=5)],
                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for host in lab.topology.hosts for url in (WEB1, WEB2)]

    def stop(self) -> tuple:
        self._flag.touch()
        lines = [line for each in self._running for line in each.communicate(timeout=30)[0].splitlines()]
        return len(lines), sum(line.startswith("200 198.51.100.") for line in lines)


def changed(lab, change, base: str = "plan.yaml"):
    """A plan file, changed as data and written as another, named after the change."""
    plan = yaml.safe_load((lab.state / base).read_text())
    change(plan)
    return plane.write(lab, yaml.safe_dump(plan, sort_keys=False), f"{change.__name__}.yaml", deal=False)


def add_pool(plan: dict) -> None:
    plan["pools"]["fr"] = FRANCE
    plan["classes"].append({"name": "fr", "match": {"mark": 5}, "tags": {"country": "FR"}})


def add_slice(plan: dict) -> None:
    plan["slices"]["198.51.100.1"]["lhr1"] = "1,9"


def change_mark(plan: dict) -> None:
    plan["classes"][1]["match"]["mark"] = 22


def digests(lab) -> dict:
    return {host: json.loads(lab.portslice(host, "--json", "status").stdout)["digest"] for host in lab.topology.hosts}


@pytest.fixture
def original(job):
    """The digests of the module's plan. Whatever a test applies, it is in force again afterwards, as soon as no slice
    that it takes away is in use."""
    lab, _ = job
    yield digests(lab)
    restore = ("plan", "apply", lab.state / "plan.yaml")
    lab.wait(lambda: plane.portslice(lab, *restore, check=False).returncode == 0, 10, "slices to be drained")


def test_plans_change_under_load_without_a_loss_or_a_restart(job, original):
    lab, _ = job
    pids, load = {host: lab.agent_pid(host) for host in lab.topology.hosts}, Load(lab)
    base = "plan.yaml"
    for change in (add_pool, add_slice, change_mark):
        path = changed(lab, change, base)
        plane.portslice(lab, "plan", "deal", path)
        base = path.name
        assert "in force at 6 agents" in plane.portslice(lab, "plan", "apply", path).stdout
        assert len(set(digests(lab).values())) == 1 and digests(lab) != original
        if change is add_pool:
            assert curl(lab, "cdg1", f"http://{WEB1}/", wish="country=FR").stdout.startswith("198.51.100.25")
        elif change is add_slice:
            page = curl(lab, "lhr1", f"http://{WEB1}/", "--interface", "198.51.100.1", "--local-port", "18500", wish=GB)
            assert page.stdout.startswith("198.51.100.1:18500 ")
        else:
            marked = lab.run("lhr1", [PYTHON, "-c", MARKED, 22], cgroup=lab.cgroup("lhr1"))
            assert marked.stdout.strip() == "198.51.100.128"
    asked, answered = load.stop()
    assert asked == answered and asked % Load.BATCH == 0 and asked > 1000
    assert pids == {host: lab.agent_pid(host) for host in lab.topology.hosts}


def test_a_plan_that_takes_a_slice_in_use_is_refused_and_changes_nothing(job, original):
    lab, _ = job
    holder, own_view = hold(lab, "lhr1", GB, 1, f"{WEB1}:80")

    def move(plan):
        plan["slices"]["198.51.100.1"].update(lhr1=9, lhr2="1-2")
    path, history = changed(lab, move), plane.portslice(lab, "--json", "plan", "history").stdout
    refused = plane.portslice(lab, "plan", "apply", path, check=False)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "slice 198.51.100.1:2048-4095 is in use by lhr1" in refused.stderr and "drain lhr1 first" in refused.stderr
    assert digests(lab) == original and plane.portslice(lab, "--json", "plan", "history").stdout == history
    holder.stdin.write("ask\n")
    holder.stdin.flush()
    assert holder.stdout.readline().startswith("HTTP/1.1 200") and own_view[0].startswith("198.51.100.1:")
    let_go(holder)


def test_rollback_puts_the_plan_before_in_force_everywhere(job, original):
    lab, _ = job
    plane.portslice(lab, "plan", "apply", changed(lab, add_slice))
    assert plane.show(lab).owner("198.51.100.1", 18500) == "lhr1" and digests(lab) != original
    assert "in force at 6 agents" in plane.portslice(lab, "plan", "rollback").stdout
    assert plane.show(lab).owner("198.51.100.1", 18500) is None and digests(lab) == original


def test_hosts_with_different_plans_in_stores_of_their_own_say_so(new_lab):
    lab = new_lab(ONE_SITE)
    path = plane.write(lab, lab.plan_text())
    other_store = f"sqlite:{lab.state}/store/other.db"
    lab.start_agents(hosts=["lhr1", "lhr2"])
    lab.start_agents(hosts=["lhr3"], extra=["--store", other_store])
    apply = [plane.place.binary("src/cli/portslice"), "--store", other_store, "plan", "apply"]
    plane.portslice(lab, "plan", "apply", path)
    subprocess.run([*apply, path], check=True, capture_output=True)
    states = lambda host: {row["name"]: row["plan"] for row in
                           json.loads(lab.portslice(host, "--json", "status").stdout)["peers"]}  # noqa: E731
    lab.wait(lambda: states("lhr1") == {"lhr2": "agrees", "lhr3": "agrees"}, 5, "hosts to agree")

    subprocess.run([*apply, changed(lab, add_slice)], check=True, capture_output=True)
    lab.wait(lambda: states("lhr1") == {"lhr2": "agrees", "lhr3": "differs"}, 5, "lhr1 to notice")
    lab.wait(lambda: states("lhr3") == {"lhr1": "differs", "lhr2": "differs"}, 5, "lhr3 to notice")
    event = lab.wait(lambda: plane.events(lab, "lhr1", "plan_differs"), 5, "the event")[-1]
    assert event["hosts"] == "lhr3" and "apply the same file on all" in event["text"]
    assert "lhr3" in agents.log(lab.name, "lhr1").read_text()
    rows = json.loads(lab.portslice("lhr2", "--json", "show", "hosts").stdout)
    assert {row["host"]: row["plan"] for row in rows} == {"lhr1": "agrees", "lhr2": "here", "lhr3": "differs"}
    subprocess.run([*apply, path], check=True, capture_output=True)
    lab.wait(lambda: states("lhr1") == {"lhr2": "agrees", "lhr3": "agrees"}, 5, "hosts to agree again")
