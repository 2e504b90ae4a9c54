#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Boots Debian 12's own 6.1 kernel under software emulation and runs our programs and packet tests on it.

The oldest kernel we promise.  Its verifier counts stack and instructions otherwise than a newer one, and some helpers are
not there yet, so nothing but the kernel itself can say whether the programs load.

The initial RAM disk holds a static busybox, the kernel's modules that we need, BUILD's test programs with the libraries they
link, and init.sh, which runs them one after another and prints how each ended; the serial console brings that here.
Packages come from Debian by name (qemu-system-x86, busybox-static, linux-image-6.1.0-*-cloud-amd64; the last is only unpacked,
and kept below BUILD).  Where they cannot be had the suite is skipped, with the reason.

usage: boot.py [--build BUILD] [NAME...]      one line a test; exit 0 good, 1 not, 77 skipped
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "/bin/busybox": "busybox-static", "cpio": "cpio"}
MODULES = ["drivers/net/veth", "drivers/net/dummy", "drivers/net/bonding/bonding", "net/tls/tls", "net/sched/cls_bpf",
           "net/sched/cls_u32", "net/sched/sch_ingress", "net/llc/llc", "net/802/stp", "net/bridge/bridge"]
OBJECTS = ["src/dispatch/dispatch.bpf.o", "src/dispatch/name.bpf.o", "src/egress/egress-hooks.bpf.o", "src/egress/egress-guard.bpf.o"]
PROGRAMS = ["/usr/sbin/ip", "/usr/sbin/tc", "/usr/sbin/ethtool"]
SKIPPED = 77
TIMEOUT_S = 1200


class Skip(Exception):
    pass


def quiet(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, **options)


def install(packages):
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    done = quiet("apt-get", "install", "-y", "-q", "--no-install-recommends", *packages, env=env)
    if done.returncode:
        raise Skip(f"cannot install {' '.join(packages)}: {done.stderr.strip().splitlines()[-1:]}")


def need_tools():
    missing = sorted(package for tool, package in TOOLS.items() if not shutil.which(tool))
    if missing:
        install(missing)


def newest(names):
    return max(names, key=lambda name: int(re.search(r"6\.1\.0-(\d+)", name)[1]), default=None)


def kernel_package(folder):
    """The .deb of the newest 6.1 kernel of Debian, fetched once."""
    kept = newest([p.name for p in folder.glob("linux-image-6.1.0-*.deb")])
    if kept:
        return folder / kept
    if not shutil.which("apt-get"):
        raise Skip("no apt-get here to fetch Debian's 6.1 kernel with")
    found = quiet("apt-cache", "search", "--names-only", r"^linux-image-6\.1\.0-[0-9]+-cloud-amd64$").stdout
    name = newest(re.findall(r"^(linux-image-6\.1\.0-\d+-cloud-amd64) ", found, re.M))
    if not name:
        raise Skip("apt knows no linux-image-6.1.0-*-cloud-amd64 (it is Debian 12's kernel)")
    folder.mkdir(parents=True, exist_ok=True)
    done = quiet("apt-get", "download", name, cwd=folder)
    kept = newest([p.name for p in folder.glob("linux-image-6.1.0-*.deb")])
    if done.returncode or not kept:
        raise Skip(f"cannot fetch {name}: {done.stderr.strip()[-200:]}")
    return folder / kept


def libraries(program):
    """Files that the program's loader will open, the loader itself among them."""
    return set(re.findall(r"(/\S+) \(0x", quiet("ldd", program).stdout))


def put(root, source, target=None):
    at = root / str(target or source).lstrip("/")
    at.parent.mkdir(parents=True, exist_ok=True)
    if not at.exists():
        shutil.copy(source, at)


def put_program(root, source, target=None):
    put(root, source, target)
    for library in libraries(source):
        put(root, library)


def put_modules(root, kernel):
    folder = next((kernel / "lib/modules").iterdir()) / "kernel"
    for module in MODULES:
        for file in folder.glob(f"{module}.ko*"):
            put(root, file, f"/modules/{file.name}")
            if file.suffix == ".xz":
                subprocess.run(["xz", "-d", root / "modules" / file.name], check=True)


