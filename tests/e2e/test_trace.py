# SPDX-License-Identifier: MIT
"""`portslice trace` on every row of the packet table, through a plan that describes the table's world: same verdict, same
reason, same bytes as ps_trace_packet(), which test-dispatch.c holds against the kernel's program row by row."""
import json
import struct
import subprocess

import place
import pytest

import hostside

# The world of tests/packet/rows.h.
PLAN = """\
version: 1
sites:
  s0: {{ edge: 192.0.2.100 }}
  s1: {{ edge: 192.0.2.200 }}
  s2: {{ edge: 192.0.2.201 }}
hosts:
  h0: {{ site: s0, underlay: 192.0.2.1, uplinks: [eth0] }}
  h1: {{ site: s0, underlay: 192.0.2.2, uplinks: [eth0] }}
  h2: {{ site: s0, underlay: 192.0.2.3, uplinks: [eth0] }}
  h3: {{ site: s0, underlay: 192.0.2.4, uplinks: [eth0] }}
  h4: {{ site: s1, underlay: 192.0.2.5, uplinks: [eth0] }}
pools:
  usual:
    addresses:
      - {{ address: 198.51.100.1, site: s0 }}
      - {{ address: 198.51.100.3, site: s1 }}
      - {{ address: 198.51.100.4, site: s2 }}
{usual6}
  drop: {{ unowned: drop, addresses: [{{ address: 198.51.100.2, site: s0 }}{drop6}] }}
  whole: {{ slice: whole, addresses: [{whole}] }}
  silent: {{ echo: drop, addresses: [{{ address: 198.51.100.6, site: s0 }}{silent6}] }}
  fine: {{ slice: 128, addresses: [{{ address: 203.0.113.9, site: s0 }}] }}
services:
  - {{ name: t, address: 198.51.100.1, port: 33000, protocol: tcp, host: h0 }}
  - {{ name: u, address: 198.51.100.1, port: 33001, protocol: udp, host: h0 }}
{service6}
slices:
  198.51.100.1: {{ h0: 16, h1: 17, h2: 18, h3: 19 }}
  198.51.100.5: {{ h1: 0 }}
  203.0.113.9: {{ h1: 500 }}
{slices6}
"""
# A pool needs a slice for each host of the site, so whole addresses come with some that no row knows.
WHOLE = ["198.51.100.5", "192.0.3.1", "192.0.3.2", "192.0.3.3", "192.0.3.4"]


def plan_text(v6: bool) -> str:
    def block(address, site="s0"):
        return f"{{ address: {address}, site: {site} }}"
    return PLAN.format(
        usual6="\n".join(f"      - {block(a, s)}" for a, s in [("2001:db8::1", "s0"), ("2001:db8::3", "s1")] if v6),
        drop6=", " + block("2001:db8::2") if v6 else "", silent6=", " + block("2001:db8::6") if v6 else "",
        whole=", ".join(block(a) for a in WHOLE + (["2001:db8::5"] if v6 else [])),
        service6="  - { name: t6, address: '2001:db8::1', port: 33000, protocol: tcp, host: h0 }" if v6 else "",
        slices6="  2001:db8::1: { h0: 16, h1: 17, h2: 18, h3: 19 }\n  2001:db8::5: { h1: 0 }" if v6 else "")


