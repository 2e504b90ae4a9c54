# SPDX-License-Identifier: MIT
"""Source ports used up on purpose: the load of facts.md PX-6 by `portslice exhaust`, with one slice of 256 ports.

The targets swallow everything, so every connection stays in SYN_SENT, as in the source. The host's own ephemeral
range is 255 ports (PX-4's least), which is what programs of no class get.
"""
import json
import subprocess

import pytest
import yaml

import place
import plane
import wire

GB = "country=GB"
LOAD = 510                                             # 2 x 255
SILENT, ONE = "100.96.0.0/20:80", "100.96.0.1:80"
OWN_RANGE = range(60000, 60255)
FORMS = {"connect": [], "bind(0:0)": ["--bind-first"], "bind(ip:0)": ["--bind-first={ip}"],
         "bind(ip:0) without port": ["--bind-first={ip}", "--no-port"], "udp": ["--udp"],
         "udp, bind(0:0)": ["--udp", "--bind-first"]}


def exclusive(slices: list) -> list:
    """Of each slice, the ports that must be free towards everybody: an eighth of the first at an address, at most 256."""
    seen = set()
    return [min(len(ports) // 8, 256) if not (address in seen or seen.add(address)) else 0 for address, ports in slices]


def shared_ports(slices: list) -> int:
    """How many ports connections to one destination may have at once: with peerless_ports(), all that these tests
    know of how slices are divided."""
    return sum(len(ports) for _, ports in slices) - peerless_ports(slices)


def peerless_ports(slices: list) -> int:
    """From how many of them a program is served that binds first and does not say to whom it will connect."""
    return sum(exclusive(slices))


def pool(slice_: int) -> dict:
    return {"tags": {"country": "GB"}, "slice": slice_, "unowned": "reject", "addresses": [
        {"prefix": "198.51.100.0/30", "site": "LHR"}, {"prefix": "198.51.100.4/30", "site": "CDG"}]}


class Bench:
    """A lab in which lhr1 alone has an agent, and one slice."""

    def __init__(self, lab):
        self.lab = lab
        self.owned = plane.start(lab, lab.plan_text({"gb": pool(256)}), hosts=["lhr1"])
        self.ip, = {address for address, _ in self.slices()}
        words = f"net.ipv4.ip_local_port_range={OWN_RANGE[0]} {OWN_RANGE[-1]}"
        lab.run("lhr1", ["sysctl", "-qw", words])

    def slices(self) -> list:
        return self.owned.slices("lhr1", "gb")

    def argv(self, *options) -> list:
        return [place.binary("src/cli/portslice"), "exhaust", "--json", "--rate", "5000", *map(str, options)]

    def exhaust(self, to: str, *options, n: int = LOAD, wish: str = GB) -> dict:
        """The report of a load that has ended; without a wish, of a program of no class."""
        argv = self.argv("--to", to, "-n", n, "--hold", 1, *options)
        argv = plane.in_class(wish, argv) if wish else argv
        done = self.lab.run("lhr1", argv, check=False, cgroup=self.lab.cgroup("lhr1"))
        assert done.returncode in (0, 3), done.stderr
        report = json.loads(done.stdout)
        assert done.returncode == (0 if report["through"] == n else 3) and report["tried"] == n
        assert report["answered"] == 0 and report["waiting"] == (0 if "--udp" in options else report["through"])
        return report


@pytest.fixture(scope="module")
def bench(new_lab):
    return Bench(new_lab())


def fault(report: dict) -> tuple:
    error, = report["errors"]
    return error["call"], error["errno"], error["times"], error["first"]


# -- many destinations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bind(0:0)", "bind(ip:0)", "udp, bind(0:0)"])
def test_plain_linux_stops_programs_that_bind_first_at_255(bench, form):
    options = [option.format(ip="10.1.1.1") for option in FORMS[form]]
    report = bench.exhaust(SILENT, *options, wish="")
    usable = report["through"]   # of an odd range Linux passes one port by now and then
    assert 254 <= usable == report["sources"] <= len(OWN_RANGE)
    assert fault(report)[:3] == ("bind", "EADDRINUSE", LOAD - usable)


def test_plain_linux_carries_the_load_of_programs_that_do_not_bind(bench):
    report = bench.exhaust(SILENT, wish="")
    assert report["through"] == report["targets"] == LOAD and report["sources"] <= len(OWN_RANGE)


@pytest.mark.parametrize("form", FORMS)
def test_the_sources_own_load_gets_through_from_one_slice_of_256(bench, form):
    options = [option.format(ip=bench.ip) for option in FORMS[form]]
    with bench.lab.capture("silent", "eth0", "tcp and dst net 100.96.0.0/20") as port:
        report = bench.exhaust(SILENT, *options)
    assert report["through"] == report["targets"] == LOAD and report["errors"] == []
    assert 1 < report["sources"] <= 256 and list(report["addresses"]) == [bench.ip]
    if "--udp" not in options:
        flows = {packet.flow for packet in wire.read(port.path)}
        (address, ports), = bench.slices()
        assert len(flows) == LOAD and len({flow[3] for flow in flows}) == LOAD
        assert {flow[1] for flow in flows} == {address} and {flow[2] for flow in flows} <= set(ports)


# -- one destination -----------------------------------------------------------------------------------------------


def expect_one_destination_to_stop(bench, form, usable):
    options = [option.format(ip=bench.ip) for option in FORMS[form]]
    report = bench.exhaust(ONE, *options)
    assert report["through"] == report["sources"] == usable, report
    assert fault(report) == ("connect", "EADDRNOTAVAIL", LOAD - usable, usable + 1)


@pytest.mark.parametrize("form", ["connect", "bind(ip:0) without port", "udp"])
def test_one_destination_stops_when_the_slices_shared_ports_are_used(bench, form):
    expect_one_destination_to_stop(bench, form, shared_ports(bench.slices()))


@pytest.mark.parametrize("form", ["bind(0:0)", "bind(ip:0)", "udp, bind(0:0)"])
def test_one_destination_of_programs_that_bind_first_stops_at_the_ports_for_them(bench, form):
    """bind() cannot know to whom a port will have to be free; it draws those first that are in use towards nobody."""
    expect_one_destination_to_stop(bench, form, peerless_ports(bench.slices()))


def test_the_event_names_the_program_where_the_source_says_nothing(bench):
    before = len(plane.events(bench.lab, "lhr1", "exhausted"))
    process = start(bench, "--to", ONE, "-n", 300, "--hold", 60)
    assert "300 tried" in process.stderr.readline()
    told = lambda: plane.events(bench.lab, "lhr1", "exhausted")[before:]  # noqa: E731
    event = bench.lab.wait(told, 5, "the event")[-1]
    assert (event["program"], event["pid"], event["class"]) == ("portslice", process.pid, "gb")
    assert (event["destination"], event["protocol"], event["pool"]) == (ONE, "tcp", "gb")
    assert f"portslice (pid {process.pid}) tcp to {ONE}" in event["text"] and "another slice" in event["advice"]
    assert stop(process)["through"] == shared_ports(bench.slices())


# -- more ports while it runs --------------------------------------------------------------------------------------


def start(bench, *options) -> subprocess.Popen:
    return plane.popen(bench.lab, "lhr1", GB, bench.argv(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def stop(process: subprocess.Popen) -> dict:
    process.terminate()
    return json.loads(process.communicate(timeout=10)[0])


def grant_one_more(bench) -> None:
    plan = yaml.safe_load((bench.lab.state / "plan.yaml").read_text())
    ours = plan["slices"][bench.ip]
    taken = {int(part) for held in ours.values() for word in str(held).split(",") for part in word.split("-")}
    ours["lhr1"] = f"{ours['lhr1']},{max(taken) + 1}"
    path = plane.write(bench.lab, yaml.safe_dump(plan, sort_keys=False), "more.yaml", deal=False)
    plane.portslice(bench.lab, "plan", "apply", path)


def test_another_slice_raises_the_ceiling_of_a_program_that_runs(bench):
    before = shared_ports(bench.slices())
    process = start(bench, "--to", ONE, "-n", 400, "--hold", 60, "--retry")
    assert f"400 tried, {before} through" in process.stderr.readline().replace("of 400 ", "")
    grant_one_more(bench)
    more = plane.show(bench.lab).slices("lhr1", "gb")
    assert len(more) == 2 and shared_ports(more) >= 400
    assert "400 of 400 tried, 400 through" in process.stderr.readline()
    report = stop(process)
    assert (report["first_through"], report["through"], report["sources"]) == (before, 400, 400)
    plane.portslice(bench.lab, "plan", "apply", bench.lab.state / "plan.yaml")


# -- bounds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options, complaint", [
    ([], "expected --to"),
    (["--to", "10.1.1.2:80"], "10.1.1.2/32 may be somebody's: say --yes"),
    (["--to", "100.96.0.0/19"], "100.96.0.0/19 may be somebody's: say --yes"),
    (["--to", "192.0.2.1", "--to", "[2606:4700::1]:443"], "2606:4700::1/128 may be somebody's"),
    (["--to", "192.0.2.1:0"], "is not a target"),
    (["--to", "192.0.2.1:65536"], "is not a target"),
    (["--to", "192.0.2.1/24:80"], "is not a target"),
    (["--to", "[2001:db8::1:80"], "is not a target"),
    (["--to", "192.0.2.1", "-n", "65537"], "from 1 to 65536"),
    (["--to", "192.0.2.1", "--rate", "20001"], "from 1 to 20000"),
    (["--to", "192.0.2.1", "--hold", "601"], "from 1 to 600"),
    (["--to", "192.0.2.1", "--hold", "-1"], "from 1 to 600"),
    (["--to", "192.0.2.1", "--no-port"], "--no-port wants --bind-first=ADDRESS"),
    (["--to", "192.0.2.1", "--bind-first=nowhere"], "not an address to bind"),
    (["--to", "192.0.2.1", "--bind-first=::1"], "different families"),
    (["192.0.2.1"], "targets come with --to")])
def test_what_is_out_of_bounds_opens_nothing_and_says_why(bench, options, complaint):
    with bench.lab.capture("lhr1", "eth0", "tcp port 80 or tcp port 443") as port:
        done = bench.lab.run("lhr1", [place.binary("src/cli/portslice"), "exhaust", *options], check=False)
    assert done.returncode == 1 and complaint in done.stderr and done.stdout == "" and port.count() == 0


def test_more_sockets_than_the_process_may_have_are_refused_before_the_first(bench):
    argv = ["sh", "-c", 'ulimit -n 400; exec "$@"', "sh", *bench.argv("--to", ONE)]
    done = bench.lab.run("lhr1", argv, check=False)
    assert done.returncode == 2 and "may not have 510 sockets" in done.stderr and done.stdout == ""
