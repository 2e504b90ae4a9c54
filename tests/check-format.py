#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails when clang-format would change a C file."""
import pathlib
import subprocess
import sys

root = pathlib.Path(sys.argv[1])
files = [str(p) for top in ("src", "tests", "bench", "lab") for p in (root / top).rglob("*.[ch]")]
run = subprocess.run(["clang-format-19", "--dry-run", "-Werror", *files],
                     capture_output=True, text=True, cwd=root)
print(run.stderr[-2000:] if run.returncode else "format: clean")
sys.exit(run.returncode != 0)
