#!/usr/bin/env bash
# Make the Debian packages, install them into an empty root, and run what is in there: test-package.sh [-h]
#
# Takes the programs from POTLUCK_BIN, or builds for release. dpkg installs into a temporary folder with a
# database of its own, the C library comes from this machine, and the programs run in it by chroot, and
# where a Docker daemon answers in containers made of it: no image has to be fetched, and nothing of this
# machine is touched.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
parse_only_help "$@"
# shellcheck source=scripts/test-lib.sh
source "$ROOT/scripts/test-lib.sh"

ROOTFS=$TEST_DIR/rootfs
PROCESSES=()
IMAGE=${POTLUCK_PREFIX}package # also the name of the network
CONTAINERS=(tracker one two)
clean_up_more() {
    local pid
    if have_docker; then
        docker rm -fv "${CONTAINERS[@]/#/$POTLUCK_PREFIX}" >/dev/null 2>&1 || true
        docker network rm "$IMAGE" >/dev/null 2>&1 || true
        docker rmi -f "$IMAGE" >/dev/null 2>&1 || true
    fi
    for pid in "${PROCESSES[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    ! mountpoint -q "$ROOTFS/proc" || umount "$ROOTFS/proc"
}
show_logs() { tail -n 20 "$TEST_DIR"/*.log >&2 || true; }

# Where root is not, a user namespace is.
INSIDE=(chroot "$ROOTFS")
[[ $(id -u) == 0 ]] || INSIDE=(unshare --map-root-user chroot "$ROOTFS")
INSIDE+=(/usr/bin/env -i PATH=/usr/bin "POTLUCK_TRACKER=http://$TRACKER")
inside() { "${INSIDE[@]}" "$@"; }

install_packages() {
    local dpkg=(dpkg "--root=$ROOTFS" --force-not-root --force-script-chrootless --force-depends)
    mkdir -p "$ROOTFS"/{etc,tmp,proc,var/lib/dpkg/{info,updates},var/log}
    : >"$ROOTFS/var/lib/dpkg/status"
    quietly "${dpkg[@]}" --log=/dev/null --install "$TEST_DIR"/debs/*.deb
}
# What the programs load, and env(1) to start them with a clean environment.
add_libraries() {
    local file
    cp --parents "$(command -v env)" "$ROOTFS"
    [[ -x $ROOTFS/usr/bin/env ]] || cp "$ROOTFS$(command -v env)" "$ROOTFS/usr/bin/env"
    ldd "$ROOTFS"/usr/bin/* | grep -oE '/[^ ]+' | grep '\.so' | sort -u | while read -r file; do
        cp --parents -L "$file" "$ROOTFS"
    done
}
is_installed() { dpkg "--root=$ROOTFS" -s "$1" | grep -q '^Status: .* installed$'; }
ready() { grep -q ' ready on ' "$TEST_DIR/$1.log"; }
start() { # NAME PROGRAM ARGUMENTS…
    "${INSIDE[@]}" "${@:2}" >"$TEST_DIR/$1.log" 2>&1 &
    PROCESSES+=($!)
    wait_until 120 ready "$1"
}
# The root with the packages in it as an image, and a network.
import_image() {
    rm -rf "$ROOTFS"/srv/{one,two}/.potluck "$ROOTFS/srv/two/dish"
    tar -C "$ROOTFS" --exclude='./proc/*' --numeric-owner --owner=0 --group=0 -c . | quietly docker import - "$IMAGE" &&
        quietly docker network create "$IMAGE"
}
container() { # NAME PROGRAM ARGUMENTS…
    quietly docker run -d --name "$POTLUCK_PREFIX$1" --hostname "$1" --network "$IMAGE" --network-alias "$1" \
        -e POTLUCK_TRACKER=tracker:7700 "$IMAGE" "${@:2}"
}
in_container() { docker exec "$POTLUCK_PREFIX$1" "${@:2}"; } # NAME PROGRAM ARGUMENTS…
is_shown() { in_container two potluck --share /srv/two show "$1" | grep -q "$1"; }
same_id() { [[ $(in_container one potluck hash "/srv/one/$1") == "$(in_container two potluck hash "/srv/two/$1" | sed s/two/one/)" ]]; }

# bash completes with what is installed.
completes() {
    bash -c 'source "$1"; COMP_WORDS=(potluck downl) COMP_CWORD=1; _potluck potluck downl potluck; [[ ${COMPREPLY[*]} == download ]]' \
        _ "$ROOTFS/usr/share/bash-completion/completions/potluck"
}
reads_man() { local page; for page; do man --local-file --warnings "$page" >"$TEST_DIR/page" 2>"$TEST_DIR/complaints" && [[ -s $TEST_DIR/page && ! -s $TEST_DIR/complaints ]] || return 1; done; }
# With the programs where they are now: systemd looks whether there are any.
verified() { # UNIT
    sed "s|^ExecStart=|&$ROOTFS|" "$ROOTFS/usr/lib/systemd/system/$1" >"$TEST_DIR/$1"
    quietly systemd-analyze verify --man=no "$TEST_DIR/$1"
}
hardened() { # UNIT: little enough to be exposed
    local level
    level=$(systemd-analyze security --offline=yes --no-pager "$1" | sed -n 's/.*Overall exposure level for [^:]*: \([0-9]*\)\..*/\1/p')
    [[ -n $level ]] && ((level <= 2))
}

