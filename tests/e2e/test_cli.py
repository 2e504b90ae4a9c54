# SPDX-License-Identifier: MIT
"""The command line as a person and a script meet it: help, exit codes, tables and --json, and that what it says is so."""
import json
import re
import subprocess
import sys
import time

import pytest

import hostside
from conftest import ONE_SITE
from hostside import WEB

VERBS = ["plan check", "plan deal", "plan show", "plan diff", "plan apply", "plan rollback", "plan history", "show sites",
         "show hosts", "show pools", "show classes", "show addresses", "show uplinks", "show slices", "show counters",
         "show plane",
         "who", "trace", "run", "explain", "status", "events", "attach", "detach", "lab up", "lab down", "lab exec", "lab status"]


@pytest.fixture(scope="module")
def lab(new_lab):
    lab = new_lab(ONE_SITE)
    lab.plan = hostside.dealt(lab)
    lab.start_agents()
    hostside.apply(lab, lab.plan)
    return lab


@pytest.fixture
def file(tmp_path, lab):
    path = tmp_path / "plan.yaml"
    path.write_text(lab.plan)
    return path


def portslice(*args, **options):
    return subprocess.run([hostside.binary("portslice"), *map(str, args)], capture_output=True, text=True, timeout=30,
                          **options)


def table(text: str) -> list:
    """Rows of a printed table as lists of cells; two blanks part cells."""
    return [re.split(r" {2,}", line.strip()) for line in text.splitlines()]


# -- use ----------------------------------------------------------------------------------------------------------


