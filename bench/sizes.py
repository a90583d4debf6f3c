"""One file of each size from one owner: what a download costs beside its bytes.

A running potluck peer told by the verb `download`, against curl from the same owner and curl from
nginx. The peer fetches all sizes, the smallest first, so its first connection is part of the smallest.
"""
import report
from fetching import Table
from payload import KIB, MIB, make_file, remove
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
        sample = self.table.download(self.process, self.folder, name)
        if is_last:
            self.process.stop()
            remove(self.folder)
            self.process = None
        return sample


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

    rows = []
    for size in sizes:
        ours = [sample.seconds for sample in took[size, "potluck"]]
        row = [size_name(size), seconds(median(ours))]
        for other in ("curl from it", "curl from nginx"):
            theirs = [sample.seconds for sample in took.get((size, other), [])]
            row += [seconds(median(theirs)), f"{1000 * median(a - b for a, b in zip(ours, theirs)):+.1f}",
                    report.ratio(ours, theirs)] if theirs else ["", "", ""]
        rows.append(row)
    head = [report.where(place), "potluck s", "curl from the same owner s", "more ms", "ratio",
            "curl from nginx s", "more ms", "ratio"]
    return report.table(head, rows)


def run(bench):
    sizes = [KIB, 64 * KIB, MIB, 16 * MIB] + ([] if bench.quick else [256 * MIB])
    tables = [one_place(bench, place, sizes) for place in bench.places().values()]
    return [*tables, """Medians; *more* is how much longer potluck took than that curl in the same round, in
milliseconds. For small files it shows the price of starting the verb, asking the tracker, verifying and (on disk)
syncing, which curl does not do; for large ones the price of a byte. One owner cannot show what several give."""]
