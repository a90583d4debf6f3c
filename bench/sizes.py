"""One file of each size from one owner: what a download costs beside its bytes.

A running potluck peer told by the verb `download`, against curl from the same owner and curl from
nginx. The peer fetches all sizes, the smallest first, so its first connection is part of the smallest.
"""
import report
from fetching import Table
from payload import KIB, MIB, file_system, make_file, remove
from report import median, seconds, size_name

TITLE = "File sizes: one file from one owner"
NEEDS = ["curl"]


class Sizes:
    """A peer per round, which fetches every size once."""

    def __init__(self, table):
        self.table, self.process = table, None

    def by_potluck(self, name, is_last):
        if not self.process:
            self.process, self.folder = self.table.peer()
        try:
            return self.table.download(self.process, self.folder, name)
        finally:
            if is_last:
                self.process.stop()
                remove(self.folder)
                self.process = None


def one_place(bench, place, sizes):
    bench.need_space(place, 3 * sum(sizes))

    def make(folder):
        for size in sizes:
            make_file(folder / f"{size}.bin", size)
    with Table(bench, place, 1, make) as table:
        potluck, tools = Sizes(table), {}
        for size in sizes:
            name, is_last = f"{size}.bin", size == sizes[-1]
            tools[size, "potluck"] = lambda name=name, is_last=is_last: potluck.by_potluck(name, is_last)
            tools[size, "curl from it"] = lambda name=name: table.curl_from_potluck(name)
            if bench.has("nginx"):
                tools[size, "curl from nginx"] = lambda name=name: table.curl_from_nginx(name)
        took = bench.interleave(report.where(place), tools, 2 if bench.quick else 2 * bench.rounds)

    on_disk = file_system(place) != "tmpfs"
    rows = []
    for size in sizes:
        ours = took[size, "potluck"]
        row = [size_name(size), seconds(median(s.seconds for s in ours))]
        for other in ("curl from it", "curl from nginx"):
            theirs = took.get((size, other))
            row += compared(ours, theirs, on_disk) if theirs else [""] * (4 if on_disk else 3)
        rows.append(row)
    columns = ["more ms", "ratio", *(["ratio until on disk"] if on_disk else [])]
    head = [report.where(place), "potluck s", "curl from the same owner s", *columns, "curl from nginx s", *columns]
    return report.table(head, rows)


def compared(ours, theirs, on_disk):
    more = median(a.seconds - b.seconds for a, b in zip(ours, theirs))
    return [
        seconds(median(s.seconds for s in theirs)), report.number(1000 * more, "+.1f"),
        report.ratio([s.seconds for s in ours], [s.seconds for s in theirs]),
        *([report.ratio([s.seconds + s.to_disk for s in ours], [s.seconds + s.to_disk for s in theirs])]
          if on_disk else []),
    ]


def run(bench):
    sizes = [KIB, 64 * KIB, MIB, 16 * MIB] + ([] if bench.quick else [256 * MIB])
    tables = [one_place(bench, place, sizes) for place in bench.places().values()]
    return [*tables, """Medians; *more* is how much longer potluck took than that curl in the same round, in
milliseconds; *until on disk* adds the sync that curl leaves out. For small files it shows the price of starting the verb, asking the tracker, verifying and (on disk)
syncing, which curl does not do; for large ones the price of a byte. One owner cannot show what several give."""]
