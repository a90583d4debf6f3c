#!/usr/bin/env bash
# Build the images potluck-tracker and potluck-peer: config.sh [-nr] [-h]
#
#   -nr   do not remove the images that the new ones replace
#
# With docker/Dockerfile where its base image is there or can be pulled; otherwise the host builds
# and docker/pack.sh packs. Only images of this project are ever removed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

BASE_IMAGE=$(sed -n 's/^FROM \([^ ]*\) AS build$/\1/p' "$ROOT/docker/Dockerfile")

base_image_available() {
    docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 ||
        timeout 15 docker manifest inspect "$BASE_IMAGE" >/dev/null 2>&1
}

build() {
    local target targets=(tracker peer)
    # The old builder keeps a stage as an image. Named, its compiled dependencies survive the clearing
    # below, and what it replaces does not.
    docker buildx version >/dev/null 2>&1 || targets=(build "${targets[@]}")
    for target in "${targets[@]}"; do
        say "building potluck-$target:$TAG"
        docker build -f "$ROOT/docker/Dockerfile" --target "$target" -t "potluck-$target:$TAG" "$ROOT"
    done
}

case ${1:-} in
-nr) remove=0 && shift ;;
*) remove=1 ;;
esac
parse_only_help "$@"
have_docker || die 'no Docker daemon answers.' 'Without one: ./scripts/run.sh --local'

if base_image_available; then
    build
else
    say "the base image $BASE_IMAGE is not here and cannot be pulled: building on the host"
    "$ROOT/docker/pack.sh"
fi
# What was replaced has our label and no name any more. Images in use stay.
((!remove)) || quietly docker image prune --force --filter label=potluck
