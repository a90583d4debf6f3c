"""Limits of rates: what leaves an owner's link, or reaches a downloader's, beside what --limit-up and --limit-down say.

Over loopback and between hosts with shaped links, over every ten seconds that lie within the transfer, and not on
average: the aim is 5 %. Bytes are counted by the network device, which sees packets of up to 64 KiB with one header each.
"""
import time

import report
from fetching import LIMIT
from network import Network
from payload import MIB, link, make_file, remove
from processes import Tool
from servers import LOOPBACK, Potluck

TITLE = "Limits of rates"
NEEDS = ["isolation", "ip", "tc"]
NAME = "payload.bin"
LINK = 200     # Mbit/s of every host
WINDOW = 10.0  # seconds
SETTLING = 1.0  # at the start, and cut off at the end
EVERY = 0.1


def rates_of(samples, window):
    """Bytes a second over every window of a list of (time, bytes so far)."""
    found, first = [], 0
    for last in range(len(samples)):
        while samples[last][0] - samples[first][0] >= window:
            found.append((samples[last][1] - samples[first][1]) / (samples[last][0] - samples[first][0]))
            first += 1
    return found


def received(device):
    with open("/proc/self/net/dev") as table:
        line = next(line for line in table if line.strip().startswith(f"{device}:"))
    return int(line.split(":")[1].split()[0])


def transfer(bench, folder, file, direction, rate, hosts, n_sent):
    """Its samples of (time, bytes so far)."""
    ours, theirs, hub = hosts
    with Tool(folder) as tool:
        potluck = Potluck(tool, bench.bin, hub)
        shares = [bench.fresh(bench.memory) for _ in range(2)]
        try:
            link(file, shares[0] / NAME)
            limits = {"up": [], "down": []} | {direction: [f"--limit-{direction}", str(rate)]}
            owner = tool.start("owner", potluck.verb(shares[0], "--name", "owner", "--listen", f"{ours.ip}:0",
                                                     *limits["up"], "up"), ours.enter)
            potluck.await_files(1, 1)
            eater = tool.start("eater", potluck.verb(shares[1], "--name", "eater", "--listen", f"{theirs.ip}:0",
                                                     *limits["down"], "up"), theirs.enter)
            potluck.address(eater, "eater")
            verb = tool.start("download", potluck.verb(shares[1], "download", NAME), theirs.enter)
            samples, began = [], time.monotonic()
            while not verb.ended() and time.monotonic() < began + LIMIT:
                samples.append((time.monotonic(), n_sent()))
                time.sleep(EVERY)
            verb.wait(1)
        finally:
            owner.stop()
            for share in shares:
                remove(share)
    return samples


def row(where, direction, rate, samples, window):
    begin, end = samples[0][0] + SETTLING, samples[-1][0] - SETTLING
    rates = rates_of([sample for sample in samples if begin <= sample[0] <= end], window)
    return [f"{where}, --limit-{direction}", f"{rate / MIB:g}", len(rates),
            *(report.number(100 * (value / rate - 1), "+.1f") for value in (min(rates), max(rates)))]


def run(bench):
    rate, window = (8 * MIB, 1.0) if bench.quick else (16 * MIB, WINDOW)
    size = int(rate * (1.5 * window + 3 * SETTLING)) // MIB * MIB
    folder = bench.fresh(bench.memory)
    rows = []
    try:
        file = make_file(folder / NAME, size)
        for direction in ("up", "down"):
            hosts = (LOOPBACK, LOOPBACK, LOOPBACK)
            samples = transfer(bench, folder / f"loopback-{direction}", file, direction, rate, hosts, lambda: received("lo"))
            # What the other way carries is small beside it, and packets on loopback are large.
            rows.append(row("loopback", direction, rate, samples, window))
            with Network([LINK, LINK]) as network:
                hosts = (*network.hosts, network.hub)
                samples = transfer(bench, folder / f"link-{direction}", file, direction, rate, hosts,
                                   lambda: network.sent_by(0))
                rows.append(row(f"link of {LINK} Mbit/s", direction, rate, samples, window))
    finally:
        remove(folder)
    head = ["from one owner to one peer", "limit MiB/s", "windows", "least %", "most %"]
    return [report.table(head, rows), f"""Every window of {window:g} s within one transfer, a new one every {EVERY:g} s; the first and the last
{SETTLING:g} s of it are left out. *Least* and *most*: how far the windows were from the limit. The aim is 5 %."""]
