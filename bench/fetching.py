"""Owners with the same folder, over loopback: potluck peers and nginx, and the ways to fetch from them.

A Table is laid once; every fetch goes into a fresh folder, is compared with the original and thrown
away. potluck fetches as a peer that has been running for a while, told by the one-shot verb.
"""
import time

from payload import link, must_equal
from processes import Tool
from servers import Potluck, start_nginx

LIMIT = 300
IDLE = 0.3  # so that a peer counts as running and not as starting


class Table:
    def __init__(self, bench, place, n_owners, make):
        """make(folder) makes what is shared: entries of the share folder."""
        self.bench, self.place, self.n_owners = bench, place, n_owners
        self.base = bench.fresh(place)
        self.potluck_tool, self.web_tool = Tool(self.base / "potluck"), Tool(self.base / "web")
        self.make, self.owners, self.web = make, [], []

    def __enter__(self):
        self.origin = self.base / "origin"
        self.origin.mkdir()
        self.make(self.origin)
        n_files = sum(entry.is_file() for entry in self.origin.rglob("*"))
        try:
            self.potluck = Potluck(self.potluck_tool, self.bench.bin)
            # All links before the first owner looks: one more link changes a file's ctime, and an owner
            # that sees that has to believe it a changed file and hash it again.
            for index in range(self.n_owners):
                self.share(index).mkdir()
                for entry in self.origin.iterdir():
                    link(entry, self.share(index) / entry.name)
            for index in range(self.n_owners):
                self.owners.append(self.potluck.owner(f"owner{index}", self.share(index)))
                if self.bench.has("nginx"):
                    self.web.append(start_nginx(self.web_tool, f"nginx{index}", self.origin))
            self.potluck.await_files(self.n_owners, n_files)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.potluck_tool.__exit__()
        self.web_tool.__exit__()
        self.bench.clear_away(self.base)

    def share(self, index):
        return self.base / f"owner{index}"

    def owner_address(self):
        return self.owners[0][1]

    def peer(self):
        """A peer with nothing: its process and its share folder."""
        folder = self.bench.fresh(self.place)
        process, _ = self.potluck.owner("eater", folder)
        time.sleep(IDLE)
        return process, folder

    def download(self, peer, folder, name, *how):
        """By potluck: a file, or a folder with a slash at its end."""
        result = folder / name
        sample = self.potluck_tool.timed("download", self.potluck.verb(folder, "download", name, *how), LIMIT, result)
        must_equal(result, self.origin / name)
        sample.peak = peer.peak_memory()
        sample.peak_owners = max(owner.peak_memory() for owner, _ in self.owners)
        return sample

    def by_potluck(self, name, *how):
        peer, folder = self.peer()
        try:
            return self.download(peer, folder, name, *how)
        finally:
            peer.stop()
            self.bench.clear_away(folder)

    def by_command(self, tool, name, argv):
        """argv(folder, result) is a command that makes the result, which is to equal what is shared."""
        folder = self.bench.fresh(self.place)
        try:
            sample = tool.timed("fetch", argv(folder, folder / name), LIMIT, folder / name)
            must_equal(folder / name, self.origin / name)
            return sample
        finally:
            self.bench.clear_away(folder)

    def curl_from_potluck(self, name):
        return self.by_command(self.potluck_tool, name, lambda _, result: curl(result, self.owner_address(), f"f/{name}"))

    def curl_from_nginx(self, name):
        return self.by_command(self.web_tool, name, lambda _, result: curl(result, self.web[0], name))

    def aria2_from_nginx(self, name):
        return self.by_command(self.web_tool, name, lambda folder, _: aria2_one(self.web, name, folder))


def curl(result, address, path):
    return ["curl", "-q", "-sSf", "-o", result, f"http://{address}/{path}"]


def aria2_one(addresses, name, folder, connections=16):
    urls = [f"http://{address}/{name}" for address in addresses]
    return ["aria2c", "--no-conf", "-q", "-x4", f"-s{connections}", "-k1M", "--file-allocation=falloc", f"--dir={folder}", *urls]
