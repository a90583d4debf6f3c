"""The bytes that are moved: made from a seed, compared after every run, thrown away.

Nothing here is timed. Comparing is byte by byte with what was shared, which no wrong result survives.
"""
import os
import random
import shutil
import subprocess
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Failed(Exception):
    """A run that did not do what it should; ends the benchmark."""


def make_file(path, size, seed=1):
    """Random bytes: no block is like another, nothing can be compressed."""
    source = random.Random(f"{seed} {size}")
    with open(path, "wb") as out:
        for offset in range(0, size, MIB):
            out.write(source.randbytes(min(MIB, size - offset)))
    return path


def make_tree(folder, n_files, size, per_folder=500):
    for index in range(n_files):
        place = folder / f"{index // per_folder:03}"
        if index % per_folder == 0:
            place.mkdir(parents=True)
        make_file(place / f"{index:06}.bin", size, index)
    return folder


def link(source, target):
    """The same bytes in another folder, without a second copy of them."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        os.link(source, target)
    return target


def warm(path):
    """Into the page cache."""
    with open(path, "rb", buffering=0) as file:
        while file.read(4 * MIB):
            pass


def must_equal(got, want):
    command = ["diff", "-rq", got, want] if want.is_dir() else ["cmp", got, want]
    compared = subprocess.run(command, capture_output=True, text=True)
    if compared.returncode:
        raise Failed(f"WRONG BYTES: {(compared.stdout + compared.stderr).strip()[:500]}")


def flush(path):
    """Until bytes and names of a result are on the disk: what a tool that does not sync leaves to the kernel."""
    paths = sorted(path.rglob("*")) if path.is_dir() else []
    for each in [*paths, path, path.parent]:
        descriptor = os.open(each, os.O_RDONLY)
        (os.fsync if each.is_dir() else os.fdatasync)(descriptor)
        os.close(descriptor)


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def file_system(folder):
    """Its type, such as tmpfs or ext4."""
    best = ("", "unknown")
    with open("/proc/self/mounts") as mounts:
        for line in mounts:
            _, place, kind = line.split()[:3]
            place = place.encode().decode("unicode_escape")
            if Path(place) in [folder, *folder.parents] and len(place) >= len(best[0]):
                best = (place, kind)
    return best[1]
