"""The processes of one tool: started, timed, weighed and ended.

A Proc is a session of its own (nginx and its worker are one Proc). A Tool is all the Procs whose work
counts together, e.g. tracker, owners and downloader. CPU seconds are user + system time of every
process in those sessions: of the living from /proc, of the dead from the kernel's own accounting
when we collect them. Leaving the `with` block of a Tool ends all of its processes.
"""
import math
import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

from payload import Failed, flush

TICKS = os.sysconf("SC_CLK_TCK")
# Work that a tool puts off until after its result is there (closing, announcing) still counts.
AFTERMATH = 0.3


@dataclass
class Sample:
    """What one run took."""
    seconds: float
    cpu: float
    to_disk: float = 0.0  # seconds more until the result had reached the disk
    peak: int = 0         # bytes of memory, of the downloading process
    peak_owners: int = 0  # the largest of the owners'
    # Of a race: when each downloader was done, when the first, how often the first owner sent the file.
    times: dict = field(default_factory=dict)
    first: float = math.nan
    copies: float = math.nan


FAILED = Sample(math.nan, math.nan)


class Proc:
    def __init__(self, argv, log, enter=(), env=None):
        self.argv, self.log, self.cpu_at_end, self.code = argv, log, None, None
        with open(log, "ab") as out:
            self.popen = subprocess.Popen([*enter, *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          start_new_session=True, env={**os.environ, **(env or {})})
        self.pid = self.popen.pid

    def collect(self, flags=0):
        """True once it has ended. With flags=0 this waits for the end and returns at that moment."""
        if self.code is None:
            pid, status, usage = os.wait4(self.pid, flags)
            if pid:
                self.code = self.popen.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_at_end = usage.ru_utime + usage.ru_stime
        return self.code is not None

    def ended(self):
        return self.collect(os.WNOHANG)

    def wait(self, timeout):
        """Wait for success."""
        late = threading.Timer(timeout, self.signal, [signal.SIGKILL])
        late.start()
        self.collect()
        late.cancel()
        if self.code != 0:
            raise Failed(f"{' '.join(self.argv[:2])}… ended with {self.code} (limit {timeout} s): {self.last_words()}")

    def last_words(self):
        with open(self.log, "rb") as log:
            return log.read()[-600:].decode(errors="replace").strip()

    def cpu(self):
        return session_cpu(self.pid) if self.code is None else self.cpu_at_end

    def peak_memory(self):
        """VmHWM in bytes: anonymous memory and mapped files, at its highest so far."""
        try:
            with open(f"/proc/{self.pid}/status") as status:
                return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            return 0

    def signal(self, number):
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def stop(self):
        if not self.ended():
            self.signal(signal.SIGTERM)
            deadline = time.monotonic() + 5
            while not self.ended() and time.monotonic() < deadline:
                time.sleep(0.01)
        self.signal(signal.SIGKILL)  # and whatever it left behind in its session
        self.collect()


def session_cpu(session):
    ticks = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            if int(fields[3]) == session:
                # utime and stime; for the leader also those of children it has waited for.
                ticks += sum(map(int, fields[11:15] if int(name) == session else fields[11:13]))
    return ticks / TICKS


class Tool:
    """All processes of one tool, and a folder for their logs."""

    def __init__(self, folder):
        self.folder, self.procs = folder, []
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for proc in reversed(self.procs):
            proc.stop()

    def start(self, name, argv, enter=(), env=None):
        self.procs.append(Proc([str(word) for word in argv], self.folder / f"{name}.log", enter, env))
        return self.procs[-1]

    def cpu(self):
        return sum(proc.cpu() for proc in self.procs)

    @contextmanager
    def clock(self, result=None):
        """Seconds and CPU seconds of the block, and then how long its result takes to reach the disk."""
        sample = Sample(0.0, 0.0)
        cpu, began = self.cpu(), time.monotonic()
        yield sample
        ended = time.monotonic()
        sample.seconds = ended - began
        if result:
            flush(result)
            sample.to_disk = time.monotonic() - ended
        time.sleep(AFTERMATH)
        sample.cpu = self.cpu() - cpu

    def timed(self, name, argv, timeout, result=None):
        """Run one command to its end beside the processes that are already there."""
        with self.clock(result) as sample:
            self.start(name, argv).wait(timeout)
        return sample


def wait_until(what, ready, seconds, every=0.01):
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(every)
