"""One downloader and several owners whose uplinks are the limit: is every one of them used to the full?

Bound: file ÷ sum of the uplinks. Equal owners, and owners of very different speed.
"""
import report
from network import HEADERS
from payload import MIB, make_file, remove
from race import in_seconds, over, race
from report import median, size_name
from swarm_tools import Aria2Http, Libtorrent, PotluckSwarm

TITLE = "Shaped: several owners, one downloader"
NEEDS = ["isolation", "ip", "tc"]


def tools(bench):
    found = {"potluck": PotluckSwarm}
    if bench.has("aria2c") and bench.has("nginx"):
        found["aria2c, HTTP from nginx"] = Aria2Http
    if bench.torrent_python:
        found["libtorrent, BitTorrent"] = Libtorrent
    return found


def one(bench, file, rates):
    size = file.stat().st_size
    bound = size * 8 / 1e6 / sum(rates)
    limit = 6 * bound + 20
    what = f"{size_name(size)} at {'/'.join(map(str, rates))} Mbit/s"
    took = bench.interleave(what, {
        name: lambda kind=kind: race(bench, kind, file, rates, [None], limit) for name, kind in tools(bench).items()
    }, bench.shaped_rounds)
    rows = [[
        name, in_seconds([s.seconds for s in samples], limit), over([s.seconds for s in samples], bound),
        report.number(median(s.cpu for s in samples)), report.mib(max(s.peak for s in samples)),
        report.mib(max(s.peak_owners for s in samples)),
    ] for name, samples in took.items()]
    head = [what, "s", f"÷ bound ({bound:.2f} s)", "CPU s", "peak downloader", "peak owner"]
    return report.table(head, rows)


def run(bench):
    size = (16 if bench.quick else 256) * MIB
    bench.need_space(bench.memory, 3 * size)
    folder = bench.fresh(bench.memory)
    file = make_file(folder / "payload.bin", size)
    try:
        kinds = [[100] * 4, [10, 50, 200]]
        tables = [one(bench, file, rates) for rates in kinds]
    finally:
        remove(folder)
    return [*tables, f"""{report.rounds(bench.shaped_rounds)}; each owner's link has the rate named, the downloader's has none.
The time includes starting the downloader; {HEADERS:.3f} is the least possible ratio, since the bound counts payload and
the links also carry headers. It shows whether all owners are busy until the end; links here lose nothing and are a
fraction of a millisecond long, which real ones are not."""]