def portslice(*args, **options):
    return subprocess.run([hostside.binary("portslice"), *map(str, args)], capture_output=True, text=True, timeout=60,
                          **options)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Of both families where plans take IPv6 pools."""
    path = tmp_path_factory.mktemp("trace") / "plan.yaml"
    for v6 in (True, False):
        path.write_text(plan_text(v6))
        done = portslice("plan", "check", path)
        if done.returncode == 0:
            return path, v6
    raise AssertionError(done.stderr)


@pytest.fixture(scope="module")
def table(plan):
    """Rows that trace can be asked: it has no worlds with an old table, spent budgets or other gateways."""
    lines = subprocess.run([place.binary("tests/packet/dump-rows")], capture_output=True, text=True, check=True)
    return [row for row in map(json.loads, lines.stdout.splitlines()) if row["world"] == 0 and row["v6"] <= plan[1]]


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_trace_says_of_every_row_of_the_packet_table_what_the_kernel_does(table, plan, known):
    rows = [row for row in table if row["known"] == known]
    done = portslice("trace", "--plan", plan[0], "--hex", "-", *([] if known else ["--unexpected"]), "--json",
                     input="\n".join(row["frame"] for row in rows))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told) == len(rows) > 0
    for row, answer in zip(rows, told):
        assert (answer["reason"], answer["action"]) == (row["reason"], row["action"]), row["sentence"]
        assert (answer["bytes"], answer["second_bytes"]) == (row.get("leaves"), row.get("second")), row["sentence"]


def test_resolved_next_hops_are_all_that_trace_sees_otherwise(table):
    """So nearly every row has the verdict of its own sentence, but those about hops that are not resolved; and with a
    fourth host in reach some fragments are gathered there."""
    other = [row for row in table if row["row"] != row["reason"]]
    assert all(row["row"] == "drop_no_hop" or row["reason"] == "to_gatherer" for row in other)
    assert len(other) < len(table) / 20


# -- one frame, many forms ----------------------------------------------------------------------------------------

FRAME = "020000000022060000000011" "0800" "450000280000000040060000cb0071c8c6336401" "01bb885400000000000000005002faf000000000"


def traced(plan, *args, **options):
    done = portslice("trace", "--plan", plan[0], "--json", *args, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_flags_hex_and_capture_give_one_answer(plan, tmp_path):
    by_flags = traced(plan, "--from", "203.0.113.200:443", "--to", "198.51.100.1:34900")
    assert [row["reason"] for row in by_flags] == ["to_host"] and by_flags[0]["host"] == "h1"
    capture = tmp_path / "x.pcap"
    frame = bytes.fromhex(FRAME)
    capture.write_bytes(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1) +
                        struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
    spaced = " ".join(FRAME[i:i + 4] for i in range(0, len(FRAME), 4)).upper()
    colons = ":".join(FRAME[i:i + 2] for i in range(0, len(FRAME), 2))
    answers = [traced(plan, "--hex", FRAME), traced(plan, "--hex", spaced), traced(plan, "--hex", colons),
               traced(plan, "--hex", "-", input=f"# two ways\n\n{FRAME}\n"), traced(plan, "--pcap", capture)]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0]["reason"] == "to_host" and answers[0][0]["bytes"].endswith(FRAME[28:])
    assert by_flags[0]["bytes"][:68] == answers[0][0]["bytes"][:68]  # up to the outer UDP header


@pytest.mark.parametrize("text, said", [
    ("02zz", "column 3: `z` is no hex digit"), (FRAME + "0", "109 digits: a byte has two"),
    ("0200", "2 bytes are no Ethernet frame"), ("", "0 bytes are no Ethernet frame"),
])
def test_a_mistake_in_hex_is_named_with_its_place(plan, text, said):
    done = portslice("trace", "--plan", plan[0], "--hex", text)
    assert done.returncode == 1 and not done.stdout and said in done.stderr
    if text:
        done = portslice("trace", "--plan", plan[0], "--hex", "-", input=f"{FRAME}\n\n{text}\n")
        assert done.returncode == 1 and not done.stdout and f"line 3, {said}" in done.stderr


def test_no_frame_at_all_is_wrong_use(plan):
    done = portslice("trace", "--plan", plan[0], "--hex", "-", input="\n# nothing\n")
    assert done.returncode == 1 and "no frame on standard input" in done.stderr


def test_two_sources_of_packets_are_wrong_use(plan):
    done = portslice("trace", "--plan", plan[0], "--hex", FRAME, "--pcap", "x")
    assert done.returncode == 1 and "only one of" in done.stderr


@pytest.mark.parametrize("cut, said", [("snaplen", "frame 1: only 40 of its 54 bytes"), ("file", "after frame 0: truncated")])
def test_a_capture_that_lacks_bytes_is_named_with_its_frame(plan, tmp_path, cut, said):
    capture = tmp_path / "x.pcap"
    frame = bytes.fromhex(FRAME)
    kept = 40 if cut == "snaplen" else len(frame)
    capture.write_bytes(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1) +
                        struct.pack("<IIII", 0, 0, kept, len(frame)) + frame[:40])
    done = portslice("trace", "--plan", plan[0], "--pcap", capture)
    assert done.returncode == 1 and said in done.stderr and not done.stdout
