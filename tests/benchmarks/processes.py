"""Processes, and what they cost: seconds of the wall, CPU time, peak memory.

This module and what uses it import nothing large: on Linux a child's peak memory is never told
to be less than that of the process that started it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 600.0
"""Seconds after which a process counts as stuck, and is killed."""

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What one process, with the children that it waited for, took.

    Attributes:
        seconds: of the wall, from before its start until it had ended.
        cpu: seconds of user and system time.
        peak: bytes of memory that were resident at most.
    """

    seconds: float
    cpu: float
    peak: int


class Failed(Exception):
    """A process did not do what it was there for."""


def run(
    words: Sequence[str | Path],
    *,
    environ: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> Cost:
    """Run a command to its end.

    Raises:
        Failed: it ended with another exit than 0, or not in time.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        words, env=environ, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    return finish(process, began)


def finish(process: subprocess.Popen[bytes], began: float) -> Cost:
    """Wait until a process, begun at that `perf_counter`, has ended; its standard error is a pipe.

    Raises:
        Failed: it ended with another exit than 0, or not in time.
    """
    stuck = threading.Timer(PATIENCE, process.kill)
    stuck.start()
    try:
        assert process.stderr is not None
        with process.stderr:
            said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    finally:
        stuck.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        words = " ".join(str(word) for word in process.args)  # type: ignore[union-attr]
        raise Failed(f"{words}: exit {process.returncode}: {said.decode(errors='replace')}")
    # macOS counts in bytes, all others in KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)


class Standing:
    """A process that stays, such as a server; ended by `end`. Its costs are read from /proc."""

    def __init__(
        self, words: Sequence[str | Path], *, environ: Mapping[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            words,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._said = b""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._said = (self._said + line)[-65536:]

    def line(self) -> str:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.end()
            raise Failed(f"{self.process.args!r} ended: {self._said.decode(errors='replace')}")
        return line.decode()

    def forget_output(self) -> None:
        """Read the rest of its standard output in a thread, so that it never waits for that."""
        assert self.process.stdout is not None
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def cpu(self) -> float:
        """Seconds of CPU time so far, of its ended children too."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        # Fields 14 to 17; the second one is a name in parentheses, which may hold anything.
        fields = stat.rpartition(")")[2].split()[11:15]
        return sum(int(field) for field in fields) / _TICKS

    def cpu_without_children(self) -> float:
        """Like `cpu`, once all of its children have ended."""
        deadline = time.monotonic() + PATIENCE
        while _children(self.process.pid):
            if time.monotonic() > deadline:
                raise Failed(f"{self.process.args!r}: its children do not end")
            time.sleep(0.002)
        return self.cpu()

    def peak(self) -> int:
        """Bytes of memory that were resident at most since `reset_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def reset_peak(self) -> None:
        """Let the peak begin anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def end(self) -> None:
        """End it, and wait for that."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._listener.join()


def _children(pid: int) -> list[int]:
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        if parent == pid:
            children.append(int(stat.parent.name))
    return children


def run_for_output(words: Sequence[str | Path]) -> str:
    """Run a command to its end, and return its standard output.

    Raises:
        Failed: it ended with another exit than 0, or not in time.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise Failed(str(error)) from None
    if done.returncode:
        raise Failed(f"{words}: exit {done.returncode}: {done.stderr}")
    return done.stdout
