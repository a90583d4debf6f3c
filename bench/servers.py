"""What the benchmarks fetch from: a tracker with potluck peers, and nginx.

Everything listens on the address of the Host it is started on. LOOPBACK is this machine itself;
network.py makes others.
"""
import http.client
import json
import os
import re
import socket
from dataclasses import dataclass

from payload import Failed
from processes import wait_until


@dataclass(frozen=True)
class Host:
    """A place to run a process: its address, and the words before a command that put it there."""
    ip: str
    enter: tuple = ()


LOOPBACK = Host("127.0.0.1")


def get(address, path):
    """The JSON of a 200 answer, else None."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return json.loads(answer.read()) if answer.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Potluck:
    """A tracker, and peers by name."""

    def __init__(self, tool, bin, host=LOOPBACK):
        self.tool, self.bin = tool, bin
        self.tracker = self.address(tool.start("tracker", [
            bin / "potluck-tracker", "--listen", f"{host.ip}:0", "--memory"], host.enter), "tracker")

    @staticmethod
    def address(proc, what):
        """From its ready line."""
        said = lambda: re.search(r"ready on http://(\S+)", proc.last_words()) or proc.ended()
        wait_until(f"{what}: ready line", said, 30, every=0.002)
        if proc.ended():
            raise Failed(f"{what} ended: {proc.last_words()}")
        return said().group(1)

    def verb(self, share, *verb):
        return [self.bin / "potluck", "--tracker", f"http://{self.tracker}", "--share", share, *verb]

    def up(self, name, share, host=LOOPBACK):
        argv = self.verb(share, "--name", name, "--listen", f"{host.ip}:0", "up")
        return self.tool.start(name, argv, host.enter)

    def owner(self, name, share, host=LOOPBACK):
        """Its process and address."""
        proc = self.up(name, share, host)
        return proc, self.address(proc, name)

    def await_files(self, n_owners, n_files):
        def listed():
            peers = get(self.tracker, "/v1/peers")
            return peers and sum(peer["n_files"] >= n_files for peer in peers["peers"]) >= n_owners
        wait_until(f"{n_owners} owners of {n_files} files", listed, 300)

    def content_id(self, path):
        """What the tracker lists under that name; None before."""
        answer = get(self.tracker, f"/v1/files/{path}")
        return answer["contents"][0]["content_id"] if answer and answer["contents"] else None


def start_nginx(tool, name, folder, host=LOOPBACK):
    """nginx as it comes: one worker, sendfile. Its address."""
    address = f"{host.ip}:{free_port()}"
    config, state = tool.folder / f"{name}.conf", tool.folder / f"{name}-state"
    state.mkdir()
    temporary = " ".join(f"{kind}_temp_path {state}/{kind};" for kind in
                         ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root; " if os.getuid() == 0 else ""  # so that its worker may read our folders
    config.write_text(f"{user}daemon off; worker_processes 1; pid {state}/pid; error_log stderr;\n"
                      f"events {{ worker_connections 512; }}\n"
                      f"http {{ access_log off; sendfile on; tcp_nopush on; {temporary}\n"
                      f"  server {{ listen {address}; root {folder}; }} }}\n")
    tool.start(name, ["nginx", "-e", "stderr", "-p", state, "-c", config], host.enter)
    ip, port = address.split(":")

    def answers():
        try:
            socket.create_connection((ip, int(port)), 1).close()
            return True
        except OSError:
            return False
    wait_until(f"{name}: nginx", answers, 10)
    return address
