"""One seeder, many leechers that start together, every link of the same rate: how fast is the last?

Bound (Kumar and Ross): max(F/u_s, F/d, N·F/(u_s + N·u)), reached only if leechers feed each other from
the first chunk on and the seeder hardly sends anything twice.
"""
import report
from network import HEADERS
from payload import MIB, make_file, remove
from race import in_seconds, over, race
from report import median, size_name
from swarm_tools import Aria2Torrent, Libtorrent, PotluckSwarm

TITLE = "Shaped: one seeder, a crowd of leechers"
NEEDS = ["isolation", "ip", "tc"]
RATE = 100


def tools(bench):
    found = {"potluck": PotluckSwarm}
    if bench.torrent_python:
        found["libtorrent, BitTorrent"] = Libtorrent
        if bench.has("aria2c") and bench.has("opentracker"):
            found["aria2, BitTorrent"] = Aria2Torrent
    return found


def one(bench, n, size):
    bits = size * 8 / 1e6
    bound = max(bits / RATE, n * bits / (RATE + n * RATE))
    limit = 1.2 * n * bits / RATE + 20  # enough even if the seeder has to serve everybody by itself
    what = f"{n} leechers, {size_name(size)}"
    bench.need_space(bench.memory, (n + 2) * size)
    folder = bench.fresh(bench.memory)
    file = make_file(folder / "payload.bin", size)
    try:
        took = bench.interleave(what, {
            name: lambda kind=kind: race(bench, kind, file, [RATE], [RATE] * n, limit)
            for name, kind in tools(bench).items()
        }, bench.shaped_rounds)
    finally:
        remove(folder)
    rows = [[
        name, in_seconds([s.seconds for s in samples], limit), over([s.seconds for s in samples], bound),
        in_seconds([s.first for s in samples], limit), f"{min(len(s.times) for s in samples)} of {n}",
        report.number(median(s.copies for s in samples)), report.number(median(s.cpu for s in samples), ".1f"),
        report.mib(max(s.peak for s in samples)), report.mib(max(s.peak_owners for s in samples)),
    ] for name, samples in took.items()]
    head = [f"{what}, {RATE} Mbit/s", "last s", f"÷ bound ({bound:.2f} s)", "first s", "done", "seeder sent × file",
            "CPU s", "peak leecher", "peak seeder"]
    return report.table(head, rows)


def run(bench):
    kinds = [(4, 16 * MIB)] if bench.quick else [(8, 256 * MIB), (16, 128 * MIB)]
    tables = [one(bench, *kind) for kind in kinds]
    return [*tables, f"""{report.rounds(bench.shaped_rounds)}; *done* is the worst round's. Times include starting the leechers,
whose processes share the cores of one machine; {HEADERS:.3f} is the least possible ratio, since the bound counts payload
and the links also carry headers. *Seeder sent* is what left its link, headers included, in files. It shows how
well leechers feed each other when all start at once, which is the hardest case and not the commonest one; and
links here lose nothing and are a fraction of a millisecond long."""]
