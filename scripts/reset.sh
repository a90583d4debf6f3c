#!/usr/bin/env bash
# Stop and remove what run.sh started: reset.sh [-v] [-h]
#
#   -v   also put the share folders back to what they were at first (volumes/.start): everything
#        that was downloaded or changed in them is deleted
#
# Ends containers (also scaled ones) and local processes, removes the tracker's data, and clears
# logs and temporary files. Touches nothing that run.sh did not make; does nothing twice.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

restore=0
case ${1:-} in
-v) restore=1 && shift ;;
esac
parse_only_help "$@"

lock
# Each in a shell of its own, since both define the same functions.
# shellcheck source=scripts/local.sh
(source "$ROOT/scripts/local.sh" && stop_all)
# shellcheck source=scripts/containers.sh
(source "$ROOT/scripts/containers.sh" && stop_all)

# Only folders whose names run.sh gave; a link in place of one is removed, not followed.
mapfile -t names < <(known_names)
for name in tracker "${names[@]}"; do rm -rf "${LOGS:?}/$name"; done
rm -rf "$VOLUMES/.filling" "$VOLUMES/.start/.new" "$VOLUMES/.start/.making"
if ((restore)); then
    for name in "${names[@]}"; do
        rm -rf "${VOLUMES:?}/$name"
        fill_volume "$name"
    done
fi
rmdir "$RUN" "$LOGS" 2>/dev/null || true
say "nothing runs any more${names[*]:+; $( ((restore)) && echo 'the share folders are as they were at first' || echo "the share folders are kept in $VOLUMES")}"
