"""One large file from four owners over loopback, nothing shaped: who is busy, and for how long.

potluck (from four owners and from one), aria2c from four nginx, and curl from one nginx and from one
potluck owner. In memory and on disk; on disk also how much later the last byte has reached it, since
potluck syncs before it gives a file its name and the others leave that to the kernel.
"""
import report
from fetching import Table
from payload import GIB, MIB, file_system, make_file
from report import median, seconds, size_name

TITLE = "Loopback: one file from four owners, unshaped"
NEEDS = []
NAME = "payload.bin"


def ways(table):
    has, found = table.bench.has, {"potluck, 4 owners": lambda: table.by_potluck(NAME)}
    if has("nginx") and has("aria2c"):
        found["aria2c, 4 nginx"] = lambda: table.aria2_from_nginx(NAME)
    if has("nginx") and has("curl"):
        found["curl, 1 nginx"] = lambda: table.curl_from_nginx(NAME)
    if has("curl"):
        found["curl, 1 potluck owner"] = lambda: table.curl_from_potluck(NAME)
    found["potluck, 1 owner"] = lambda: table.by_potluck(NAME, "--from", "owner0")
    return found


def one_place(bench, place, size):
    bench.need_space(place, 2 * size)
    with Table(bench, place, 4, lambda folder: make_file(folder / NAME, size)) as table:
        took = bench.interleave(f"{size_name(size)} {report.where(place)}", ways(table))
    ours = took["potluck, 4 owners"]
    on_disk = file_system(place) != "tmpfs"
    rows = []
    for way, samples in took.items():
        rows.append([
            way, seconds(median(s.seconds for s in samples)),
            *([seconds(median(s.seconds + s.to_disk for s in samples))] if on_disk else []),
            report.ratio([s.seconds for s in ours], [s.seconds for s in samples]),
            report.number(median(s.cpu for s in samples)),
            report.ratio([s.cpu for s in ours], [s.cpu for s in samples]),
            report.mib(max(s.peak for s in samples)),
            report.mib(max(s.peak_owners for s in samples)),
        ])
    head = [f"{size_name(size)}, {report.where(place)}", "s", *(["s until on disk"] if on_disk else []),
            "potluck (4) ÷ this", "CPU s", "CPU: potluck (4) ÷ this", "peak downloader", "peak owner"]
    return report.table(head, rows)


def run(bench):
    size = 64 * MIB if bench.quick else GIB
    tables = [one_place(bench, place, size) for place in bench.places().values()]
    return [*tables, f"""{report.rounds(bench.rounds)}. potluck is a running peer told by the verb `download`; its time
includes starting the verb, its CPU the tracker, all owners and the peer. potluck verifies every chunk and syncs
the file before it gets its name; aria2c and curl verify nothing and sync nothing, *until on disk* adds the sync
that they leave out. All owners and the downloader share the cores of one machine, so this shows the cost of
moving bytes, not what several machines gain; and a difference of less than a tenth is noise."""]
