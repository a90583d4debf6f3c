# shellcheck shell=bash disable=SC2034 # variables of lib.sh and run.sh
# potluck as ordinary processes. Sourced by run.sh and reset.sh; scripts/containers.sh offers the
# same functions for containers: prepare, start, await_ready, is_up, open_shell, stop_all.
#
# A started process is remembered in .run/NAME.pid as "PID START-TIME". The start time tells it from
# a later process that happened to get its pid: only what we started is ever signalled.

MODE='local processes'
URL_FILE=$RUN/tracker.url # the port may be another one than this call's POTLUCK_PORT

tracker_url() { if is_up tracker; then cat "$URL_FILE"; else echo "http://127.0.0.1:$PORT"; fi; }

# Field 22 of stat, counted after the command name, which may itself contain blanks. Nothing for a
# process that has ended and only waits to be collected.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

# is_up NAME: does the process that we started under this name still run?
is_up() {
    local pid started
    [[ -r $RUN/$1.pid ]] && read -r pid started <"$RUN/$1.pid" &&
        [[ -n $started && $(start_time "$pid") == "$started" ]]
}

# Set BIN to a folder with both programs.
prepare() {
    if docker_runs_ours; then
        die "potluck already runs in containers; end that first with ./scripts/reset.sh"
    fi
    BIN=${POTLUCK_BIN:-$TARGET_DIR/release}
    [[ -z ${POTLUCK_BIN:-} ]] || return 0
    if ! command -v cargo >/dev/null && [[ -x $BIN/potluck && -x $BIN/potluck-tracker ]]; then
        return # built before
    fi
    need_cargo
    say 'building (the first time takes some minutes)'
    (cd "$ROOT" && "${AS_OWNER[@]}" cargo build --release --bins --quiet) || die 'the build failed, see above'
}

docker_runs_ours() {
    have_docker && [[ -n $(docker ps -q --filter "label=com.docker.compose.project.working_dir=$ROOT" \
        --filter "name=^/${PREFIX}tracker\$") ]]
}

# launch NAME COMMAND…: in a session of its own, so that Ctrl-C in our terminal does not reach it.
launch() {
    local name=$1
    shift
    make_dirs "$LOGS/$name"
    # What is set up here is not for the settings of the person who runs it.
    setsid "${AS_OWNER[@]}" env POTLUCK_CONFIG= "$@" </dev/null >"$LOGS/$name/console.log" 2>&1 9>&- &
    echo "$! $(start_time $!)" >"$RUN/$name.pid"
    disown
}

# start NAME…: tracker and peers that are not up yet.
start() {
    local name
    for name; do
        is_up "$name" && continue
        if [[ $name == tracker ]]; then
            ! port_taken "$PORT" || die_of_taken_port
            echo "http://127.0.0.1:$PORT" >"$URL_FILE"
            launch tracker "$BIN/potluck-tracker" --listen "$BIND:$PORT" --data "$RUN/tracker" --log-dir "$LOGS/tracker"
        else
            launch "$name" "$BIN/potluck" --share "$VOLUMES/$name" --tracker "$(tracker_url)" --name "$name" \
                --listen "$BIND:0" --log-dir "$LOGS/$name" up
        fi
    done
}

said_ready() { grep -qs ' ready on http' "$LOGS/$1/console.log"; }
ready_or_gone() { said_ready "$1" || ! is_up "$1"; }

await_ready() {
    local name
    for name; do
        wait_until 60 ready_or_gone "$name" || true
        is_up "$name" && said_ready "$name" && continue
        tail -n 20 "$LOGS/$name/console.log" >&2 || true
        die "$name did not get ready; the last lines of $LOGS/$name/console.log stand above."
    done
}

open_shell() {
    # From the environment: for a peer that runs already these flags would do nothing, which potluck says.
    exec "${AS_OWNER[@]}" env POTLUCK_TRACKER="$(tracker_url)" POTLUCK_NAME="$1" \
        "$BIN/potluck" --share "$VOLUMES/$1" shell
}

# Every process we started: peers first, so that they can say good-bye to the tracker.
stop_all() {
    local name names=()
    [[ -d $RUN ]] || return 0
    mapfile -t names < <(find "$RUN" -maxdepth 1 -name '*.pid' ! -name tracker.pid -printf '%f\n' | sed 's/\.pid$//' | sort -V)
    for name in "${names[@]}"; do signal TERM "$name"; done
    for name in "${names[@]}"; do end "$name"; done
    signal TERM tracker
    end tracker
    rm -rf "$RUN/tracker" "$URL_FILE"
}

signal() {
    is_up "$2" || return 0
    say "stopping $2 ($1)"
    kill "-$1" "$(cut -d' ' -f1 "$RUN/$2.pid")" 2>/dev/null || true
}
is_down() { ! is_up "$1"; }

# A process that has been told to end gets ten seconds for it.
end() {
    wait_until 10 is_down "$1" || {
        signal KILL "$1"
        wait_until 5 is_down "$1" || die "$1 does not end"
    }
    rm -f "$RUN/$1.pid"
}
