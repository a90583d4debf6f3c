#!/usr/bin/env bash
# Everything that is checked before a change lands: test.sh [-h]
#
# Format, lints, tests, documentation, dependencies, shell scripts, and potluck started for real as
# processes and in containers. Installs what it can; what cannot run here is named on a line that
# starts with SKIPPED. Goes on after a failure and ends non-zero if there was one.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
parse_only_help "$@"
cd "$ROOT"

PASSED=()
FAILED=()
SKIPPED=()

# step NAME COMMAND…
step() {
    local name=$1 began=$SECONDS
    shift
    printf '\n=== %s: %s\n' "$name" "$*"
    if "$@"; then
        PASSED+=("$name")
        printf -- '--- %s: ok after %d s\n' "$name" $((SECONDS - began))
    else
        FAILED+=("$name")
        printf -- '--- %s: FAILED after %d s\n' "$name" $((SECONDS - began))
    fi
}
skip() { # NAME WHY
    SKIPPED+=("$1")
    printf '\nSKIPPED %s: %s\n' "$1" "$2"
}

check_scripts() {
    if command -v shellcheck >/dev/null || apt_install shellcheck; then
        step shellcheck shellcheck -x .ci/run scripts/*.sh docker/*.sh
    else
        skip shellcheck 'not installed (apt-get install shellcheck)'
    fi
}

# Where a developer keeps the checkout is nobody's business, and true on no other machine.
no_paths_of_one_machine() { ! git grep -nIE '(^|[^[:alnum:]_.-])/(work|root)/' -- . ':!*.lock'; }
check_paths() {
    if git rev-parse --git-dir >/dev/null 2>&1; then
        step paths no_paths_of_one_machine
    else
        skip paths 'not a git checkout'
    fi
}

# Real clients, and shells that are completed in, which the tests name as SKIPPED where they are missing.
install_clients() {
    local missing=()
    command -v curl >/dev/null || missing+=(curl)
    command -v wget >/dev/null || missing+=(wget)
    command -v aria2c >/dev/null || missing+=(aria2)
    command -v transmission-cli >/dev/null || missing+=(transmission-cli)
    /usr/bin/python3 -c 'import libtorrent' 2>/dev/null || missing+=(python3-libtorrent)
    command -v zsh >/dev/null || missing+=(zsh)
    command -v fish >/dev/null || missing+=(fish)
    command -v strace >/dev/null || missing+=(strace)
    ((${#missing[@]} == 0)) || apt_install "${missing[@]}" || skip clients "cannot be installed: ${missing[*]}"
}

# The tests of the pages say SKIPPED by themselves where there is no browser.
need_browser() {
    { command -v chromium && command -v chromedriver; } >/dev/null || apt_install chromium chromium-driver ||
        skip pages 'no Chromium (apt-get install chromium chromium-driver)'
}

check_rust() {
    need_browser
    step format cargo fmt --all --check
    step clippy cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
    step tests cargo test --locked --workspace --all-features --no-fail-fast
    step docs env RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --all-features --no-deps
}

check_dependencies() {
    if cargo deny --version >/dev/null 2>&1; then
        step dependencies cargo deny check bans licenses sources
        if quietly cargo deny fetch db; then
            step advisories cargo deny check advisories
        else
            skip advisories 'the advisory database cannot be fetched'
        fi
    else
        skip dependencies 'cargo-deny is not installed (cargo install cargo-deny)'
    fi
}

# The debug build is there after the tests; run.sh's own release build would take minutes more.
check_local() {
    step build cargo build --locked --workspace --bins
    step local env "POTLUCK_BIN=$TARGET_DIR/debug" scripts/test-local.sh
}

# Installed and run as a user would; the debug build again.
check_package() {
    if command -v dpkg-deb >/dev/null || apt_install dpkg; then
        step package env "POTLUCK_BIN=$TARGET_DIR/debug" scripts/test-package.sh
    else
        skip package 'this is no Debian: dpkg-deb is not there'
    fi
}

# The schemas come with a Python package, into a place of its own.
check_kubernetes() {
    local venv=$TARGET_DIR/tools/kubernetes-validate
    if [[ -x $venv/bin/python ]] || { { command -v python3 >/dev/null && python3 -c 'import ensurepip' || apt_install python3-venv; } 2>/dev/null &&
        quietly python3 -m venv "$venv" && quietly "$venv/bin/pip" install kubernetes-validate==1.37.0; }; then
        step kubernetes "$venv/bin/python" kubernetes/check.py kubernetes/potluck.yaml
    else
        rm -rf "$venv"
        skip kubernetes 'the package kubernetes-validate cannot be installed'
    fi
}

check_containers() {
    # shellcheck source=scripts/containers.sh
    if ! have_docker; then
        skip containers 'no Docker daemon answers'
    elif ! (source scripts/containers.sh && have_compose); then
        skip containers 'neither "docker compose" nor docker-compose is installed'
    else
        step containers scripts/test-containers.sh
    fi
    if have_docker; then
        step sync scripts/test-sync.sh
    else
        skip sync 'no Docker daemon answers'
    fi
}

need_cargo
check_scripts
check_paths
install_clients
check_rust
check_dependencies
check_local
check_package
check_kubernetes
check_containers

printf '\nafter %d s\n' "$SECONDS"
for name in "${FAILED[@]}"; do echo "FAILED  $name"; done
for name in "${SKIPPED[@]}"; do echo "SKIPPED $name"; done
echo "${#PASSED[@]} passed, ${#FAILED[@]} failed, ${#SKIPPED[@]} skipped"
((${#FAILED[@]} == 0))
