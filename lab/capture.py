# SPDX-License-Identifier: MIT
"""Packets on a wire of the lab, by tcpdump, complete from start to stop."""
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

from place import LabError

STATISTICS = re.compile(r"(\d+) packets? (captured|received by filter|dropped by kernel)")


class Capture:
    """A running tcpdump; `path` is its pcap, complete after stop(). As a context manager it stops by itself.

    `dropped` is what the kernel could not hand over (0, or the count is not to be trusted); set by stop().
    """

    def __init__(self, path: Path, argv: list):
        self.path, self.dropped, self._text = path, None, ""
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.PIPE)
        os.set_blocking(self._process.stderr.fileno(), False)
        if not self._read_until(lambda: "listening on" in self._text, 5):
            self._process.kill()
            self._process.wait()
            raise LabError(f"tcpdump does not listen: {self._text.strip()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _read_until(self, enough, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not enough():
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stderr], [], [], left)[0]:
                return False
            more = os.read(self._process.stderr.fileno(), 65536).decode(errors="replace")
            if not more:
                return enough()
            self._text += more
        return True

    def _statistics(self) -> dict:
        """What tcpdump says of itself on SIGUSR1."""
        self._text = ""
        self._process.send_signal(signal.SIGUSR1)
        if not self._read_until(lambda: "dropped by kernel" in self._text, 2):
            raise LabError(f"tcpdump does not answer: {self._text.strip()}")
        return {what: int(count) for count, what in STATISTICS.findall(self._text)}

    def stop(self) -> Path:
        """Waits until tcpdump has written all that the kernel received, then ends it. Idempotent."""
        if self._process.poll() is None:
            deadline = time.monotonic() + 5
            seen = self._statistics()
            while seen["captured"] + seen["dropped by kernel"] < seen["received by filter"]:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
                seen = self._statistics()
            self.dropped = seen["dropped by kernel"]
            self._process.send_signal(signal.SIGINT)
            self._process.wait(5)
        self._process.stderr.close()
        return self.path

    def count(self, expression: str = "") -> int:
        """How many captured packets match a further filter; all, without one."""
        done = subprocess.run(["tcpdump", "-n", "-r", str(self.path), "--count", *expression.split()],
                              capture_output=True, text=True, check=True)
        return int(re.search(r"(\d+) packet", done.stdout).group(1))