def test_the_overview_names_every_verb():
    text = portslice("help").stdout
    assert all(re.search(rf"^  {verb}\b", text, re.M) for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    for flag in ("--help", "-h"):
        done = portslice(*verb.split(), flag)
        assert done.returncode == 0 and done.stdout.startswith(f"usage: portslice {verb} ") and not done.stderr


@pytest.mark.parametrize("args", [
    ["nonsense"], ["plan", "nonsense"], ["show"], ["plan", "check"], ["plan", "check", "a", "b"], ["plan", "apply"],
    ["plan", "apply", "--nonsense", "x"], ["plan", "rollback", "x"], ["plan", "diff"], ["plan", "deal", "/nowhere"],
    ["plan", "check", "/nowhere"], ["who"], ["who", "198.51.100.1"], ["who", "198.51.100.1:70000"], ["who", "x:1"],
    ["trace"], ["trace", "--from", "x"], ["trace", "--nonsense"], ["run"], ["run", "--tag", "x", "--", "true"],
    ["run", "--mark", "x", "--", "true"], ["explain"], ["explain", "--pid", "1"], ["explain", "--pid", "x", "--to", "1.2.3.4:5"],
    ["run", "--nonsense", "--", "true"], ["events", "-x"], ["status", "x"],
    ["detach", "x"], ["attach", "x"], ["show", "counters", "x"], ["show", "slices", "x"], ["show", "uplinks", "x"],
    ["plan", "history", "x"],
    ["status", "--instance"], ["plan", "check", "--store"],
])
def test_wrong_use_ends_with_1_and_one_helpful_line(args):
    done = portslice(*args)
    assert done.returncode == 1 and not done.stdout and len(done.stderr.splitlines()) == 1 and len(done.stderr) > 20


def test_no_argument_at_all_shows_the_overview_and_ends_with_1():
    done = portslice()
    assert done.returncode == 1 and done.stderr.startswith("usage: portslice")


@pytest.mark.parametrize("args", [["status"], ["events"], ["events", "-f"], ["attach"], ["show", "slices"], ["show", "uplinks"],
                                  ["plan", "show"],
                                  ["show", "counters"], ["show", "hosts"], ["who", "198.51.100.1:2048"],
                                  ["run", "--", "true"], ["trace", "--from", "1.2.3.4:1", "--to", "1.2.3.4:2"]])
def test_without_a_daemon_verbs_that_ask_it_end_with_4_and_say_where_it_should_be(args):
    done = portslice("--instance", "nobody_here", *args)
    assert done.returncode == 4 and "/run/portslice/nobody_here/control.sock" in done.stderr


def test_detach_where_nothing_is_attached_does_nothing_and_leaves_nothing():
    assert portslice("--instance", "nobody_here", "detach").returncode == 0
    for folder in ("/run/portslice/nobody_here", "/sys/fs/bpf/portslice/nobody_here"):
        assert not hostside.Path(folder).exists()


# -- tables and --json --------------------------------------------------------------------------------------------

TABLES = {
    ("show", "sites"): ["site", "edge", "hosts"],
    ("show", "hosts"): ["host", "site", "underlay", "mtu", "slices", "plan"],
    ("show", "pools"): ["pool", "tags", "slice", "unowned", "echo", "addresses", "slices", "dealt"],
    ("show", "classes"): ["class", "cgroup", "mark", "uid", "from", "to", "tags"],
    ("show", "addresses"): ["prefix", "site", "pool", "tags"],
    ("show", "slices"): ["address", "first_port", "ports", "claims"],
    ("show", "counters", "all"): ["part", "reason", "packets", "meaning"],
    ("plan", "history"): ["revision", "time", "bytes"],
    ("trace", "--from", "203.0.113.2:80", "--to", "198.51.100.1:5000"): ["at", "action", "reason", "host", "site", "why"],
}


@pytest.mark.parametrize("verb", TABLES, ids=" ".join)
def test_a_table_and_its_json_hold_the_same_facts(lab, verb):
    def both():
        return hostside.cli(lab, "lhr1", *verb).stdout, hostside.asked(lab, "lhr1", *verb)
    for _ in range(5):  # counters move between two looks
        text, rows = both()
        cells = [[("-" if row.get(key) is None else str(row[key])) for key in TABLES[verb]] for row in rows]
        if [line.split() for line in text.splitlines()[1:]] == [" ".join(row).split() for row in cells]:
            break
    else:
        pytest.fail(f"{text}\n{rows}")
    assert rows and set(rows[0]) >= set(TABLES[verb])


UPLINK = {"name": "eth0", "present": True, "xdp": "native", "lro": False, "kind": "veth", "master": None, "master_kind": None,
          "note": None}


def test_show_uplinks_says_how_the_dispatcher_runs_there(lab):
    assert hostside.asked(lab, "lhr1", "show", "uplinks") == [UPLINK]
    assert table(hostside.cli(lab, "lhr1", "show", "uplinks").stdout) == [
        ["UPLINK", "PRESENT", "XDP", "LRO", "KIND", "MASTER", "NOTE"], ["eth0", "yes", "native", "no", "veth", "-", "-"]]


def test_status_in_words_and_json_is_the_same(lab):
    lab.wait(lambda: all(peer["plan"] == "agrees" for peer in hostside.status(lab, "lhr1")["peers"]), 5, "all agree")
    said, known = hostside.cli(lab, "lhr1", "status").stdout, hostside.status(lab, "lhr1")
    shown = dict(line.split(None, 1) for line in said.splitlines())
    for key in ("host", "state", "instance", "store", "digest", "revision", "version"):
        assert shown[key] == str(known[key])
    assert json.loads(shown["uplinks"]) == known["uplinks"] == [UPLINK]
    assert not set(shown) & {"refusal", "store_trouble", "host_trouble"}
    assert {(row["host"], row["plan"]) for row in hostside.asked(lab, "lhr1", "show", "hosts")} == \
        {("lhr1", "here"), ("lhr2", "agrees"), ("lhr3", "agrees")}


def test_plan_show_is_the_plane_in_words_json_and_picture(lab, file):
    rows = table(hostside.cli(lab, "lhr1", "plan", "show").stdout)
    assert ["198.51.100.1", "2", "4096-6143", "lhr2", "LHR", "gb"] in rows and len(rows) == 7
    known = hostside.asked(lab, "lhr1", "plan", "show")
    assert known == json.loads(portslice("plan", "show", file, "--json").stdout)
    assert known == hostside.asked(lab, "lhr1", "show", "plane")
    picture = hostside.cli(lab, "lhr1", "show", "plane").stdout
    assert re.search(r"198\.51\.100\.1 +gb +xABC\.+", picture) and "A lhr1 (LHR)" in picture


@pytest.mark.parametrize("endpoint, host, slice", [("198.51.100.1:2048", "lhr1", 1), ("198.51.100.1:4095", "lhr1", 1),
                                                   ("198.51.100.1:4096", "lhr2", 2), ("198.51.100.128:8191", "lhr3", 3),
                                                   ("198.51.100.1:65535", None, 31), ("198.51.100.1:80", None, 0)])
def test_who_owns_a_port(lab, endpoint, host, slice):
    said, known = hostside.cli(lab, "lhr2", "who", endpoint).stdout, hostside.asked(lab, "lhr2", "who", endpoint)
    assert known["host"] == host and known["slice"] == slice and known["site"] == "LHR"
    assert said.startswith(f"{host or 'nobody'}: slice {slice} (ports {known['ports']}) of {known['address']} at LHR")


def test_who_owns_a_port_of_a_stranger_is_wrong_use(lab):
    done = hostside.cli(lab, "lhr1", "who", "192.0.2.1:5000", check=False)
    assert done.returncode == 1 and "is not a shared address of the plan" in done.stderr


# -- run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice, address", [([], "198.51.100.1"), (["--tag", "country=GB"], "198.51.100.1"),
                                             (["--tag", "country=IE"], "198.51.100.128"),
                                             (["--tag", "country=IE", "--tag", "trust=trusted"], "198.51.100.128"),
                                             (["--mark", "2"], "198.51.100.128"), (["--mark", "0x1"], "198.51.100.1"),
                                             (["--class", "ie"], "198.51.100.128")])
