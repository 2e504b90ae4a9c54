# SPDX-License-Identifier: MIT
"""Labs for end-to-end tests: each has a name of its own and dies with its fixture, or with pytest.

When a test fails, what its labs wrote (pcaps, logs, configurations) is copied to BUILD/e2e-failures/LAB and the
report says so.
"""
import itertools
import os
import shutil
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "lab"))

import place  # noqa: E402
from lab import Lab  # noqa: E402

TWO_SITES = REPO / "lab" / "two-sites.yaml"
ONE_SITE = REPO / "lab" / "one-site.yaml"

_numbers = itertools.count(1)
_live = []


def fresh_name() -> str:
    return f"t{os.getpid()}_{next(_numbers)}"


def _why_not() -> str | None:
    """Why no lab can be built here, found by asking, not by failing."""
    if os.geteuid() != 0:
        return "needs root: network namespaces"
    missing = [tool for tool in ("ip", "nsenter", "ethtool", "bird", "nginx", "unbound", "tcpdump", "nft", "clang-19",
                                 "bpftool") if not shutil.which(tool)]
    return f"needs {', '.join(missing)}: try tools/deps" if missing else None


@pytest.fixture(scope="session")
def can_lab():
    if reason := _why_not():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def new_lab(can_lab):
    """A function that builds one more lab; all go at the end of the module."""
    made = []

    def build(topology: Path = TWO_SITES) -> Lab:
        lab = Lab.up(topology, fresh_name(), with_pid=os.getpid())
        made.append(lab)
        _live.append(lab)
        return lab

    yield build
    for lab in made:
        _live.remove(lab)
        lab.down()


@pytest.fixture(scope="module")
def lab(new_lab):
    """Two sites of three hosts without agents, shared by the tests of a module: leave it as you found it."""
    return new_lab()


@pytest.fixture(scope="module")
def small_lab(new_lab):
    """One site of three hosts without BGP and without agents: leave it as you found it."""
    return new_lab(ONE_SITE)


def _keep(lab: Lab) -> Path:
    kept = place.build_dir() / "e2e-failures" / lab.name
    shutil.rmtree(kept, ignore_errors=True)
    if lab.state.is_dir():
        shutil.copytree(lab.state, kept, ignore=shutil.ignore_patterns("large", "tmp", "*.ctl", "*.sock"))
    return kept


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed and _live:
        text = []
        for lab in _live:
            try:
                text.append(f"lab {lab.name}: pcaps, logs and configurations are in {_keep(lab)}")
            except (OSError, shutil.Error) as error:
                text.append(f"lab {lab.name}: its files could not be kept: {error}")
        report.sections.append(("lab", "\n".join(text)))