def tests(build, names):
    """(name, program, arguments) in the order in which they run."""
    listed = [("verify", build / "tests/kernel/verify", " ".join(f"/objects/{pathlib.Path(o).name}" for o in OBJECTS))]
    listed += [(f"packet-{p.name.removeprefix('test-')}", p, "") for p in sorted((build / "tests/packet").glob("test-*"))
                     if p.is_file()] + [("unit-uplink", build / "tests/unit/test-uplink", "")]
    return [test for test in listed if not names or test[0] in names]


def make_disk(root, kernel, build, names):
    put(root, "/bin/busybox")
    put(root, ROOT / "tests/kernel/init.sh", "/init")
    (root / "init").chmod(0o755)
    put_modules(root, kernel)
    for program in PROGRAMS:
        put_program(root, program)
    put_program(root, os.path.realpath("/bin/sh"), "/bin/sh")  # busybox's would take its own `ip` and `tc`
    for item in OBJECTS:
        put(root, build / item, f"/objects/{pathlib.Path(item).name}")
    lines = []
    for name, program, arguments in tests(build, names):
        put_program(root, program, f"/tests.d/{program.name}")
        lines.append(f"{name} /tests.d/{program.name} {arguments}\n")
    (root / "tests").write_text("".join(lines))


def pack(root, target):
    names = quiet("find", ".", cwd=root).stdout
    with open(target, "wb") as out:
        subprocess.run("cpio -o -H newc 2>/dev/null | gzip -1", shell=True, cwd=root, input=names.encode(), stdout=out,
                       check=True)


def boot(kernel, disk):
    """What the console says, line by line as it comes."""
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1536", "-smp", "2", "-nographic",
               "-no-reboot", "-nodefaults", "-serial", "stdio", "-kernel", next((kernel / "boot").glob("vmlinuz-*")),
               "-initrd", disk, "-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace") as child:
        deadline = time.monotonic() + TIMEOUT_S
        for line in child.stdout:
            yield line.rstrip()
            if time.monotonic() > deadline:
                child.kill()


def judge(console):
    """Prints one line a test, and what a failed one said; gives how many failed, passed and were skipped."""
    said, failed, passed, skipped, begun, done = [], 0, 0, 0, None, False
    for line in console:
        word, _, rest = line.partition(" ")
        if "BOOTED " in line:  # behind what the firmware says
            print(f"   booted {line.split('BOOTED ')[1]}", flush=True)
        elif word == "BEGIN":
            begun, said = rest, []
        elif word == "END" and begun:
            code = int(rest.split()[1])
            passed, skipped, failed = passed + (code == 0), skipped + (code == SKIPPED), failed + (code not in (0, SKIPPED))
            print(f"   {begun}: {'OK' if code == 0 else 'SKIP' if code == SKIPPED else f'FAILED ({code})'}", flush=True)
            shown = [text for text in said[:-60 if code else None] if text.startswith("VERIFY ")] + (said[-60:] if code else [])
            print("".join(f"      {text}\n" for text in shown), end="", flush=True)
            begun = None
        else:
            said.append(line)
            done |= line == "DONE"
    if begun or not done:
        print(f"   {begun or 'the kernel'}: never ended\n" + "\n".join(said[-40:]))
        failed += 1
    return failed, passed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("names", nargs="*", help="only these tests")
    args = parser.parse_args()
    build = args.build.resolve()
    try:
        need_tools()
        package = kernel_package(build / "kernel-6.1")
    except Skip as reason:
        print(f"   skipped: {reason}")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        kernel, root, disk = folder / "kernel", folder / "root", folder / "disk.gz"
        subprocess.run(["dpkg-deb", "-x", package, kernel], check=True)
        make_disk(root, kernel, build, args.names)
        pack(root, disk)
        failed, passed, skipped = judge(boot(kernel, disk))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
