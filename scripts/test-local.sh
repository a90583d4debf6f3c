#!/usr/bin/env bash
# Try potluck as local processes, as a person would: test-local.sh [-h]
#
# Its own port and temporary folders, so it may run beside a potluck in use. Takes the programs from
# POTLUCK_BIN if that is set, else run.sh builds them. Ends everything it started.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
parse_only_help "$@"
# shellcheck source=scripts/test-lib.sh
source "$ROOT/scripts/test-lib.sh"

pids() { cat "$POTLUCK_RUN"/*.pid; }
pid_of() { cut -d' ' -f1 "$POTLUCK_RUN/$1.pid"; }
in_shell() { "$ROOT/scripts/run.sh" -nn "$1" <<<"$2"; }
says() { # TEXT COMMAND…: fails, and its message has the text
    local out
    ! out=$("${@:2}" 2>&1) && [[ $out == *"$1"* ]]
}
all_ended() { # PID…: gone, or dead and not collected yet
    local pid
    for pid; do ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$pid/status" || return 1; done
}
unchanged() { [[ $(pids) == "$before" ]]; }

rest_disk
check 'run.sh -s 1 starts the tracker alone' run -s 1 --local
check 'it answers' http_get "$TRACKER" /healthz
check 'a port in use is said clearly' says "port $POTLUCK_PORT is in use" \
    env "POTLUCK_RUN=$TEST_DIR/other" "$ROOT/scripts/run.sh" -s 1 --local
check 'run.sh -n 3 adds three peers' run -n 3
check 'the tracker knows them' wait_until 120 has_peers 3
before=$(pids)
check 'run.sh -n 3 again' run -n 3
check '… changes nothing' unchanged
check 'run.sh -n 4 adds one more' run -n 4
check 'banquet.bin has three owners' wait_until 120 has_owners banquet.bin 3
shown=$(in_shell node1 show)
check 'show, through a pipe, lists it' grep -q banquet.bin <<<"$shown"
check 'download, through a pipe' in_shell node1 'download banquet.bin'
check '… has the right bytes' same_bytes "$POTLUCK_VOLUMES/node1/banquet.bin" "$POTLUCK_VOLUMES/.start/node2/banquet.bin"
check '… from three owners' wait_until 120 log_names_owners node1 banquet.bin node2 node3 node4
check 'node1 is an owner now' wait_until 120 has_owners banquet.bin 4

kill -KILL "$(pid_of node3)"
check 'a killed peer is started again' run -n 4

# A pid that now belongs to somebody else must not be signalled.
sleep 300 &
stranger=$!
echo "$stranger 1" >"$POTLUCK_RUN/node9.pid"
mapfile -t ours < <(pids | cut -d' ' -f1 | grep -vx "$stranger")
check 'reset.sh -v' quietly "$ROOT/scripts/reset.sh" -v
check '… ended every process of ours' all_ended "${ours[@]}"
check '… and no other' kill -0 "$stranger"
kill "$stranger"
check '… restored the share folder' diff -r "$POTLUCK_VOLUMES/node1" "$POTLUCK_VOLUMES/.start/node1"
check '… cleared logs and state' gone "$POTLUCK_LOGS"
check 'reset.sh with nothing running' quietly "$ROOT/scripts/reset.sh"
echo "test-local.sh: $N_CHECKS checks passed"
