# shellcheck shell=bash disable=SC2034 # variables are for the scripts that source this
# What the scripts have in common: where things are, how to speak, how to wait, what to install.
# Sourced by every script; does nothing by itself but set variables.
#
# The folders and names below can be moved by the environment, which is how the tests run beside a
# potluck that somebody uses.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VOLUMES=$(realpath -m "${POTLUCK_VOLUMES:-$ROOT/volumes}") # share folders, and .start
LOGS=$(realpath -m "${POTLUCK_LOGS:-$ROOT/logs}")          # tracker/, nodeK/
RUN=$(realpath -m "${POTLUCK_RUN:-$ROOT/.run}")            # pids and generated files
BIND=${POTLUCK_BIND:-127.0.0.1}                            # who may reach the tracker
PORT=${POTLUCK_PORT:-7700}                                 # the tracker's
PREFIX=${POTLUCK_PREFIX:-}                                 # before container names
TAG=${POTLUCK_TAG:-latest}                                 # of the images
TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}

# Files belong to whoever started potluck: under sudo, to the person behind it.
OWNER=${POTLUCK_UID:-${SUDO_UID:-$(id -u)}}
GROUP=${POTLUCK_GID:-${SUDO_GID:-$(id -g)}}

# Prefix for commands that build or serve: under sudo they run as the person behind it.
AS_OWNER=()
if [[ $(id -u) == 0 && ${SUDO_UID:-0} != 0 ]]; then
    owner_home=$(getent passwd "$SUDO_UID" | cut -d: -f6)
    AS_OWNER=(setpriv "--reuid=$SUDO_UID" "--regid=$SUDO_GID" --init-groups
        env "HOME=$owner_home" "PATH=$owner_home/.cargo/bin:$PATH")
    PATH=$owner_home/.cargo/bin:$PATH
fi
PATH=$PATH:${HOME:-}/.cargo/bin

# To stderr: the output of a command fed to run.sh -nn stays clean.
say() { printf 'potluck: %s\n' "$*" >&2; }
die() {
    printf 'potluck: error: %s\n' "$1" >&2
    shift
    [[ $# == 0 ]] || printf '  %s\n' "$@" >&2
    exit 1
}

# The header comment of the calling script is its help.
help() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
bad_usage() {
    printf 'potluck: %s\n\n' "$1" >&2
    help >&2
    exit 2
}
# For scripts without options.
parse_only_help() {
    case "$*" in
    '') ;;
    -h | --help) help && exit 0 ;;
    *) bad_usage "unknown option: $*" ;;
    esac
}

# Run a command, and show what it printed only if it fails.
quietly() {
    local out
    out=$("$@" 2>&1) || {
        local code=$?
        printf '%s\n' "$out" >&2
        return $code
    }
}

# The same, unless somebody watches on a terminal.
with_progress() { if [[ -t 2 ]]; then "$@"; else quietly "$@"; fi; }

# wait_until SECONDS COMMAND…: true as soon as the command is, false at the deadline.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

# http_get HOST:PORT PATH: the body of a 200 answer. Without curl, which a fresh machine may lack;
# HTTP/1.0, so that the body is never chunked.
http_get() {
    local reply
    reply=$(
        exec 2>/dev/null 3<>"/dev/tcp/${1%:*}/${1##*:}" || exit 1
        printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$2" "$1" >&3
        timeout 10 cat <&3
    ) || return 1
    [[ $reply == HTTP/1.?' 200 '* ]] && printf '%s\n' "${reply#*$'\r\n\r\n'}"
}

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
die_of_taken_port() {
    die "port $PORT is in use by another program." \
        "See which: ss -ltnp 'sport = :$PORT'" \
        "Or take another port: POTLUCK_PORT=$((PORT + 1)) ./scripts/run.sh …"
}

# make_dirs DIR…: folders that belong to OWNER.
make_dirs() {
    local dir
    for dir; do
        [[ -d $dir ]] && continue
        mkdir -p "$dir"
        own "$dir"
    done
}
own() { [[ $(id -u) != 0 ]] || chown -R "$OWNER:$GROUP" "$@"; }

# One run.sh or reset.sh at a time: a second terminal waits for the first. What is started in between
# must not inherit the descriptor. The folder itself is locked, so no file is left to clear away.
lock() {
    [[ -d $VOLUMES ]] || return 0
    exec 9<"$VOLUMES"
    flock -w 600 9 || die 'another run.sh or reset.sh is at work and does not end'
}
unlock() { exec 9>&-; }

# Names that run.sh has ever filled a share folder for: node1, node2, …
known_names() {
    [[ -d $VOLUMES/.start ]] || return 0
    find "$VOLUMES/.start" -mindepth 1 -maxdepth 1 -type d ! -name '.*' -printf '%f\n' | sort -V
}

# fill_volume NAME: its share folder as volumes/.start has it, unless there is one already.
fill_volume() {
    [[ ! -e $VOLUMES/$1 ]] || return 0
    rm -rf "$VOLUMES/.filling"
    cp -a --reflink=auto "$VOLUMES/.start/$1" "$VOLUMES/.filling"
    own "$VOLUMES/.filling"
    mv -T "$VOLUMES/.filling" "$VOLUMES/$1" # complete or not there, also after Ctrl-C
}

# Answers a Docker daemon?
have_docker() { command -v docker >/dev/null && timeout 10 docker version >/dev/null 2>&1; }

# apt_install PACKAGE…: true if they are there now.
apt_install() {
    local sudo=()
    command -v apt-get >/dev/null || return 1
    if [[ $(id -u) != 0 ]]; then
        sudo -n true 2>/dev/null || return 1
        sudo=(sudo -n)
    fi
    say "installing $*"
    quietly "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
        { quietly "${sudo[@]}" apt-get update &&
            quietly "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
}

# A Rust toolchain and a linker, or a clear word on how to get them.
need_cargo() {
    command -v cc >/dev/null || apt_install gcc libc6-dev ||
        die "no C linker (cc) was found." "Install one, e.g.: apt-get install gcc libc6-dev"
    command -v cargo >/dev/null && return
    local channel
    channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml")
    # Distributions' own cargo is mostly too old; their rustup fetches the right one.
    if apt-cache show rustup >/dev/null 2>&1 && apt_install rustup; then
        "${AS_OWNER[@]}" rustup toolchain install "$channel" && return
    fi
    die "cargo was not found: potluck is built with Rust $channel." \
        "Install it with rustup, see https://rustup.rs, and run this again."
}
