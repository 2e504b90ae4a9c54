# SPDX-License-Identifier: MIT
"""Takes a lab down from its name alone; whatever is missing or damaged is stepped over."""
import shutil
import subprocess

import net
import place
import process


def _detach(name: str) -> None:
    """Lets the agents' programs go, by their own command where it is built."""
    command = place.binary("src/cli/portslice")
    running = []
    for pins in place.all_pins(name):
        space = place.NETNS / pins.name
        if command.exists() and space.exists():
            running.append(subprocess.Popen(
                ["nsenter", f"--net={space}", str(command), "--instance", pins.name, "detach"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for child in running:
        process.finish(child, timeout=2)
    for folder in place.all_pins(name) + place.all_sockets(name):
        shutil.rmtree(folder, ignore_errors=True)


def _remove_namespaces(name: str) -> None:
    spaces = place.all_netns(name)
    process.kill_namespaces(spaces)
    subprocess.run(["ip", "-force", "-batch", "-"], input="".join(f"netns del {path.name}\n" for path in spaces),
                   text=True, capture_output=True, check=False)
    for path in place.all_netns(name):
        path.unlink(missing_ok=True)   # what `ip netns add` left when it was killed half-way


def _remove_empty(*parents) -> None:
    for path in parents:
        try:
            path.rmdir()
        except OSError:
            continue   # another lab lives there


def teardown(name: str) -> list:
    """Ends the lab, and returns what would not go (nothing, if all is well). Idempotent."""
    process.leave_groups_of(name)
    process.kill_groups(place.cgroup(name))
    _detach(name)
    _remove_namespaces(name)
    process.remove_groups(place.cgroup(name))
    place.pass_pin(name).unlink(missing_ok=True)
    shutil.rmtree(place.state(name), ignore_errors=True)
    _remove_empty(place.cgroup(name).parent, place.STATE, place.SOCKETS)
    if net.is_bpffs(place.PINS.parent):
        _remove_empty(place.PINS)
    return place.traces(name)
