# SPDX-License-Identifier: MIT
"""portsliced on the lab's hosts: one instance each, named NAME-HOST, all on one store."""
import subprocess
import time
from pathlib import Path

import net
import place
import process


def instance(name: str, host: str) -> str:
    return f"{name}-{host}"


def store(name: str) -> str:
    return f"sqlite:{place.state(name)}/store/store.db"


def portslice_argv(name: str, host: str, *args: str) -> list:
    return [*net.enter(name, host), str(place.binary("src/cli/portslice")), "--instance", instance(name, host), *args]


def daemon_argv(name: str, host: str, binary: Path, extra: list) -> list:
    return [str(binary), "--instance", instance(name, host), "--host", host, "--store", store(name),
            "--cgroup", str(place.cgroup(name) / host), *extra]


def pid(name: str, host: str) -> int | None:
    """The host's agent, if it runs."""
    try:
        number = int((place.state(name) / host / "agent.pid").read_text())
    except (OSError, ValueError):
        return None
    return number if process.belongs(number, name) else None


def _ready(name: str, host: str) -> bool:
    return subprocess.run(portslice_argv(name, host, "status"), stdin=subprocess.DEVNULL, timeout=10,
                          capture_output=True, check=False).returncode == 0


def log(name: str, host: str) -> Path:
    return place.state(name) / host / "agent.log"


def wait_ready(name: str, started: dict, timeout: float) -> None:
    """Returns when every agent of {host: Popen} answers; raises with the end of its log when one does not."""
    deadline = time.monotonic() + timeout
    waiting = dict(started)
    while waiting:
        for host, child in list(waiting.items()):
            if _ready(name, host):
                del waiting[host]
            elif child.poll() is not None or time.monotonic() > deadline:
                why = "is not ready" if child.poll() is None else f"ended with {child.returncode}"
                tail = "\n".join(log(name, host).read_text(errors="replace").splitlines()[-10:])
                raise place.LabError(f"{host}: portsliced {why}; the end of {log(name, host)}:\n{tail}")
        time.sleep(0.02)
