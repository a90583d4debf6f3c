"""What runs on the hosts of a shaped network: one class per tool, all with the same five verbs.

    prepare()      whatever is needed before the first host: torrent, tracker
    put(index)     give the file to an owner's folder; to all of them before the first of them starts
    own(index)     start that owner on its host
    ready()        wait until all owners can serve
    fetch(index)   start to fetch on that host; gives a function that is true once it is done

Nothing of a downloader runs before fetch: its start is part of its time, for every tool.
"""
import shutil
import time
from pathlib import Path

from fetching import aria2_one
from payload import Failed, link
from processes import wait_until
from servers import Potluck, start_nginx

HERE = Path(__file__).resolve().parent


class SwarmTool:
    def __init__(self, bench, tool, network, file, owners):
        self.bench, self.tool, self.network, self.file, self.owners = bench, tool, network, file, owners
        self.downloaders = {}

    def folder(self, index):
        folder = self.tool.folder / f"host{index}"
        folder.mkdir(exist_ok=True)
        return folder

    def result(self, index):
        return self.folder(index) / self.file.name

    def put(self, index):
        link(self.file, self.result(index))

    def ip(self, index):
        return self.network.hosts[index].ip

    def start(self, index, what, argv):
        return self.tool.start(f"{what}{index}", argv, self.network.hosts[index].enter)

    def alive(self, proc):
        if proc.ended():
            raise Failed(f"{proc.argv[0]} ended with {proc.code}: {proc.last_words()}")

    def prepare(self):
        pass

    def ready(self):
        pass


class PotluckSwarm(SwarmTool):
    # The verb attaches to the peer as soon as its control socket is there.
    WHEN_UP = 'until [ -S "$0" ]; do sleep 0.02; done; exec "$@"'

    def prepare(self):
        self.potluck = Potluck(self.tool, self.bench.bin, self.network.hub)

    def up(self, index):
        return self.potluck.up(f"host{index}", self.folder(index), self.network.hosts[index])

    def own(self, index):
        return self.up(index)

    def ready(self):
        self.potluck.await_files(len(self.owners), 1)

    def fetch(self, index):
        self.downloaders[index] = peer = self.up(index)
        socket = self.folder(index) / ".potluck" / "control.sock"
        verb = self.start(index, "download", [
            "sh", "-c", self.WHEN_UP, socket, *self.potluck.verb(self.folder(index), "download", self.file.name)])

        def done():
            self.alive(peer)
            if verb.ended() and verb.code:
                raise Failed(f"download ended with {verb.code}: {verb.last_words()}")
            return verb.code == 0
        return done


class Aria2Http(SwarmTool):
    """From nginx on every owner; one downloader."""

    def own(self, index):
        self.addresses = getattr(self, "addresses", [])
        self.addresses.append(start_nginx(
            self.tool, f"nginx{index}", self.folder(index), self.network.hosts[index]))
        return self.tool.procs[-1]

    def fetch(self, index):
        # 4 connections to each owner, as with 16 pieces and 4 owners, whatever their number.
        argv = aria2_one(self.addresses, self.file.name, self.folder(index), 4 * len(self.addresses))
        self.downloaders[index] = proc = self.start(index, "aria2c", argv)
        return lambda: proc.ended() and (proc.wait(1) or True)


class TorrentSwarm(SwarmTool):
    TRACKER_PORT = 6969

    def prepare(self):
        self.torrent = self.tool.folder / "payload.torrent"
        self.run_peer("make", self.file, self.torrent, f"http://{self.network.hub.ip}:{self.TRACKER_PORT}/announce")

    def run_peer(self, *words):
        self.tool.start("make", [self.bench.torrent_python, HERE / "torrent_peer.py", *words]).wait(120)


class Libtorrent(TorrentSwarm):
    """Every host is told the address of every other; no tracker."""

    def peer(self, what, index):
        others = [host.ip for host in self.network.hosts if host.ip != self.ip(index)]
        return self.start(index, what, [self.bench.torrent_python, HERE / "torrent_peer.py", what, self.torrent,
                                        self.folder(index), self.ip(index), *others])

    def own(self, index):
        proc = self.peer("seed", index)
        wait_until("libtorrent seed", lambda: "DONE" in proc.last_words(), 30)
        return proc

    def fetch(self, index):
        self.downloaders[index] = proc = self.peer("fetch", index)
        return lambda: self.alive(proc) or "DONE" in proc.last_words()


class Aria2Torrent(TorrentSwarm):
    """aria2c as BitTorrent client; the hosts find each other through opentracker."""

    def prepare(self):
        super().prepare()
        jail = self.tool.folder / "tracker"  # it leaves root and locks itself in here
        jail.mkdir()
        shutil.copy(f"{self.torrent}.hash", jail / "white")  # Debian's serves listed torrents only
        ip, port = self.network.hub.ip, self.TRACKER_PORT
        self.tool.start("opentracker", ["opentracker", "-i", ip, "-p", port, "-P", port, "-d", jail, "-w", "/white"])
        time.sleep(0.5)

    def peer(self, index):
        hook = self.tool.folder / f"complete{index}.sh"
        hook.write_text(f'#!/bin/sh\n: >"{self.tool.folder}/complete{index}"\n')
        hook.chmod(0o755)
        return self.start(index, "aria2bt", [
            "aria2c", "--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
            "--listen-port=6881", "--seed-ratio=0", "--bt-max-peers=0", "--bt-tracker-interval=1",
            "--bt-request-peer-speed-limit=1000M", "--file-allocation=falloc", "--check-integrity=true",
            "--summary-interval=0", f"--on-bt-download-complete={hook}", f"--dir={self.folder(index)}", self.torrent])

    def complete(self, index):
        return (self.tool.folder / f"complete{index}").exists()

    def own(self, index):
        return self.peer(index)

    def ready(self):
        for index in self.owners:
            wait_until("aria2 seed", lambda: self.complete(index), 60)
        time.sleep(2)  # until the tracker knows it

    def fetch(self, index):
        self.downloaders[index] = proc = self.peer(index)
        return lambda: self.alive(proc) or self.complete(index)
