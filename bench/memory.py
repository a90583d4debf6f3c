"""How much memory one large file takes: 10 GiB from eight owners over loopback, on disk.

The peak of the downloader and of the largest owner. Time is told and not compared: the disk decides it.
"""
import report
from fetching import Table
from payload import GIB, MIB, make_file
from report import median, seconds, size_name

TITLE = "Memory: one large file from eight owners"
NEEDS = []
NAME = "payload.bin"
N_OWNERS = 8


def run(bench):
    size = 256 * MIB if bench.quick else 10 * GIB
    place = list(bench.places().values())[-1]
    bench.need_space(place, 2 * size)
    with Table(bench, place, N_OWNERS, lambda folder: make_file(folder / NAME, size)) as table:
        took = bench.interleave(size_name(size), {"potluck": lambda: table.by_potluck(NAME)}, 1)["potluck"]
    rows = [[
        f"potluck, {N_OWNERS} owners", seconds(median(s.seconds for s in took)), report.number(median(s.cpu for s in took), ".1f"),
        report.mib(max(s.peak for s in took)), report.mib(max(s.peak_owners for s in took)),
    ]]
    head = [f"{size_name(size)}, {report.where(place)}", "s", "CPU s", "peak downloader", "peak owner"]
    return [report.table(head, rows), """One round. The aim is at most 128 MiB. Owners have hashed the file before, so
their peak includes that."""]
