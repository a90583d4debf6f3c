#!/usr/bin/env bash
# Measure potluck beside other tools and write BENCHMARKS.md:
# bench.sh [-h] [--quick] [-k ROUNDS] [-o FILE] [NAME…]
#
#   NAME…      only these: hashing loopback sizes small_files memory sync multi crowd limits simulation.
#              Sections of the file that are not measured now stay as they are.
#   --quick    small sizes, under three minutes, printed only: shows that everything works
#   -k ROUNDS  how often the tools take turns (5; shaped 3)
#   -o FILE    where the tables go instead of BENCHMARKS.md; - prints only
#
# All of it takes about half an hour and wants a machine that does nothing else, 8 GiB of memory that
# nobody uses and 25 GB of disk. As root it installs with apt what is missing of b3sum, curl, aria2c,
# nginx, libtorrent, opentracker and syncthing, and measures in namespaces of its own, which end with it; without
# root, what is not installed and all that is shaped is left out, and said so. Nothing that is
# measured listens outside loopback and those namespaces; but where services start on installation,
# apt also starts those of nginx-light and opentracker.
# Environment: POTLUCK_BIN, a folder with potluck and potluck-tracker (otherwise a release build is
# made); POTLUCK_BENCH_DISK, a folder on the disk to be measured (otherwise /var/tmp).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PATH=$PATH:/usr/sbin:/sbin

NAMES=()
OUTPUT=
ARGS=()
MEMORY=
DISK=
CHILD=
ISOLATE=()

parse() {
    while (($#)); do
        case $1 in
        -h | --help) help && exit 0 ;;
        --quick) ARGS+=(--quick); OUTPUT=${OUTPUT:--} ;;
        -k) [[ ${2:-} =~ ^[1-9][0-9]?$ ]] || bad_usage '-k takes a number from 1 to 99'; ARGS+=(--rounds "$2"); shift ;;
        -o) [[ -n ${2:-} ]] || bad_usage '-o takes a file, or -'; OUTPUT=$2; shift ;;
        hashing | loopback | sizes | small_files | memory | sync | multi | crowd | limits | simulation) NAMES+=("$1") ;;
        *) bad_usage "neither an option nor a benchmark: $1" ;;
        esac
        shift
    done
    OUTPUT=${OUTPUT:-$ROOT/BENCHMARKS.md}
}

# want PROGRAM PACKAGE WHAT: there, or installed, or said what is left out.
want() {
    command -v "$1" >/dev/null && return
    [[ $(id -u) == 0 ]] && apt_install "$2" && command -v "$1" >/dev/null && return
    say "without $1 ($2): left out: $3"
}

# The distribution's libtorrent belongs to the distribution's Python, which need not be the first.
find_libtorrent() {
    local python
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import libtorrent' 2>/dev/null && ARGS+=(--torrent-python "$python") && return
    done
    return 1
}

find_tools() {
    command -v python3 >/dev/null || { [[ $(id -u) == 0 ]] && apt_install python3; } || die 'python3 was not found'
    want cmp diffutils 'nothing works without it'
    want b3sum b3sum 'hashing'
    want curl curl 'sizes, and curl in every other table'
    want nginx nginx-light 'everything over HTTP that is not potluck'
    want aria2c aria2 'aria2, over HTTP and BitTorrent'
    want opentracker opentracker 'aria2 over BitTorrent'
    want syncthing syncthing 'Syncthing, beside folder sync'
    if ! find_libtorrent && ! { [[ $(id -u) == 0 ]] && apt_install python3-libtorrent && find_libtorrent; }; then
        say 'without libtorrent for Python (python3-libtorrent): left out: BitTorrent'
    fi
    want tc iproute2 'multi and crowd'
}

# A network of our own, and processes that all end when the first of them does.
isolate() {
    local all=(unshare --net --mount --pid --fork --kill-child --mount-proc)
    if [[ $(id -u) == 0 ]] && "${all[@]}" true 2>/dev/null; then
        ISOLATE=("${all[@]}")
        export PLB_ISOLATED=1
    else
        say 'not root, or namespaces are not allowed: left out: multi and crowd'
    fi
}

# wants NAME: whether that benchmark is to be run.
wants() {
    ((${#NAMES[@]} == 0)) || [[ " ${NAMES[*]} " == *" $1 "* ]]
}

# The simulation is a test of the peer; it runs in its release build.
build_simulation() {
    wants simulation || return 0
    local built program
    built=$(cd "$ROOT" && "${AS_OWNER[@]}" cargo test --release --locked -p potluck-peer --test simulation --no-run \
        --message-format=json 2>/dev/null) || die 'the simulation was not built'
    program=$(sed -n 's/.*"executable":"\([^"]*simulation[^"]*\)".*/\1/p' <<<"$built")
    [[ -x $program ]] || die 'the built simulation was not found'
    ARGS+=(--simulation "$program")
}

build() {
    local bin=${POTLUCK_BIN:-$TARGET_DIR/release} commit
    if [[ -z ${POTLUCK_BIN:-} ]]; then
        need_cargo
        say 'building (the first time takes some minutes)'
        (cd "$ROOT" && with_progress "${AS_OWNER[@]}" cargo build --release --bins --locked) || die 'the build failed'
        commit=$(git -C "$ROOT" describe --always --dirty 2>/dev/null) || commit=
        ARGS+=(--commit "$commit")
        build_simulation
    fi
    [[ -x $bin/potluck && -x $bin/potluck-tracker ]] || die "potluck and potluck-tracker are not in $bin"
    ARGS+=(--bin "$bin")
}

# shellcheck disable=SC2317 # by the trap
# Killed, unshare takes everything inside with it; without it, Python ends what it started.
clean() {
    trap '' INT TERM HUP
    if [[ -n $CHILD ]]; then
        if ((${#ISOLATE[@]})); then kill -KILL "$CHILD"; else kill -TERM "$CHILD"; fi 2>/dev/null || true
        wait "$CHILD" 2>/dev/null || true
    fi
    local dir
    for dir in "$MEMORY" "$DISK"; do
        [[ -z $dir ]] || wait_until 20 rm -rf "$dir" || say "could not be removed: $dir"
    done
}

parse "$@"
find_tools
isolate
build

trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
DISK=$(mktemp -d -p "${POTLUCK_BENCH_DISK:-/var/tmp}" plb.XXXXXX)
MEMORY=$(mktemp -d -p /dev/shm plb.XXXXXX 2>/dev/null) || MEMORY=$(mktemp -d plb.XXXXXX --tmpdir)
export PYTHONDONTWRITEBYTECODE=1
"${ISOLATE[@]}" python3 "$ROOT/bench/run.py" "${ARGS[@]}" --memory "$MEMORY" --disk "$DISK" --output "$OUTPUT" \
    "${NAMES[@]}" &
CHILD=$!
code=0
wait "$CHILD" || code=$?
CHILD=
[[ ! -f $OUTPUT ]] || own "$OUTPUT"
exit "$code"
