"""A libtorrent peer: torrent_peer.py make|seed|fetch …, run by the Python that has libtorrent.

    make  FILE TORRENT TRACKER       writes TORRENT and TORRENT.hash
    seed  TORRENT FOLDER IP IP…      serves until killed; the first IP is its own, the others the swarm's
    fetch TORRENT FOLDER IP IP…      says DONE once every piece is there and verified, and goes on serving
"""
import sys
import time
from pathlib import Path

import libtorrent as lt

PORT = 6881
PIECE = 1 << 20
SETTINGS = {
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    # Plain TCP, since a shaped link is what all tools are measured on; and no polite limits.
    "enable_outgoing_utp": False, "enable_incoming_utp": False, "mixed_mode_algorithm": 0,
    "allow_multiple_connections_per_ip": True, "unchoke_slots_limit": -1, "connections_limit": 500,
    "alert_mask": 0,
}


def make(file, torrent, tracker):
    files = lt.file_storage()
    lt.add_files(files, file)
    maker = lt.create_torrent(files, PIECE, lt.create_torrent.v1_only)
    maker.add_tracker(tracker)
    lt.set_piece_hashes(maker, str(Path(file).parent))
    Path(torrent).write_bytes(lt.bencode(maker.generate()))
    Path(torrent + ".hash").write_text(f"{lt.torrent_info(torrent).info_hash()}\n")


def serve(is_seed, torrent, folder, own, *others):
    session = lt.session({**SETTINGS, "listen_interfaces": f"{own}:{PORT}"})
    params = lt.add_torrent_params()
    params.ti, params.save_path, params.trackers = lt.torrent_info(torrent), folder, []
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if is_seed:
        params.flags |= lt.torrent_flags.seed_mode
    handle = session.add_torrent(params)
    handle.replace_trackers([])
    told, introduced = False, 0.0
    while True:
        if time.monotonic() - introduced > 5:
            introduced = time.monotonic()
            for other in others:
                handle.connect_peer((other, PORT))
        if not told and handle.status().is_seeding:
            told = True
            print("DONE", flush=True)
        time.sleep(0.02)


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "make":
        make(*rest)
    else:
        serve(what == "seed", *rest)