def test_run_picks_the_pool_as_the_web_server_sees(lab, choice, address):
    seen = hostside.fetch(lab, "lhr2", choice).split(":")
    assert seen[0] == address and 4096 <= int(seen[1]) < 6144


@pytest.mark.parametrize("choice", [["--tag", "country=FR"], ["--mark", "7"], ["--class", "none"],
                                    ["--mark", "1", "--tag", "country=IE"]])
def test_run_says_what_there_is_when_nothing_suits(lab, choice):
    done = hostside.cli(lab, "lhr1", "run", *choice, "--", "true", check=False)
    assert done.returncode == 1 and "class gb, mark 1, country=GB" in done.stderr and "class ie, mark 2" in done.stderr


def test_run_gives_the_programs_exit_code_arguments_and_environment(lab):
    done = hostside.cli(lab, "lhr1", "run", "--", "sh", "-c", 'echo "$0 $1 $COLOUR --json"; exit 7', "--help", "b",
                        check=False, env={"COLOUR": "red"})
    assert done.returncode == 7 and done.stdout == "--help b red --json\n"
    done = hostside.cli(lab, "lhr1", "run", "--", "/no/such/program", check=False)
    assert done.returncode == 1 and "cannot run /no/such/program" in done.stderr


# -- trace --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at, to, more, action, reason, host", [
    ("lhr1", "198.51.100.1:2048", [], "pass", "deliver", "lhr1"),
    ("lhr1", "198.51.100.1:4096", [], "send", "forward_host", "lhr2"),
    ("lhr1", "198.51.100.1:4096", ["--protocol", "udp"], "send", "forward_host", "lhr2"),
    ("lhr1", "198.51.100.1:4096", ["--protocol", "echo-reply"], "send", "forward_host", "lhr2"),
    ("lhr2", "198.51.100.1:4096", [], "pass", "deliver", "lhr2"),
    ("lhr1", "192.0.2.1:80", [], "pass", None, None),
])
def test_trace_tells_where_a_packet_goes(lab, file, at, to, more, action, reason, host):
    rows = json.loads(portslice("trace", "--plan", file, "--at", at, "--from", f"{WEB}:80", "--to", to, *more,
                                "--json").stdout)
    assert rows[0]["at"] == at and rows[0]["action"] == action
    assert host is None or rows[0]["host"] == host
    assert action != "send" or rows[0]["bytes"]


