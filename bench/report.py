"""What is said about the runs: medians, tables, machine, versions; and where it goes.

BENCHMARKS.md is a row of sections, each between two comments that name its benchmark. A run replaces
the sections it measured and leaves every other word of the file alone, so each section says for
itself when and on what it was measured.
"""
import datetime
import math
import os
import platform
import re
import statistics
import subprocess
import time

from payload import file_system

HEAD = """# Benchmarks

Written by `./scripts/bench.sh`, which see for what it needs. In every table the tools took turns
(A, B, C, A, B, C, …), because a machine is never quite quiet; figures are medians of those rounds,
and a ratio is the median of the rounds' own ratios. CPU is user + system time of all processes of a
tool, servers included. Peak memory is the kernel's VmHWM. Every result was compared with the
original byte by byte. MiB are 2^20 bytes, MB 10^6.
"""


def median(values):
    return statistics.median(list(values))


def seconds(value):
    if math.isnan(value):
        return "**failed**"
    return f"{value:.1f}" if value >= 20 else f"{value:.2f}" if value >= 0.2 else f"{value:.4f}"


def mib(size):
    """Nothing for what was not measured: a process that ended by itself."""
    return f"{size / (1 << 20):.0f} MiB" if size else ""


def size_name(size):
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"


def number(value, form=".2f"):
    return format(value, form) if math.isfinite(value) else "—"


def ratio(ours, theirs):
    """Median over the rounds of ours ÷ theirs."""
    return number(median(a / b for a, b in zip(ours, theirs)))


def table(head, rows):
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        return (done.stdout + done.stderr).strip().splitlines()[0]
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return ""


def version(*command):
    found = re.search(r"\d+(\.\d+)+", first_line(*command))
    return found.group() if found else ""


def versions(bench):
    asked = {
        "potluck": (bench.bin / "potluck", "--version"), "b3sum": ("b3sum", "--version"),
        "curl": ("curl", "--version"), "aria2": ("aria2c", "--version"), "nginx": ("nginx", "-v"),
        "libtorrent": (bench.torrent_python or "false", "-c", "import libtorrent; print(libtorrent.__version__)"),
        "Syncthing": ("syncthing", "--version"), "Python": ("python3", "--version"),
    }
    found = {name: version(*command) for name, command in asked.items()}
    if bench.commit:
        found["potluck"] += f" ({bench.commit})"
    return ", ".join(f"{name} {numbers}" for name, numbers in found.items() if numbers)


class Others:
    """How much of the machine was taken by what is not ours."""

    def __init__(self):
        self.before, self.began = self.read(), time.monotonic()

    @staticmethod
    def read():
        """CPU seconds of processes on the whole machine, without ours, all of which have been collected."""
        with open("/proc/stat") as stat:
            everybody = sum(map(int, stat.readline().split()[1:4])) / os.sysconf("SC_CLK_TCK")
        return everybody - sum(os.times()[:4])

    def cores(self):
        return max(0.0, (self.read() - self.before) / (time.monotonic() - self.began))


def machine():
    model, memory = "", 0
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "")
    with open("/proc/meminfo") as info:
        memory = int(info.readline().split()[1]) >> 20
    cores = len(os.sched_getaffinity(0))
    kernel = re.match(r"\d+\.\d+(\.\d+)?", platform.release())
    return f"{cores} cores ({model or platform.machine()}), {memory} GiB, Linux {kernel.group()}"


def stamp(bench, others):
    cores = others.cores()
    size = "small sizes (`--quick`), " if bench.quick else ""
    busy = f"other work on the machine took {cores:.1f} cores meanwhile"
    if cores >= 0.1:
        busy = f"**on a busy machine: {busy}**"
    return f"_{datetime.date.today()}, {size}{busy}; {machine()}; {versions(bench)}._\n"


def rounds(count):
    return "One round" if count == 1 else f"Medians of {count} rounds"


def section(name, title, parts):
    return f"<!-- bench:{name} -->\n## {title}\n\n" + "\n".join(parts).rstrip() + f"\n<!-- end:{name} -->\n"


def put_section(path, name, text, order):
    """Replace that section, or add it before the first one that comes later in the order."""
    old = path.read_text() if path.exists() else HEAD
    mine = re.compile(rf"<!-- bench:{name} -->.*?<!-- end:{name} -->\n", re.S)
    if mine.search(old):
        new = mine.sub(lambda _: text, old)
    else:
        later = [old.find(f"<!-- bench:{other} -->") for other in order[order.index(name) + 1:]]
        at = min([place for place in later if place >= 0], default=len(old))
        new = f"{old[:at].rstrip()}\n\n{text}\n{old[at:]}".rstrip() + "\n"
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(new)
    temporary.replace(path)


def where(folder):
    """A file system, in words."""
    kind = file_system(folder)
    return "memory (tmpfs)" if kind == "tmpfs" else f"disk ({kind})"
