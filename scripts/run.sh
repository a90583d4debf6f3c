#!/usr/bin/env bash
# Start a tracker and peers on this machine: run.sh [-n N] [-nn NAME] [-s 1] [--local] [-h]
#
#   -n N      the tracker and the peers node1 … nodeN (4 if nothing is said). A larger N later adds.
#   -nn NAME  that peer, if it is not up yet, and a shell in it; commands may come from a pipe:
#             echo show | ./scripts/run.sh -nn node1
#   -s 1      the tracker alone
#   --local   ordinary processes; otherwise containers where a Docker daemon answers
#
# Builds what is missing, waits until all are ready, and says where everything is, what to try and
# where to look. On a terminal it then opens a shell in node1. potluck goes on until ./scripts/reset.sh.
# Share folders are volumes/NAME, logs are logs/NAME. Environment: POTLUCK_PORT (7700) and
# POTLUCK_BIND (127.0.0.1; 0.0.0.0 lets other machines see the tracker).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PEERS=()
SHELL_IN=
WANT_LOCAL=

parse() {
    local n='' alone=''
    while (($#)); do
        case $1 in
        -h | --help) help && exit 0 ;;
        -n) n=$(number "$@"); shift ;;
        -nn) SHELL_IN=$(peer_name "$@"); shift ;;
        -s) [[ ${2:-} == 1 ]] || bad_usage '-s takes 1: there is one tracker'; alone=1; shift ;;
        --local) WANT_LOCAL=1 ;;
        *) bad_usage "unknown option: $1" ;;
        esac
        shift
    done
    [[ -z $alone || -z $n$SHELL_IN ]] || bad_usage '-s 1 is the tracker alone: no -n, no -nn'
    [[ -n $alone$n$SHELL_IN ]] || n=4
    local k
    for ((k = 1; k <= ${n:-0}; k++)); do PEERS+=("node$k"); done
    [[ -z $SHELL_IN || " ${PEERS[*]} " == *" $SHELL_IN "* ]] || PEERS+=("$SHELL_IN")
}
number() {
    [[ ${2:-} =~ ^[1-9][0-9]{0,2}$ ]] || bad_usage "$1 takes a number from 1 to 999"
    echo "$2"
}
peer_name() {
    [[ ${2:-} =~ ^[a-z0-9][a-z0-9_-]{0,40}$ && $2 != tracker && $2 != peer ]] ||
        bad_usage "$1 takes the name of a peer: small letters, digits, - and _ (not tracker, not peer)"
    echo "$2"
}

# Containers if possible, and what already runs decides.
choose_mode() {
    if [[ -z $WANT_LOCAL ]]; then
        # shellcheck source=scripts/local.sh
        source "$ROOT/scripts/local.sh"
        if is_up tracker; then
            say 'joining the local processes that already run'
            return
        fi
        if have_docker; then
            # shellcheck source=scripts/containers.sh
            source "$ROOT/scripts/containers.sh"
            have_compose && return
            say 'a Docker daemon answers, but neither "docker compose" nor docker-compose is installed'
        else
            say 'no Docker daemon answers'
        fi
    fi
    # shellcheck source=scripts/local.sh
    source "$ROOT/scripts/local.sh"
}

make_folders() {
    make_dirs "$LOGS" "$RUN"
    ((${#PEERS[@]})) || return 0
    "$ROOT/scripts/start-files.sh" "${PEERS[@]}"
    local name
    for name in "${PEERS[@]}"; do fill_volume "$name"; done
}

show_where() {
    local url again=./scripts/run.sh name
    url=$(tracker_url)
    printf '\nReady, as %s:\n' "$MODE"
    printf '  %-10s %s, log in %s\n' tracker "$url" "$LOGS/tracker"
    for name in "${PEERS[@]}"; do
        printf '  %-10s shares %s, log in %s\n' "$name" "$VOLUMES/$name" "$LOGS/$name"
    done
    if ((${#PEERS[@]})); then
        printf '\nTry:\n'
        printf "  echo 'show' | %s -nn %s\n" "$again" "${PEERS[0]}"
        printf "  echo 'download banquet.bin' | %s -nn %s\n" "$again" "${PEERS[0]}"
        printf '  curl -LO %s/f/banquet.bin\n' "$url"
    else
        printf '\nTry:\n  %s -n 4\n  %s -nn node1\n  curl -s %s/v1/peers\n' "$again" "$again" "$url"
    fi
    printf '\nLook at it in a browser: %s/\nIt goes on until ./scripts/reset.sh\n' "$url"
}

parse "$@"
choose_mode
say "tracker${PEERS[*]:+, ${PEERS[*]}} as $MODE"
make_dirs "$VOLUMES"
lock
make_folders
prepare
start tracker "${PEERS[@]}"
await_ready tracker "${PEERS[@]}"
unlock

if [[ -n $SHELL_IN ]]; then
    open_shell "$SHELL_IN"
else
    show_where
    [[ ! -t 0 || ! -t 1 ]] || ((!${#PEERS[@]})) || open_shell "${PEERS[0]}"
fi
