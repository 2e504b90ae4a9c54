#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks the models with Spin: with all guards nothing is found, without any one a counterexample is.

Each counterexample is then played to the C core (--replay PROGRAM), which keeps all its guards and
must hold; the same goes for random walks of the whole model.  Prints a row for each run.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
GUARDS = {"REGISTRATION": (0, 0, 0), "CONFIRMATION": (0, 0, 0), "INCARNATION": (0, 0, 1),
          "QUARANTINE": (1, 0, 0), "DEADLINE": (1, 0, 0), "EPOCH": (1, 0, 1), "BARRIER": (0, 0, 0),
          "VOTE": (0, 1, 0)}
WHOLE = [(0, 0, 0), (1, 1, 0), (0, 0, 1)]
LONG = [(1, 0, 1), (1, 2, 0)]


def sizes(numbers):
    return [f"-D{name}={n}" for name, n in zip(("CRASHES", "CUTS", "ROLLBACKS"), numbers)]


def check(model, defines, breadth_first):
    """(errors, states, seconds, events of the counterexample)"""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        def sh(*command):
            return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        sh("spin", "-a", *defines, str(HERE / model))
        sh("gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=8000", *(["-DBFS"] if breadth_first else []),
           "-o", "pan", "pan.c")
        out = sh("./pan", "-m1000000", "-w22")
        if "truncated" in out or "too small" in out or "out of memory" in out:
            sys.exit(f"{model} {defines}: not searched through\n{out}")
        errors = int(re.search(r"errors: (\d+)", out)[1])
        states = int(re.search(r"(\d+) states, stored", out)[1])
        trail = sh("spin", "-t", "-k", f"{model}.trail", *defines, str(HERE / model)) if errors else ""
    return errors, states, time.monotonic() - start, re.findall(r"EV (\w+) (\d)", trail)


def walks(n, length):
    """Random walks of the whole model, as lists of events."""
    for seed in range(1, n + 1):
        out = subprocess.run(["spin", f"-n{seed}", f"-u{length}", *sizes((1, 1, 1)), str(HERE / "lease.pml")],
                             capture_output=True, text=True).stdout
        yield f"walk {seed}", re.findall(r"EV (\w+) (\d)", out)


def replay(program, name, events, *args):
    text = "".join(f"{event} {host}\n" for event, host in events)
    return subprocess.run([program, *args], input=text, capture_output=True, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replay", help="the built tests/model/replay")
    parser.add_argument("--long", action="store_true")
    args = parser.parse_args()
    if not shutil.which("spin"):
        print("spin is not installed")
        return 77
    jobs = [("lease.pml", "all guards " + "/".join(map(str, n)), sizes(n), 0) for n in WHOLE + LONG * args.long]
    jobs += [("lease.pml", f"NO_{guard}", [f"-DNO_{guard}", *sizes(n)], 1) for guard, n in GUARDS.items()]
    jobs += [("lease.pml", "REACH", ["-DREACH=true", *sizes((1, 0, 0))], 1)]
    jobs += [("move.pml", "all guards", [], 0), ("move.pml", "NO_SITE", ["-DNO_SITE"], 1)]
    bad, traces = 0, []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda job: check(job[0], job[2], job[3]), jobs)
        for (model, name, _, wanted), (errors, states, seconds, events) in zip(jobs, results):
            ok = errors == wanted
            bad += not ok
            print(f"{'ok ' if ok else 'BAD'} {model:9} {name:20} {states:9} states {seconds:5.1f} s  "
                  f"{'counterexample of %d events' % len(events) if events else ''}")
            if events:
                print("      " + ", ".join(f"{event} {host}" for event, host in events))
                traces.append((name, events))
    for name, events in [*traces, *walks(20, 6000)] if args.replay else []:
        run = replay(args.replay, name, events)
        bad += run.returncode != 0
        print(f"{'ok ' if run.returncode == 0 else 'BAD'} replay    {name:20} {run.stdout.strip()}")
        if name.startswith("NO_") and name[3:] in GUARDS:
            mutant = replay(args.replay, name, events, "--without", name[3:])
            print(f"    replay    {name:20} the C core without it: {mutant.stdout.strip()}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
