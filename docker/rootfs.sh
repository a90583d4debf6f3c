#!/bin/sh
# Lay out the files of the images: rootfs.sh BINARIES DEST
#
# Makes DEST/base (what both images have), DEST/tracker and DEST/peer (one binary each). Run by
# docker/Dockerfile in its builder and by docker/pack.sh on the host, so that both images are alike.
# POSIX sh, because a builder image need not have bash.
set -eu

bin=$1
dest=$2
mkdir -p "$dest/base/etc" "$dest/tracker/usr/bin" "$dest/peer/usr/bin"
printf '%s\n' 'root:x:0:0:root:/:/nonexistent' 'potluck:x:10001:10001:potluck:/tmp:/nonexistent' >"$dest/base/etc/passwd"
printf '%s\n' 'root:x:0:' 'potluck:x:10001:' >"$dest/base/etc/group"
echo 'hosts: files dns' >"$dest/base/etc/nsswitch.conf"
# Open to any uid: containers run as whoever started them, and a new volume takes over these modes.
for dir in tmp share data logs; do
    mkdir -p "$dest/base/$dir"
    chmod 1777 "$dest/base/$dir"
done
install -m 755 "$bin/potluck-tracker" "$dest/tracker/usr/bin/"
install -m 755 "$bin/potluck" "$dest/peer/usr/bin/"
