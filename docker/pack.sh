#!/usr/bin/env bash
# Build the images without pulling anything: pack.sh [-h]
#
# For machines that reach no image registry. Builds static binaries on the host (or takes them from
# the folder POTLUCK_BIN) and packs them into empty images with the very instructions that stand in
# docker/Dockerfile below its line "---- the images", so there is one source of USER, ENV,
# ENTRYPOINT and HEALTHCHECK.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

# Static binaries, in a target folder of their own so that they never evict the ordinary build.
build_static() {
    need_cargo
    local triple
    triple=$(rustc -vV | sed -n 's/^host: //p')
    say "building static binaries for $triple"
    (cd "$ROOT" && RUSTFLAGS="-C target-feature=+crt-static" \
        "${AS_OWNER[@]}" cargo build --release --locked --bins --target "$triple" --target-dir "$TARGET_DIR/static") ||
        die "the static build failed. It needs glibc's libc.a (Debian: libc6-dev, Fedora: glibc-static)."
    BIN=$TARGET_DIR/static/$triple/release
}

pack() {
    local context
    context=$(mktemp -d)
    # shellcheck disable=SC2064 # expanded now: the variable is gone when the trap runs
    trap "rm -rf '$context'" EXIT
    "$ROOT/docker/rootfs.sh" "$BIN" "$context/rootfs"
    sed -e '1,/^# ---- the images/d' -e 's|^COPY --from=build /rootfs/|COPY rootfs/|' \
        "$ROOT/docker/Dockerfile" >"$context/Dockerfile"
    local target
    for target in tracker peer; do
        quietly docker build --target "$target" -t "potluck-$target:$TAG" "$context"
    done
}

parse_only_help "$@"
BIN=${POTLUCK_BIN:-}
[[ -n $BIN ]] || build_static
pack
say "packed potluck-tracker:$TAG and potluck-peer:$TAG from $BIN"
