#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails when a folder includes a header of a folder it must not know (tests/deps.txt)."""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
rules = {}
for line in (root / "tests/deps.txt").read_text().splitlines():
    if line and not line.startswith("#"):
        name, _, allowed = line.partition(":")
        rules[name] = set(allowed.split())
# A kernel ABI may be shared by the programs that share the map.
shared = {("dispatch", "egress/abi.h"), ("dispatch", "egress/page-bits.h")}
bad = []
for folder, allowed in rules.items():
    for source in (root / "src" / folder).rglob("*.[ch]"):
        for n, text in enumerate(source.read_text().splitlines(), 1):
            m = re.match(r'\s*#\s*include\s+"(([a-z]+)/[^"]+)"', text)
            if not m or m[2] == folder or m[2] in allowed or (folder, m[1]) in shared:
                continue
            bad.append(f"{source.relative_to(root)}:{n}: {folder} must not include {m[1]}")
for folder in (root / "src").iterdir():
    if folder.is_dir() and folder.name not in rules:
        bad.append(f"src/{folder.name}: not in tests/deps.txt")
print("\n".join(bad) or "dependencies: clean")
sys.exit(bool(bad))
