"""How long sharing a file takes, against b3sum on the same file in the page cache.

Shared means: listed by the tracker. That includes what has nothing to do with the size (starting,
the settle time after which a new file is believed complete, announcing), so the same is measured with
a file of one byte and taken off. What is left is hashing and making the chunk map.
"""
import report
from payload import Failed, GIB, MIB, link, make_file, remove, warm
from processes import Tool, wait_until
from report import median, seconds, size_name
from servers import Potluck

TITLE = "Hashing: sharing a file against `b3sum`"
NEEDS = ["b3sum"]


def share(bench, file, want):
    folder = bench.fresh(bench.disk)
    (folder / "share").mkdir()
    with Tool(folder / "logs") as tool:
        potluck = Potluck(tool, bench.bin)
        link(file, folder / "share" / file.name)
        with tool.clock() as sample:
            peer = potluck.up("owner", folder / "share")
            wait_until("shared", lambda: potluck.content_id(file.name), 600, every=0.02)  # asking takes processor time from hashing
        sample.peak = peer.peak_memory()
        if potluck.content_id(file.name) != want:
            raise Failed(f"WRONG ID: {potluck.content_id(file.name)}, b3sum says {want}")
    remove(folder)
    return sample


def b3sum(bench, file, ids):
    folder = bench.fresh(bench.disk)
    with Tool(folder) as tool:
        sample = tool.timed("b3sum", ["b3sum", "--no-names", file], 600)
        ids[file] = tool.procs[0].last_words()
    remove(folder)
    return sample


def run(bench):
    sizes = [64 * MIB, 256 * MIB] if bench.quick else [GIB, 4 * GIB]
    folder, ids, rows = bench.fresh(bench.disk), {}, []
    bench.need_space(bench.disk, max(sizes))
    bench.need_space(bench.memory, max(sizes))  # or it would not stay in the page cache
    one = make_file(folder / "one.bin", 1)
    for size in sizes:
        file = make_file(folder / f"{size}.bin", size)
        b3sum(bench, one, ids)
        b3sum(bench, file, ids)
        warm(file)
        took = bench.interleave(size_name(size), {
            "b3sum": lambda: b3sum(bench, file, ids),
            "potluck": lambda: share(bench, file, ids[file]),
            "potluck, 1 byte": lambda: share(bench, one, ids[one]),
        })
        remove(file)
        theirs = [sample.seconds for sample in took["b3sum"]]
        whole = [sample.seconds for sample in took["potluck"]]
        fixed = median(sample.seconds for sample in took["potluck, 1 byte"])
        part = [value - fixed for value in whole]
        rows.append([
            size_name(size), seconds(median(theirs)), seconds(median(whole)), seconds(fixed), seconds(median(part)),
            report.number(size / median(part) / 1e9), report.ratio(theirs, part), report.ratio(theirs, whole),
            *[report.number(median(s.cpu for s in took[tool])) for tool in ("b3sum", "potluck")],
            report.mib(max(sample.peak for sample in took["potluck"])),
        ])
    remove(folder)
    head = ["file", "`b3sum` s", "shared s", "of it fixed s", "hashing s", "GB/s", "speed ÷ `b3sum`",
            "all ÷ `b3sum`", "`b3sum` CPU s", "potluck CPU s", "peak memory"]
    return [report.table(head, rows), f"""{report.rounds(bench.rounds)}, file in the page cache of {report.where(bench.disk)}. *Shared* is from starting
`potluck up` until the tracker lists the file; *fixed* is the same for a file of one byte: start, 100 ms settle
time, announcing; *hashing* is the difference, and the aim is at least 0.8 of `b3sum`'s speed. It shows how fast
bytes in memory become an id and a chunk map; a disk that reads more slowly than this decides alone, for both."""]
