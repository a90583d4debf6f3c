"""A network of hosts with shaped links, in namespaces that end with us.

The bench itself runs in a network namespace of its own (scripts/bench.sh sees to that); there a
bridge joins one namespace per host. A host's uplink and downlink are tbf queues of the same rate on
the two ends of its cable. Namespaces have no names: each lives as long as a process that sleeps in
it, so nothing is left behind even after kill -9.
"""
import os
import subprocess

from payload import Failed
from processes import wait_until
from servers import Host

SUBNET = "10.213.77"
BRIDGE = "plb-bridge"
# The least ratio to a bound that counts payload only: Ethernet, IP and TCP headers (with time stamps)
# beside 1448 bytes of it in each frame of 1514.
HEADERS = 1514 / 1448


def sh(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{command}: {done.stderr.strip()}")


def devices():
    with open("/proc/self/net/dev") as table:
        return table.read()


class Network:
    def __init__(self, rates):
        """One host per rate in Mbit/s; None is a host that is not shaped."""
        self.rates, self.holders, self.hosts = rates, [], []
        self.hub = Host(f"{SUBNET}.254")  # where we are ourselves: for the tracker

    def __enter__(self):
        try:
            sh(f"ip link add {BRIDGE} type bridge && ip addr add {self.hub.ip}/24 dev {BRIDGE} && "
               f"ip link set {BRIDGE} up")
            for index, rate in enumerate(self.rates):
                self.hosts.append(self.add_host(index, rate))
        except BaseException:
            self.__exit__()
            raise
        return self

    def add_host(self, index, rate):
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], start_new_session=True)
        self.holders.append(holder)
        ours = os.readlink("/proc/self/ns/net")
        wait_until("a new namespace", lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != ours, 5)
        host = Host(f"{SUBNET}.{index + 1}", ("nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"))
        inside, cable = " ".join(host.enter), f"plb{index}"
        sh(f"ip link add {cable} type veth peer name eth0 netns {holder.pid} && "
           f"ip link set {cable} master {BRIDGE} up && {inside} ip link set lo up && "
           f"{inside} ip addr add {host.ip}/24 dev eth0 && {inside} ip link set eth0 up")
        if rate:
            shape = f"root tbf rate {rate}mbit burst 256kb latency 60ms"
            sh(f"tc qdisc add dev {cable} {shape} && {inside} tc qdisc add dev eth0 {shape}")
        return host

    def sent_by(self, index):
        """Bytes that left that host so far, headers included."""
        line = next(line for line in devices().splitlines() if line.strip().startswith(f"plb{index}:"))
        return int(line.split(":")[1].split()[0])  # what our end of its cable received

    def __exit__(self, *_):
        for holder in self.holders:
            holder.kill()
            holder.wait()
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)
        # The kernel takes cables down a moment after their namespace; the next network reuses the names.
        wait_until("cables gone", lambda: "plb" not in devices(), 10)