def test_trace_of_an_unexpected_packet_is_not_a_delivery(lab, file):
    asked = ["trace", "--plan", file, "--at", "lhr1", "--from", f"{WEB}:80", "--to", "198.51.100.1:2048", "--json"]
    assert json.loads(portslice(*asked, "--unexpected").stdout)[0]["reason"] != json.loads(portslice(*asked).stdout)[0]["reason"]


def test_trace_of_a_capture_agrees_with_what_the_wire_did(lab, file):
    """Replies that reach lhr1: those it sent on are on the wire of its router, in the very numbers trace foretells."""
    with lab.capture("lhr-r", "s1", "src host 203.0.113.2 and dst net 198.51.100.0/24", snaplen=0) as arrives, \
            lab.capture("lhr-r", "s1", "src host 10.1.1.1 and (udp dst port 6079 or udp dst port 6080)") as leaves:
        children = [hostside.in_class(lab, "lhr2", ["curl", "-s", "-o", "/dev/null", f"http://{WEB}/?{n}"])
                    for n in range(40)]  # each meets lhr1 first with chance 1/3
        for child in children:
            child.communicate(timeout=10)
            assert child.returncode == 0
    rows = json.loads(portslice("trace", "--plan", file, "--at", "lhr1", "--pcap", arrives.path, "--json").stdout)
    assert rows and len(rows) == arrives.count()
    sent = [row for row in rows if row["action"] == "send"]
    assert {row["host"] for row in sent} == {"lhr2"} and len(sent) == len(rows) == leaves.count()


def test_trace_of_no_capture_is_wrong_use(lab, file, tmp_path):
    (tmp_path / "x.pcap").write_bytes(b"nonsense")
    done = portslice("trace", "--plan", file, "--pcap", tmp_path / "x.pcap")
    assert done.returncode == 1 and "cannot read capture" in done.stderr


# -- events -------------------------------------------------------------------------------------------------------


def test_events_stream_as_they_happen(lab):
    children = [lab.popen("lhr1", [hostside.binary("portslice"), "events", "-f", *more], stdout=subprocess.PIPE)
                for more in ([], ["--json"])]
    lab.run("lhr1", ["sysctl", "-w", "net.ipv4.conf.eth0.arp_ignore=0"])
    began = time.monotonic()
    for child, sign in zip(children, ("restored", '"kind":"restored"')):
        while sign not in (line := child.stdout.readline()):
            assert line and time.monotonic() - began < 10
        assert child.poll() is None
        hostside.end(child)


# -- plans --------------------------------------------------------------------------------------------------------

