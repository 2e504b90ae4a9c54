#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails when a function or file outgrows conventions.md; tests/size.txt excuses, with reasons."""
import json
import pathlib
import subprocess
import sys

FUNCTION, SOURCE, HEADER = 60, 700, 300
root = pathlib.Path(sys.argv[1])
files = [p for p in (root / "src").rglob("*.[ch]")]
excused = {line.split(":")[0].strip()
           for line in (root / "tests/size.txt").read_text().splitlines()
           if line.strip() and not line.startswith("#")}
bad = []
for path in files:
    n = path.read_text().count("\n")
    if n > (SOURCE if path.suffix == ".c" else HEADER):
        bad.append((str(path.relative_to(root)), f"{path.relative_to(root)}: {n} lines"))
tags = subprocess.run(
    ["ctags", "--languages=C", "--map-C=+.h", "--kinds-C=f", "--fields=+ne",
     "--output-format=json", "-L", "-", "-f", "-"],
    input="\n".join(map(str, files)), capture_output=True, text=True, check=True).stdout
for tag in map(json.loads, tags.splitlines()):
    n = tag.get("end", 0) - tag["line"] + 1
    if n > FUNCTION:
        where = pathlib.Path(tag["path"]).relative_to(root)
        bad.append((tag["name"], f"{where}:{tag['line']}: {tag['name']} is {n} lines"))
bad = [text for name, text in bad if name not in excused]
print("\n".join(bad) or "sizes: clean")
sys.exit(bool(bad))
