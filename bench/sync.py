"""Folder sync: how soon an edit is seen elsewhere, many files at once, memory, idling, renames.

potluck beside Syncthing (where it is installed), as it comes and with the shortest delay its watcher can
be given. A change is made as any program makes it, and others look for it in their folders every
millisecond.
"""
import math
import os
import random
import sys
import time

import report
from payload import GIB, KIB, Failed, make_file, make_tree, must_equal
from processes import Tool, wait_until
from sync_tools import PotluckSync, Syncthing

TITLE = "Folder sync: four peers, one folder"
NEEDS = []
N = 4
LOOK = 0.000
IDLE_S = 30


AS_IT_COMES = "Syncthing, as it comes"


def tools(bench):
    found = {"potluck": PotluckSync}
    if bench.has("syncthing"):
        found["Syncthing, watcher delay 1 s"] = lambda *words: Syncthing(*words, delay=1)
        if not bench.quick:
            found[AS_IT_COMES] = Syncthing
    return found


class Running:
    """A swarm of a tool in a fresh folder, for the time of a `with` block."""

    def __init__(self, bench, place, make, n):
        self.bench, self.n = bench, n
        self.base = bench.fresh(place)
        self.tool = Tool(self.base)
        try:
            self.swarm = make(bench, self.tool, n)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self.swarm

    def __exit__(self, *_):
        self.tool.__exit__()
        self.bench.clear_away(self.base)


def start_all(swarm, n, n_files):
    for index in range(n):
        swarm.start(index)
    swarm.together(n)
    swarm.await_rest(range(n), n_files)


def try_each(bench, what, measure, but=()):
    """The figures of each tool; None of one that failed, which is said."""
    found = {}
    for name, make in tools(bench).items():
        if name in but:
            continue
        os.sync()
        try:
            found[name] = measure(name, make)
        except Failed as failure:
            found[name] = None
            bench.failures.append(f"{what}, {name}")
            print(f"FAILED {what}, {name}: {failure}", file=sys.stderr, flush=True)
            continue
        print(f"  {what}, {name}: {found[name]}", file=sys.stderr, flush=True)
    return found


# ---- edit to visible

def content(path):
    try:
        return path.read_bytes()
    except OSError:
        return None


def seen_after(swarm, actor, what, is_seen, seconds=180):
    """Seconds until it is so in the last of the other folders."""
    began = time.monotonic()
    what()
    others = [index for index in range(N) if index != actor]
    while others:
        others = [index for index in others if not is_seen(swarm.files(index))]
        if time.monotonic() - began > seconds:
            swarm.alive()
            raise Failed(f"a change of peer {actor} is not in the folders of {others} after {seconds} s")
        time.sleep(LOOK)
    return time.monotonic() - began


def changes(swarm, n, rng):
    """n times each kind of change, each by another peer than the one before; seconds by kind."""
    took = {"new file": [], "edit": [], "rename": [], "delete": []}
    for number in range(n):
        def step(kind, actor, what, is_seen):
            time.sleep(rng.uniform(0.2, 0.6))  # at any moment of whatever the tool does at intervals
            took[kind].append(seen_after(swarm, actor, what, is_seen))
        at = lambda index, name: swarm.files(index) / "000" / name
        first, second, third, fourth = ((number + k) % N for k in range(4))
        name, renamed = f"note{number}.txt", f"renamed{number}.txt"
        old, new = rng.randbytes(3_000), rng.randbytes(3_100)
        step("new file", first, lambda: at(first, name).write_bytes(old), lambda f: content(f / "000" / name) == old)
        step("edit", second, lambda: at(second, name).write_bytes(new), lambda f: content(f / "000" / name) == new)
        step("rename", third, lambda: at(third, name).rename(at(third, renamed)),
             lambda f: content(f / "000" / renamed) == new and not (f / "000" / name).exists())
        step("delete", fourth, lambda: at(fourth, renamed).unlink(), lambda f: not (f / "000" / renamed).exists())
    return took


