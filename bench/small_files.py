"""Many small files in one job: files a second, and whether memory grows with their number.

potluck downloads the folder from one owner and from four; curl (-Z, one process, parallel) and
aria2c (-i, 16 at a time) fetch the same list from one nginx.
"""
import report
from fetching import Table
from payload import KIB, make_tree
from report import median, seconds, size_name

TITLE = "Many small files"
NEEDS = []
FOLDER = "many"


def curl_list(table, folder, result):
    """curl reads URLs and outputs from a file."""
    path = folder / "list"
    path.write_text("".join(f'url = "http://{table.web[0]}/{FOLDER}/{name}"\noutput = "{result / name}"\n'
                            for name in table.names))
    return ["curl", "-q", "-sSf", "-Z", "--parallel-max", "32", "--create-dirs", "-K", path]


def aria2_list(table, folder, _):
    path = folder / "list"
    path.write_text("".join(f"http://{table.web[0]}/{FOLDER}/{name}\n out={FOLDER}/{name}\n" for name in table.names))
    return ["aria2c", "--no-conf", "-q", "-j16", "-x1", "--file-allocation=none", f"--dir={folder}", "-i", path]


def one_table(bench, place, n_files, size):
    bench.need_space(place, 3 * n_files * max(size, 4 * KIB))
    with Table(bench, place, 4, lambda folder: make_tree(folder / FOLDER, n_files, size)) as table:
        table.names = [str(path.relative_to(table.origin / FOLDER))
                       for path in sorted((table.origin / FOLDER).rglob("*.bin"))]
        ways = {
            "potluck, 4 owners": lambda: table.by_potluck(f"{FOLDER}/"),
            "potluck, 1 owner": lambda: table.by_potluck(f"{FOLDER}/", "--from", "owner0"),
        }
        for program, argv in (("curl -Z", curl_list), ("aria2c -i", aria2_list)):
            if bench.has("nginx") and bench.has(program.split()[0]):
                ways[f"{program}, 1 nginx"] = lambda argv=argv: table.by_command(
                    table.web_tool, FOLDER, lambda folder, result: argv(table, folder, result))
        what = f"{n_files:,} × {size_name(size)}, {report.where(place)}"
        took = bench.interleave(what, ways)

    ours = [sample.seconds for sample in took["potluck, 4 owners"]]
    rows = []
    for way, samples in took.items():
        took_s = [sample.seconds for sample in samples]
        rows.append([
            way, seconds(median(took_s)), report.number(n_files / median(took_s), ",.0f"),
            seconds(median(s.seconds + s.to_disk for s in samples)), report.ratio(ours, took_s),
            report.number(median(s.cpu for s in samples)),
            report.mib(max(s.peak for s in samples)),
            report.mib(max(s.peak_owners for s in samples)),
        ])
    head = [what, "s", "files/s", "s until on disk", "potluck (4) ÷ this", "CPU s", "peak downloader", "peak owner"]
    return report.table(head, rows)


def run(bench):
    kinds = [(500, 10 * KIB), (1_000, KIB)] if bench.quick else [(5_000, 10 * KIB), (20_000, KIB)]
    first, *others = bench.places().values()
    tables = [one_table(bench, first, *kind) for kind in kinds]
    tables += [one_table(bench, place, *kinds[0]) for place in others]  # on disk the larger ones take many minutes
    return [*tables, f"""{report.rounds(bench.rounds)}, memory the highest of any. potluck finds out what the folder
holds, verifies each file and syncs it before it gets its name; curl and aria2c are handed the list, verify nothing
and sync nothing. With everything on one machine, four owners can win only what one owner's process cannot keep up
with; *peak* is to be compared between the two counts of files, not with the bytes."""]
