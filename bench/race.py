"""One race on a shaped network: owners are ready, downloaders start together, the last one counts.

Used by multi (many owners, one downloader) and crowd (one owner, many downloaders).
"""
import time

import report
from network import Network
from payload import must_equal, remove
from processes import Tool

TICK = 0.02


def race(bench, swarm_tool, file, owner_rates, downloader_rates, limit):
    """Its sample, with what the first downloader took and how often the first owner sent the file."""
    place = bench.memory
    folder = bench.fresh(place)
    owners = list(range(len(owner_rates)))
    downloaders = [len(owners) + index for index in range(len(downloader_rates))]
    try:
        with Network([*owner_rates, *downloader_rates]) as network, Tool(folder / "run") as tool:
            swarm = swarm_tool(bench, tool, network, file, owners)
            swarm.prepare()
            for index in owners:
                swarm.put(index)
            owning = [swarm.own(index) for index in owners]
            swarm.ready()
            sent = network.sent_by(0)
            with tool.clock() as sample:
                sample.times = run_all(swarm, downloaders, limit)
            sample.copies = (network.sent_by(0) - sent) / file.stat().st_size
            sample.peak = max(proc.peak_memory() for proc in swarm.downloaders.values())
            sample.peak_owners = max(proc.peak_memory() for proc in owning)
            for index in sample.times:
                must_equal(swarm.result(index), file)
    finally:
        remove(folder)
    if len(sample.times) == len(downloaders):
        sample.seconds, sample.first = max(sample.times.values()), min(sample.times.values())
    else:
        sample.seconds = sample.first = float("inf")
    return sample


def run_all(swarm, downloaders, limit):
    """When each was done, of those that were within the limit."""
    began, times = time.monotonic(), {}
    waiting = {index: swarm.fetch(index) for index in downloaders}
    while waiting and time.monotonic() - began < limit:
        for index in [index for index, done in waiting.items() if done()]:
            times[index] = time.monotonic() - began
            del waiting[index]
        time.sleep(TICK)
    return times


def in_seconds(values, limit):
    middle = report.median(values)
    return f"not in {limit:.0f}" if middle == float("inf") else report.seconds(middle)


def over(values, bound):
    return report.number(report.median(values) / bound)