def quantile(values, share):
    """The least value that at least this share of them do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def latency(bench, place, n_files):
    def measure(name, make):
        # The slower, the fewer; as it comes it waits ten seconds for every change.
        rounds = (5 if bench.quick else 50) if name == "potluck" else 1 if bench.quick else 10 if "1 s" in name else 2
        with Running(bench, place, make, N) as swarm:
            make_tree(swarm.files(0), n_files, KIB)
            start_all(swarm, N, n_files)
            return changes(swarm, rounds, random.Random(1))
    found = try_each(bench, f"changes, {report.where(place)}", measure)
    rows = []
    for name, took in found.items():
        cells = []
        for kind in ("edit", "new file", "rename", "delete"):
            values = took and took[kind]
            cells += [report.seconds(quantile(values, share)) if values else "**failed**" for share in (0.5, 0.95)]
        rows.append([name, len(took["edit"]) if took else 0, *cells])
    head = [f"seconds until all three others have it, {report.where(place)}", "of each", "edit p50", "p95",
            "new file p50", "p95", "rename p50", "p95", "delete p50", "p95"]
    return report.table(head, rows)


# ---- many files

def n_there(folder):
    """Files that have their names, one folder deep."""
    n = 0
    for entry in os.scandir(folder) if folder.exists() else ():
        if entry.is_dir(follow_symlinks=False):
            n += sum(1 for file in os.scandir(entry.path) if file.name.endswith(".bin"))
    return n


def many(bench, place, n_files, size):
    bench.need_space(place, 4 * n_files * max(size, 4 * KIB))

    def measure(name, make):
        with Running(bench, place, make, 2) as swarm:
            start_all(swarm, 2, 0)
            outside = make_tree(swarm.tool.folder / "outside", n_files, size)
            os.sync()
            cpu, began = swarm.tool.cpu(), time.monotonic()
            outside.rename(swarm.files(0) / "many")  # all of them appear at once
            result = swarm.files(1) / "many"
            wait_until(f"{n_files} files", lambda: swarm.alive() or n_there(result) == n_files, 300, 0.02)
            took = time.monotonic() - began
            swarm.await_rest([0, 1], n_files)
            must_equal(result, swarm.files(0) / "many")
            return took, swarm.tool.cpu() - cpu, [peer.peak_memory() for peer in swarm.peers]
    found = try_each(bench, f"{n_files:,} × {report.size_name(size)}, {report.where(place)}", measure)
    rows = [[name, report.seconds(took[0]), report.number(n_files / took[0], ",.0f"), report.number(took[1], ".1f"),
             *map(report.mib, took[2])] if took else [name, "**failed**", "—", "—", "", ""]
            for name, took in found.items()]
    head = [f"{n_files:,} × {report.size_name(size)} in one of two folders, {report.where(place)}",
            "s until all are in the other", "files/s", "CPU s", "peak giver", "peak taker"]
    return report.table(head, rows)


# ---- memory, idling, a large rename

def memory(bench, place, n_files):
    bench.need_space(place, 3 * n_files * 4 * KIB)

    def measure(name, make):
        with Running(bench, place, make, 2) as swarm:
            make_tree(swarm.files(0), n_files, KIB)
            os.sync()
            began = time.monotonic()
            swarm.start(0)
            swarm.await_rest([0], n_files, 900)
            indexed, alone = time.monotonic() - began, swarm.peers[0].peak_memory()
            swarm.start(1)
            swarm.await_rest([1], n_files, 900)
            return indexed, alone, swarm.peers[1].peak_memory(), sum(helper.peak_memory() for helper in swarm.helpers)
    found = try_each(bench, f"{n_files:,} files", measure, but=[AS_IT_COMES])
    return [[name, *(("**failed**", "", "", "") if took is None else
                     (report.seconds(took[0]), *map(report.mib, took[1:])))] for name, took in found.items()]


def idle(bench, place, n_files):
    seconds = 5 if bench.quick else IDLE_S

    def measure(name, make):
        with Running(bench, place, make, N) as swarm:
            make_tree(swarm.files(0), n_files, KIB)
            start_all(swarm, N, n_files)
            time.sleep(3)  # what is put off until a moment after
            procs = [*swarm.peers, *swarm.helpers]
            before = [proc.cpu() for proc in procs]
            time.sleep(seconds)
            shares = [(proc.cpu() - cpu) / seconds for proc, cpu in zip(procs, before)]
            return shares[:N], sum(shares[N:])
    found = try_each(bench, f"idle with {n_files:,} files", measure, but=[AS_IT_COMES])
    percent = lambda share: f"{100 * share:.2f} %"
    return {name: ("**failed**", "") if took is None else
            (percent(sum(took[0]) / N) + f" ({percent(max(took[0]))})", percent(took[1]) if took[1] else "")
            for name, took in found.items()}


def network_bytes(bench):
    """Over loopback, which is ours alone in a namespace of our own."""
    if not bench.isolated:
        return math.nan
    with open("/proc/self/net/dev") as table:
        line = next(line for line in table if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[0])


def rename(bench, place, size):
    bench.need_space(place, N * size)

    def measure(name, make):
        with Running(bench, place, make, N) as swarm:
            make_file(swarm.files(0) / "large.bin", size)
            start_all(swarm, N, 1)
            before = network_bytes(bench)
            took = seen_after(swarm, 0, lambda: (swarm.files(0) / "large.bin").rename(swarm.files(0) / "renamed.bin"),
                              lambda f: (f / "renamed.bin").exists() and not (f / "large.bin").exists(), 120)
            moved = network_bytes(bench) - before
            must_equal(swarm.files(N - 1) / "renamed.bin", swarm.files(0) / "renamed.bin")
            return took, moved
    found = try_each(bench, f"rename of {report.size_name(size)}", measure, but=[AS_IT_COMES])
    return {name: ("**failed**", "") if took is None else (report.seconds(took[0]), f"{took[1] / KIB:.0f} KiB")
            for name, took in found.items()}


def run(bench):
    quick = bench.quick
    n_edit, n_idle, n_memory = (100, 500, 2_000) if quick else (1_000, 10_000, 100_000)
    size = (64 << 20) if quick else GIB
    places = list(bench.places().values())
    disk = places[-1]
    tables = [latency(bench, disk, n_edit)]
    tables += [many(bench, place, 500 if quick else 5_000, 10 * KIB) for place in places]
    weights = memory(bench, disk, n_memory)
    idling, renames = idle(bench, disk, n_idle), rename(bench, disk, size)
    rows = [[*row, *idling[row[0]], *renames[row[0]]] for row in weights]
    head = [f"{report.where(disk)}", f"s until {n_memory:,} × 1 KiB are indexed", "peak memory", "peak of one that takes them",
            "peak tracker", f"idle CPU of a core with {n_idle:,} files: mean (highest) peer", "tracker",
            f"rename of {report.size_name(size)}: s", "over the network"]
    tables.append(report.table(head, rows))
    return [*tables, f"""One round. All peers share the cores of one machine, which makes every figure worse than four machines
would, for every tool; nothing but loopback lies between them. *Seconds until all three others have it* are from before the
change is made until the last of the other three folders has it, by looking there every millisecond, at random moments, with {n_edit:,} other files in the
folder; each change is made by another peer than the one before. *As it comes* has so few samples because each takes ten seconds or more.
Many files appear at once, by renaming a folder into the share folder; they count as there when they have their names, and are compared afterwards.
potluck syncs each file to the disk before it gets its name, and Syncthing does as well. *Over the network* is what loopback carried from the
rename until the last one had it, announces and keepalives of all peers included. Peak memory is of one process; Syncthing has no tracker."""]