check 'package.sh makes two packages' "$ROOT/scripts/package.sh" -o "$TEST_DIR/debs"
check 'dpkg installs them' install_packages
check '… the peer' is_installed potluck
check '… and the tracker' is_installed potluck-tracker
add_libraries
mkdir -p "$ROOTFS"/srv/{one,two}
echo 'from a package' >"$ROOTFS/srv/one/dish"
check 'the installed tracker runs' start tracker potluck-tracker --listen "$TRACKER" --data /var/tracker --no-lan
if [[ -e $ROOTFS/proc/self ]] || { [[ $(id -u) == 0 ]] && mount --bind /proc "$ROOTFS/proc" 2>/dev/null; }; then
    check 'the installed peer runs' start one potluck up --share /srv/one --listen 127.0.0.1:0
    check '… and is listed' wait_until 120 has_owners dish 1
    check 'another one downloads from it' quietly inside potluck download --share /srv/two dish
    check '… the right bytes' same_bytes "$ROOTFS/srv/one/dish" "$ROOTFS/srv/two/dish"
else
    check 'the installed peer runs' quietly inside potluck --version
    echo 'SKIPPED a download between installed peers: /proc cannot be mounted here' >&2
fi
if have_docker; then
    check 'an image is made of what is installed' import_image
    check 'the installed tracker runs in a container' container tracker potluck-tracker --data /var/tracker
    check '… and a peer' container one potluck --share /srv/one up
    check '… and another one' container two potluck --share /srv/two up
    check '… which sees what the first has' wait_until 20 is_shown dish
    check '… and downloads it' quietly in_container two potluck --share /srv/two download dish
    check '… the right bytes' same_id dish
else
    echo 'SKIPPED containers: no Docker daemon answers' >&2
fi
if command -v man >/dev/null; then
    check 'the man pages read well' reads_man "$ROOTFS"/usr/share/man/man1/*.1.gz
else
    echo 'SKIPPED man pages: man is not installed' >&2
fi
check 'bash completes' completes
if command -v systemd-analyze >/dev/null; then
    for unit in potluck potluck-tracker; do
        check "systemd takes $unit.service" verified "$unit.service"
        check '… which is well hardened' hardened "$ROOTFS/usr/lib/systemd/system/$unit.service"
    done
else
    echo 'SKIPPED units: systemd-analyze is not installed' >&2
fi
printf '%d checks passed\n' "$N_CHECKS"
