"""Programs that keep folders the same, on loopback: one class per tool, all with the same verbs.

    start(index)    start that peer on its folder, which may have files in it
    together(n)     wait until the first n peers know each other
    at_rest(index, n_files)  whether it knows so many files and has nothing left to do
    await_rest(indices, n_files)
    peers           the processes, in their order; `helpers` those beside them
    files(index)    the folder

Nobody looks for anybody outside this machine: no relays, no discovery but the addresses that are given.
"""
import json
import subprocess
import urllib.request

from payload import Failed
from processes import wait_until
from servers import Potluck, free_port

API_KEY = "bench"
FOLDER_ID = "bench"


class Swarm:
    def __init__(self, bench, tool):
        self.bench, self.tool, self.peers, self.helpers = bench, tool, [], []

    def files(self, index):
        folder = self.tool.folder / f"peer{index}"
        folder.mkdir(exist_ok=True)
        return folder

    def await_rest(self, indices, n_files, seconds=300):
        for index in indices:
            wait_until(f"peer {index} at rest with {n_files} files", lambda: self.at_rest(index, n_files), seconds, 0.2)

    def alive(self):
        for proc in [*self.peers, *self.helpers]:
            if proc.ended():
                raise Failed(f"{proc.argv[0]} ended with {proc.code}: {proc.last_words()}")


class PotluckSync(Swarm):
    """A tracker and peers with `--sync both`, everything else as it comes."""

    def __init__(self, bench, tool, n):
        super().__init__(bench, tool)
        self.potluck = Potluck(tool, bench.bin)
        self.helpers.append(tool.procs[-1])

    def start(self, index):
        argv = self.potluck.verb(self.files(index), "--name", f"peer{index}", "--listen", "127.0.0.1:0",
                                 "up", "--sync", "both")
        self.peers.append(self.tool.start(f"peer{index}", argv))
        Potluck.address(self.peers[-1], f"peer{index}")

    def status(self, index):
        said = subprocess.run([self.bench.bin / "potluck", "--share", self.files(index), "--json", "sync"],
                              capture_output=True, text=True, timeout=60)
        try:
            return json.loads(said.stdout.splitlines()[-1])
        except (ValueError, IndexError):
            return None

    def together(self, n):
        def known():
            status = self.status(0)
            return status and len(status.get("peers", [])) == n
        wait_until(f"{n} peers", known, 30, 0.1)

    def at_rest(self, index, n_files):
        self.alive()
        status = self.status(index)
        return status and status["n_files"] == n_files and status["n_to_do"] == 0


class Syncthing(Swarm):
    """Configured by file; `delay` is fsWatcherDelayS, its default if None."""

    def __init__(self, bench, tool, n, delay=None):
        super().__init__(bench, tool)
        self.ports = [(free_port(), free_port()) for _ in range(n)]
        self.ids = [self.make_identity(index) for index in range(n)]
        for index in range(n):
            self.home(index).joinpath("config.xml").write_text(self.config(index, delay))

    def home(self, index):
        return self.tool.folder / f"home{index}"

    def make_identity(self, index):
        def run(*words):
            done = subprocess.run(["syncthing", *words, f"--home={self.home(index)}"], capture_output=True, text=True)
            if done.returncode:
                raise Failed(f"syncthing {words[0]}: {done.stderr.strip()}")
            return done.stdout
        run("generate")
        return run("--device-id").strip()

    def config(self, index, delay):
        devices = "".join(f'<device id="{device}" compression="metadata"><address>tcp://127.0.0.1:{port}</address></device>'
                          for device, (port, _) in zip(self.ids, self.ports))
        members = "".join(f'<device id="{device}"></device>' for device in self.ids)
        watch = f'fsWatcherDelayS="{delay}"' if delay is not None else ""
        port, api = self.ports[index]
        return f"""<configuration version="35">
<folder id="{FOLDER_ID}" path="{self.files(index)}" type="sendreceive" fsWatcherEnabled="true" {watch}>
{members}<minDiskFree unit="%">0</minDiskFree></folder>
{devices}
<gui enabled="true" tls="false"><address>127.0.0.1:{api}</address><apikey>{API_KEY}</apikey></gui>
<options><listenAddress>tcp://127.0.0.1:{port}</listenAddress><globalAnnounceEnabled>false</globalAnnounceEnabled>
<localAnnounceEnabled>false</localAnnounceEnabled><relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled>
<startBrowser>false</startBrowser><urAccepted>-1</urAccepted><autoUpgradeIntervalH>0</autoUpgradeIntervalH>
<crashReportingEnabled>false</crashReportingEnabled><reconnectionIntervalS>1</reconnectionIntervalS></options>
</configuration>
"""

    def start(self, index):
        # Without the process that restarts it: one process, whose memory is the tool's.
        self.peers.append(self.tool.start(f"peer{index}", [
            "syncthing", "--no-browser", "--no-restart", f"--home={self.home(index)}", "--log-max-old-files=0"],
            env={"STMONITORED": "yes", "STNOUPGRADE": "1", "HOME": str(self.tool.folder)}))

    def ask(self, index, path):
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[index][1]}{path}", headers={"X-API-Key": API_KEY})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError):
            return None

    def together(self, n):
        def known():
            self.alive()
            answers = [self.ask(index, "/rest/system/connections") for index in range(n)]
            return all(answer and sum(peer["connected"] for peer in answer["connections"].values()) == n - 1
                       for answer in answers)
        wait_until(f"{n} peers", known, 60, 0.1)

    def at_rest(self, index, n_files):
        self.alive()
        status = self.ask(index, f"/rest/db/status?folder={FOLDER_ID}")
        return (status and status["state"] == "idle" and status["localFiles"] == status["globalFiles"] == n_files
                and status["needTotalItems"] == 0)
