#!/usr/bin/env bash
# Make Debian packages: package.sh [-o DIR] [-h]
#
#   -o DIR   put them there (target/debian if nothing is said)
#
# potluck_VERSION_ARCH.deb has the peer, potluck-tracker_VERSION_ARCH.deb the tracker: each one program with its
# systemd unit, man pages and completions. Builds for release, unless POTLUCK_BIN names a folder with built
# programs. Needs dpkg-deb and nothing else: a package is a folder laid out as it will be, and that is less
# than what a tool for it would bring along.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

OUT=$TARGET_DIR/debian
case ${1:-} in
-o) [[ -n ${2:-} ]] || bad_usage '-o takes a folder'
    OUT=$2 && shift 2 ;;
esac
parse_only_help "$@"
command -v dpkg-deb >/dev/null || apt_install dpkg || die 'dpkg-deb was not found.' 'It comes with every Debian and Ubuntu.'

BIN=${POTLUCK_BIN:-}
if [[ -z $BIN ]]; then
    need_cargo
    say 'building for release'
    (cd "$ROOT" && "${AS_OWNER[@]}" cargo build --release --locked --bins) || die 'the build failed, see above.'
    BIN=$TARGET_DIR/release
fi
for program in potluck potluck-tracker; do
    [[ -x $BIN/$program ]] || die "there is no $BIN/$program." 'Build it: cargo build --bins'
done

VERSION=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml")
ARCH=$(dpkg --print-architecture)
STAGE=$(mktemp -d)
trap 'rm -rf "$STAGE"' EXIT

# The oldest C library that has everything the program calls.
libc_of() {
    { grep -aoE 'GLIBC_2\.[0-9]+' "$1" || true; } | sort -uV | tail -n 1 | sed 's/GLIBC_//'
}

# stage PACKAGE PROGRAM UNIT: what every package has.
stage() {
    local root=$STAGE/$1 libc
    install -D -m 755 "$BIN/$2" "$root/usr/bin/$2"
    [[ -n ${POTLUCK_KEEP_SYMBOLS:-} ]] || strip --strip-unneeded "$root/usr/bin/$2" 2>/dev/null || true
    install -D -m 644 "$ROOT/packaging/systemd/$3" "$root/usr/lib/systemd/system/$3"
    install -D -m 644 "$ROOT/LICENSE" "$root/usr/share/doc/$1/copyright"
    install -D -m 644 "$ROOT/packaging/potluck.toml" "$root/usr/share/doc/$1/potluck.toml"
    gzip -9n <"$ROOT/CHANGELOG.md" | install -D -m 644 /dev/stdin "$root/usr/share/doc/$1/changelog.gz"
    libc=$(libc_of "$root/usr/bin/$2")
    DEPENDS=${libc:+libc6 (>= $libc), libgcc-s1}
}

# pack PACKAGE SYNOPSIS DESCRIPTION UNIT: from the staged folder to the file.
pack() {
    local root=$STAGE/$1 size
    size=$(du -sk --apparent-size "$root" | cut -f1)
    install -d "$root/DEBIAN"
    {
        printf 'Package: %s\nVersion: %s\nArchitecture: %s\n' "$1" "$VERSION" "$ARCH"
        printf 'Maintainer: the potluck project <potluck@localhost>\nInstalled-Size: %s\n' "$size"
        [[ -z $DEPENDS ]] || printf 'Depends: %s\n' "$DEPENDS"
        printf 'Section: net\nPriority: optional\nDescription: %s\n' "$2"
        printf '%s\n' "$3" | sed 's/^/ /'
    } >"$root/DEBIAN/control"
    # Nothing is started by itself: whoever installs it says first what is to be shared, and with whom.
    cat >"$root/DEBIAN/postinst" <<END
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    if [ -n "\$2" ]; then systemctl try-restart $4 || true; fi
fi
END
    cat >"$root/DEBIAN/prerm" <<END
#!/bin/sh
set -e
if [ "\$1" = remove ] && [ -d /run/systemd/system ]; then systemctl disable --now $4 || true; fi
END
    cat >"$root/DEBIAN/postrm" <<END
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
END
    chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm" "$root/DEBIAN/postrm"
    (cd "$root" && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
    quietly dpkg-deb --root-owner-group --build "$root" "$OUT/${1}_${VERSION}_$ARCH.deb"
    say "made $OUT/${1}_${VERSION}_$ARCH.deb"
}

make_dirs "$OUT"
umask 022

stage potluck potluck potluck.service
"$BIN/potluck" man "$STAGE/potluck/usr/share/man/man1"
gzip -9n "$STAGE"/potluck/usr/share/man/man1/*.1
for place in bash:bash-completion/completions/potluck zsh:zsh/vendor-completions/_potluck fish:fish/vendor_completions.d/potluck.fish; do
    install -d "$STAGE/potluck/usr/share/$(dirname "${place#*:}")"
    "$BIN/potluck" completions "${place%%:*}" >"$STAGE/potluck/usr/share/${place#*:}"
done
pack potluck 'share a folder, and fetch from everybody at once' \
    'Fetches files from all peers that have them at the same time and verifies every
byte, keeps a folder the same on many machines, and serves any HTTP client.' potluck.service

stage potluck-tracker potluck-tracker potluck-tracker.service
"$BIN/potluck-tracker" --write-man "$STAGE/potluck-tracker/usr/share/man/man1"
gzip -9n "$STAGE"/potluck-tracker/usr/share/man/man1/*.1
pack potluck-tracker 'tracker of potluck: who is there, and who holds what' \
    'Peers of potluck announce to it what they share and ask it who has what. It never
sees a byte of a file.' potluck-tracker.service
