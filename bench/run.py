"""Run the benchmarks and write their sections. Called by scripts/bench.sh, which says what it needs.

Each benchmark is a module with a TITLE, the programs it NEEDS, and run(bench), which gives the parts
of its section: tables and, under each, a sentence on what it shows and what it does not.
"""
import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import report
from payload import Failed, file_system, remove
from processes import FAILED

ORDER = ["hashing", "loopback", "sizes", "small_files", "memory", "sync", "multi", "crowd", "limits", "simulation"]

MANY_FILES = 500  # of one result


class Bench:
    """What the benchmarks are told, and what they may ask for."""

    def __init__(self, args):
        self.quick = args.quick
        self.rounds = args.rounds or (2 if args.quick else 5)
        self.shaped_rounds = args.rounds or (1 if args.quick else 3)  # links decide: they vary less
        self.bin, self.commit = Path(args.bin).resolve(), args.commit
        self.memory, self.disk = Path(args.memory), Path(args.disk)
        self.isolated = os.environ.get("PLB_ISOLATED") == "1"
        self.torrent_python = args.torrent_python
        self.simulation = args.simulation
        self.failures = []
        self.to_clear = []

    def places(self):
        """Folders to work in, by the type of their file system: memory first, then disk."""
        found = {file_system(self.memory): self.memory}
        return found | {file_system(self.disk): self.disk}

    def has(self, program):
        return shutil.which(program) is not None

    def fresh(self, place):
        return Path(tempfile.mkdtemp(prefix="plb-", dir=place))

    def clear_away(self, folder):
        """Remove it; what holds many files on a disk, only when everything has been measured. For minutes after many
        files were deleted ext4 passes over their inodes one by one, which makes each new file near them cost most of
        a millisecond, and whoever comes next would pay for that."""
        many = folder.is_dir() and sum(len(files) for _, _, files in os.walk(folder)) > MANY_FILES
        if many and not folder.is_relative_to(self.memory):
            self.to_clear.append(folder)
        else:
            remove(folder)

    def clear_all(self):
        while self.to_clear:
            remove(self.to_clear.pop())

    def need_space(self, place, size):
        free = shutil.disk_usage(place).free
        if place == self.memory:
            with open("/proc/meminfo") as info:
                available = next(int(line.split()[1]) << 10 for line in info if line.startswith("MemAvailable"))
            free = min(free, available - (1 << 30))
        if free < size:
            raise Failed(f"{report.size_name(size)} of room is needed ({file_system(place)}), "
                         f"{report.size_name(max(free, 0))} is there")

    def interleave(self, what, tools, rounds=None):
        """Let the tools take turns; the samples of each, one a round. A tool that fails once has failed."""
        samples = {name: [] for name in tools}
        rounds = rounds or self.rounds
        for number in range(1, rounds + 1):
            for name, once in tools.items():
                if FAILED in samples[name]:
                    continue
                os.sync()  # what the one before left to be written is not for the next to wait for
                label = f"{what}, {name if isinstance(name, str) else ', '.join(map(str, name))}"
                try:
                    sample = once()
                except Failed as failure:
                    # The others go on; this one counts as failed, whatever it did before.
                    samples[name] = [FAILED] * rounds
                    self.failures.append(label)
                    print(f"FAILED {label}: {failure}", file=sys.stderr, flush=True)
                    continue
                samples[name].append(sample)
                print(f"  {label}, {number}/{rounds}: {sample.seconds:.3f} s, {sample.cpu:.2f} CPU s",
                      file=sys.stderr, flush=True)
        return samples


def missing(bench, needs):
    for need in needs:
        if need == "isolation" and not bench.isolated:
            return "network namespaces (root)"
        if need == "simulation" and not bench.simulation:
            return "a build of its own (no POTLUCK_BIN)"
        if need not in ("isolation", "simulation") and not shutil.which(need):
            return need
    return None


def measure(bench, names, output):
    for name in names:
        benchmark = importlib.import_module(name)
        lacks = missing(bench, benchmark.NEEDS)
        if lacks:
            print(f"LEFT OUT {name}: needs {lacks}", file=sys.stderr)
            continue
        print(f"=== {name}", file=sys.stderr, flush=True)
        others = report.Others()
        try:
            parts = benchmark.run(bench)
        except Failed as failure:
            bench.failures.append(name)
            print(f"FAILED {name}: {failure}", file=sys.stderr)
            continue
        if any("**failed**" in part for part in parts):
            parts.append("\n**failed**: in one of the rounds it ended with an error or took too long, or its result was wrong.")
        text = report.section(name, benchmark.TITLE, [report.stamp(bench, others), *parts])
        print(text)
        if output != "-":
            report.put_section(Path(output), name, text, ORDER)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    for name in ("--bin", "--memory", "--disk", "--output"):
        parser.add_argument(name, required=True)
    parser.add_argument("--torrent-python", default="")
    parser.add_argument("--commit", default="")
    parser.add_argument("--simulation", default="")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()

    def end(number, _):
        raise SystemExit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)  # so that every `with` and `finally` is left in order

    bench = Bench(args)
    if bench.isolated:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # new namespaces begin without
    try:
        measure(bench, args.names or ORDER, args.output)
    finally:
        bench.clear_all()
    sys.exit(f"FAILED: {'; '.join(bench.failures)}" if bench.failures else 0)


if __name__ == "__main__":
    main()
