# shellcheck shell=bash disable=SC2034 # variables are for the scripts that source this
# What test-local.sh and test-containers.sh have in common: an instance of its own in a temporary
# folder, named checks, and removal of everything at the end, also after a failure or Ctrl-C.

TEST_DIR=$(mktemp -d "${TMPDIR:-/tmp}/potluck-test.XXXXXX")
export POTLUCK_VOLUMES=$TEST_DIR/volumes POTLUCK_LOGS=$TEST_DIR/logs POTLUCK_RUN=$TEST_DIR/run
export POTLUCK_PREFIX=test$$- POTLUCK_BIND=127.0.0.1
unset COMPOSE_PROJECT_NAME COMPOSE_FILE

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000)) # below the range that the kernel takes ports from by itself
        port_taken "$port" || break
    done
    echo "$port"
}
POTLUCK_PORT=$(free_port)
export POTLUCK_PORT
TRACKER=127.0.0.1:$POTLUCK_PORT

# Every announce that changes something waits for the disk. What a build left to be written would keep it waiting.
rest_disk() { sync; }

N_CHECKS=0
# check WHAT COMMAND…: stop the test unless the command succeeds.
check() {
    local what=$1
    shift
    if ! "$@"; then
        printf 'FAILED  %s\n        (%s)\n' "$what" "$*" >&2
        exit 1
    fi
    N_CHECKS=$((N_CHECKS + 1))
    printf 'ok      %s\n' "$what"
}

clean_up() {
    local code=$?
    trap '' INT TERM
    ((code == 0)) || show_logs || true
    "$ROOT/scripts/reset.sh" -v >/dev/null 2>&1 || echo "reset.sh failed; see $TEST_DIR" >&2
    declare -F clean_up_more >/dev/null && clean_up_more
    rm -rf "$TEST_DIR"
    return $code
}
trap clean_up EXIT
trap 'exit 130' INT TERM

show_logs() { (cd "$POTLUCK_LOGS" 2>/dev/null && find . -type f -printf '%p\n' -exec tail -n 15 {} \;) >&2; }

run() { quietly "$ROOT/scripts/run.sh" "$@" </dev/null; }

# owners FILE: how many complete owners the tracker names for it.
owners() { http_get "$TRACKER" "/v1/files/$1" | grep -o '"complete": *true' | wc -l; }
has_owners() { [[ $(owners "$1") == "$2" ]]; }
# How many peers the tracker knows.
peers() { http_get "$TRACKER" /v1/peers | grep -o '"peer_id"' | wc -l; }
has_peers() { [[ $(peers) == "$1" ]]; }

lists() { http_get "$TRACKER" /v1/files | grep -qF "\"$1\""; }
same_bytes() { cmp -- "$1" "$2"; }
# A log line about a finished download that names its owners with the bytes from each.
log_names_owners() { # NODE FILE OWNER…
    local line owner
    line=$(grep -rhaF "$2" "$POTLUCK_LOGS/$1" | grep -a 'downloaded' | tail -n 1)
    for owner in "${@:3}"; do [[ $line =~ $owner=[1-9] ]] || return 1; done
}
gone() { [[ ! -e $1 ]]; }