MISTAKES = {
    "unknown key": ("slice: 2048", "slize: 2048", "slize"),
    "overlap": ("198.51.100.128/25", "198.51.100.0/26", "overlaps"),
    "slice size": ("slice: 2048", "slice: 2000", "must be one of 128, 256"),
    "unknown site": ("lhr1: {site: LHR,", "lhr1: {site: LHX,", 'did you mean "LHR"?'),
    "duplicate host": ("  lhr3:", "  lhr2:", "lhr2"),
    "fewer slices than hosts": ("slice: 2048, unowned: reject, addresses: [{prefix: 198.51.100.0/25",
                                "slice: whole, unowned: reject, addresses: [{prefix: 198.51.100.0/32", "add addresses"),
    "class without pool": ("tags: {country: IE}}\ndirect", "tags: {country: FR}}\ndirect", "matches no pool"),
    "service in nobody's slice": ("direct:", "services:\n  - {name: s, address: 198.51.100.1, port: 65000, protocol: tcp, "
                                  "host: lhr1}\ndirect:", "nobody holds"),
    "no YAML": ("version: 1", "version: [1", ""),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_in_a_plan_is_named_with_its_place_and_nothing_is_written(lab, tmp_path, what):
    old, new, message = MISTAKES[what]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(lab.plan.replace(old, new, 1))
    assert wrong.read_text() != lab.plan
    before = hostside.asked(lab, "lhr1", "plan", "history")
    for verb in ("check", "apply"):
        done = hostside.cli(lab, "lhr1", "plan", verb, wrong, check=False)
        assert done.returncode == 1 and not done.stdout and message in done.stderr
        assert re.match(rf"{re.escape(str(wrong))}:\d+:\d+: ", done.stderr)
    assert hostside.asked(lab, "lhr1", "plan", "history") == before
    found = json.loads(portslice("plan", "check", wrong, "--json").stdout)
    assert found and set(found[0]) == {"file", "line", "column", "text"}


def test_a_good_plan_is_good(file):
    assert portslice("plan", "check", file).stdout == f"{file}: good: 1 sites, 3 hosts, 2 pools, 2 classes, 6 slices dealt\n"
    assert json.loads(portslice("plan", "check", file, "--json").stdout) == []


def test_dealing_keeps_comments_is_idempotent_and_a_new_host_moves_nothing(lab, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text("# ours\n" + lab.plan_text().replace("hosts:\n", "hosts:   # the three\n"))
    plan.chmod(0o640)
    assert "6 slices dealt, 6 in all" in portslice("plan", "deal", plan).stdout
    first = plan.read_text()
    assert first.startswith("# ours\n") and "hosts:   # the three\n" in first and plan.stat().st_mode & 0o777 == 0o640
    assert json.loads(portslice("plan", "deal", plan, "--json").stdout) == {"dealt": 0, "slices": 6}
    assert plan.read_text() == first
    plan.write_text(first.replace("pools:", "  lhr4: {site: LHR, underlay: 10.1.4.1, uplinks: [eth0]}\npools:", 1))
    assert "2 slices dealt, 8 in all" in portslice("plan", "deal", plan).stdout
    now = plan.read_text()
    for line in re.findall(r"^  198\.51.*\}$", first, re.M):
        assert line[:-2] in now  # the new host comes after the others
    moved = portslice("plan", "diff", tmp_path / "plan.yaml", plan).stdout
    assert moved == ""
    said = portslice("plan", "deal", "-", input=lab.plan_text())
    assert said.returncode == 0 and said.stdout == lab.plan


def test_diff_dry_run_apply_history_and_rollback_tell_one_story(lab, file):
    file.write_text(lab.plan.replace("lhr3: 3", 'lhr3: "3,8"', 1))
    first = hostside.asked(lab, "lhr1", "plan", "history")
    difference = hostside.cli(lab, "lhr1", "plan", "diff", file).stdout
    assert "198.51.100.1" in difference and "lhr3" in difference
    assert hostside.asked(lab, "lhr1", "plan", "diff", file) == difference.splitlines()
    dry = hostside.cli(lab, "lhr1", "plan", "apply", "--dry-run", file).stdout
    assert dry == difference + "nothing written (--dry-run)\n" and hostside.asked(lab, "lhr1", "plan", "history") == first
    done = hostside.asked(lab, "lhr1", "plan", "apply", file)
    assert done == {"diff": difference, "revision": first[0]["revision"] + 1, "agents": 3}
    assert hostside.cli(lab, "lhr1", "who", "198.51.100.1:16384").stdout.startswith("lhr3: slice 8")
    assert hostside.asked(lab, "lhr1", "plan", "history")[0]["revision"] == done["revision"]
    hostside.cli(lab, "lhr1", "plan", "rollback")
    assert hostside.cli(lab, "lhr1", "who", "198.51.100.1:16384").stdout.startswith("nobody: slice 8")
    hostside.cli(lab, "lhr1", "plan", "rollback", done["revision"])
    assert hostside.cli(lab, "lhr1", "who", "198.51.100.1:16384").stdout.startswith("lhr3: slice 8")
    refused = hostside.cli(lab, "lhr1", "plan", "rollback", "999", check=False)
    assert refused.returncode == 1 and "see `portslice plan history`" in refused.stderr
    assert "no difference" in hostside.cli(lab, "lhr1", "plan", "apply", file).stdout
    hostside.apply(lab, lab.plan)
