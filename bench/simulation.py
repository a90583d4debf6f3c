"""Swarms of up to 10,000 leechers, simulated: the real schedulers, no sockets, virtual time.

What is modelled and what is not stands at the head of peer/tests/simulation/main.rs. Nothing here depends
on the machine but the seconds and the memory that the simulation itself takes.
"""
import json
import os
import subprocess
import tempfile

import report
from payload import MIB, Failed

TITLE = "Simulated: swarms of up to 10,000 leechers"
NEEDS = ["simulation"]
SEED = 1


def one(bench, n, size, mixed):
    """One run in a process of its own: its figures, and the memory it took."""
    settings = {"LEECHERS": n, "MIB": size // MIB, "SEED": SEED, "MIXED": int(mixed)}
    environment = os.environ | {f"POTLUCK_SIM_{name}": str(value) for name, value in settings.items()}
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [bench.simulation, "--ignored", "--exact", "table::row", "--nocapture"],
            env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode()
    if child.returncode:
        raise Failed(f"the simulation of {n} leechers: {text.strip()[-500:]}")
    line = text[text.index("{"):text.rindex("}") + 1]
    return json.loads(line) | {"peak": usage.ru_maxrss << 10}


def run(bench):
    # The largest swarm gets a smaller file, so that all of it takes minutes.
    sizes = [(10, 64 * MIB), (100, 64 * MIB), (100, 1024 * MIB), (1_000, 64 * MIB), (10_000, 16 * MIB)]
    if bench.quick:
        sizes = [(10, 16 * MIB), (100, 16 * MIB)]
    tables = []
    for what, mixed in (("all links 100 Mbit/s", False), ("mixed links", True)):
        rows = []
        for n, size in sizes:
            it = one(bench, n, size, mixed)
            rows.append([
                f"{n:,}", report.size_name(size), it["chunks"], f"{it['bound']:.2f}", f"{it['last']:.2f}",
                f"{it['median']:.2f}", f"{it['copies']:.2f}", it["copies_max"], report.seconds(it["seconds"]),
                report.mib(it["peak"]),
            ])
            print(f"  {n} leechers, {what}: {it}", flush=True)
        head = [f"leechers, {what}", "file", "chunks", "bound s", "last ÷ bound", "median ÷ bound", "seeder's copies",
                "of one chunk at most", "simulated in s", "memory"]
        tables.append(report.table(head, rows))
    return [*tables, f"""One seeder with 100 Mbit/s, and leechers that start together. The bound is max(F/u_s, F/d, N·F/(u_s + ΣU)). *Mixed*:
uplinks of 20 to 200 Mbit/s, downlinks of 50 to 500, round trips of 1 to 80 ms, drawn from seed {SEED}; the bound counts the
slowest downlink, so the median may be below it. *Seeder's copies* is what the seeder sent, in files. Schedulers,
neighbours, handouts, have streams, slots and refusals are as in the program; connections, processors and disks
cost nothing here, so it shows what the decisions cost and not what a machine can do."""]
