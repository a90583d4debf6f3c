#!/usr/bin/env bash
# Try folder sync between containers on a bridge, as people would: test-sync.sh [-h]
#
# Four peers with different folders become one; edits, renames and deletes meet; the network is cut
# into halves and healed; the tracker is killed and comes back; and containers that were told nothing
# find each other. Builds the images under a tag of their own. Needs a Docker daemon on this machine;
# cutting the network needs root and ip, and is left out, and said so, without. Removes all it made.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
parse_only_help "$@"
# shellcheck source=scripts/test-lib.sh
source "$ROOT/scripts/test-lib.sh"
export POTLUCK_TAG=sync$$
NET=${POTLUCK_PREFIX}net
NODES=(node1 node2 node3 node4)
LIMIT=120 # seconds, for whatever is waited for

containers() { docker ps -aq --filter "name=^/$POTLUCK_PREFIX"; }
clean_up_more() {
    local ids
    mapfile -t ids < <(containers)
    ((${#ids[@]} == 0)) || docker rm -fv "${ids[@]}" >/dev/null || true
    docker network rm "$NET" >/dev/null 2>&1 || true
    docker rmi -f potluck-{tracker,peer}:"$POTLUCK_TAG" >/dev/null 2>&1 || true
}
show_logs() {
    {
        local id
        for id in $(containers); do
            docker inspect -f '{{.Name}} {{.State.Status}} {{.State.ExitCode}}' "$id"
            docker logs --tail 5 "$id"
        done
        cd "$POTLUCK_LOGS" && find . -type f -printf '%p\n' -exec tail -n 25 {} \;
        cd "$POTLUCK_VOLUMES" && find . -name .potluck -prune -o -type f -printf '%p %s\n'
    } >&2
}

# container NAME IMAGE OPTION…: start it, as we are, so that what it writes is ours.
container() {
    mkdir -p "$POTLUCK_LOGS/$1"
    docker run -d --name "$POTLUCK_PREFIX$1" --hostname "$1" --network "$NET" --user "$(id -u):$(id -g)" \
        --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges:true \
        -v "$POTLUCK_LOGS/$1:/logs:z" "${@:3}" "potluck-$2:$POTLUCK_TAG" >/dev/null
}
# syncing NAME OPTION…: a peer that syncs its folder.
syncing() {
    mkdir -p "$(share "$1")"
    container "$1" peer -v "$(share "$1"):/share:z" -e "POTLUCK_NAME=$1" -e POTLUCK_SYNC=both "${@:2}"
}
is_ready() { docker logs "$POTLUCK_PREFIX$1" 2>/dev/null | grep -q '^peer .* ready on'; }
inside() { docker exec "$POTLUCK_PREFIX$1" potluck "${@:2}"; }
address() { docker inspect -f "{{(index .NetworkSettings.Networks \"$NET\").IPAddress}}" "$POTLUCK_PREFIX$1"; }

share() { echo "$POTLUCK_VOLUMES/$1"; }
put() { # NODE FILE TEXT
    local file
    file=$(share "$1")/$2
    mkdir -p "${file%/*}"
    printf '%s\n' "$3" >"$file"
}
says() { [[ $(cat "$(share "$1")/$2" 2>/dev/null) == "$3" ]]; } # NODE FILE TEXT
all_say() { # FILE TEXT
    local node
    for node in "${NODES[@]}"; do says "$node" "$@" || return 1; done
}
nowhere() { # FILE
    local node
    for node in "${NODES[@]}"; do [[ ! -e $(share "$node")/$1 ]] || return 1; done
}

# Each file with its modification time, and x if it is a program.
times_and_modes() {
    (cd "$(share "$1")" && find . -name .potluck -prune -o -type f \
        \( -perm -u+x -printf '%P %T@ x\n' -o -printf '%P %T@\n' \) | sort)
}
same() { # NODE NODE…
    local other
    for other in "${@:2}"; do
        diff -r -x .potluck "$(share "$1")" "$(share "$other")" >/dev/null 2>&1 || return 1
        [[ $(times_and_modes "$1") == "$(times_and_modes "$other")" ]] || return 1
    done
}
# become_same COMMAND…: all four get the same, of which this is true.
is_same_and() { "$@" && same "${NODES[@]}"; }
become_same() { wait_until "$LIMIT" is_same_and "$@"; }
both_kept() { # NODE FILE TEXT TEXT: as two files, of which one has the name
    local found
    found=$(cd "$(share "$1")" && cat "$2" "${2%.*}".conflict-* 2>/dev/null | sort)
    [[ $found == "$(printf '%s\n' "${@:3}" | sort)" ]]
}
one_tracker() { # NODE NODE: the one that both of them use, hosted by one of them
    local url
    url=$(inside "$1" --json status | grep -o '"url": *"[^"]*"') || return 1
    [[ $(wc -l <<<"$url") == 1 && $url == "$(inside "$2" --json status | grep -o '"url": *"[^"]*"')" ]]
}

# cut_off [-d] NODE NODE: nothing goes between these two, silently, as when a cable is pulled: each sends to a
# hardware address that nobody has. With -d it goes again.
cut_off() {
    local how=replace more=(lladdr 02:00:00:00:00:99 nud permanent) from to
    [[ $1 != -d ]] || { how=del more=() && shift; }
    for from in "$1:$2" "$2:$1"; do
        to=$(address "${from#*:}")
        nsenter -t "$(docker inspect -f '{{.State.Pid}}' "$POTLUCK_PREFIX${from%:*}")" -n \
            ip neigh "$how" "$to" "${more[@]}" dev eth0 || return 1
    done
}
halves() { # [-d]
    local left right
    for left in tracker node1 node2; do
        for right in node3 node4; do cut_off "$@" "$left" "$right" || return 1; done
    done
}

start_nodes() {
    local node
    container tracker tracker -p "127.0.0.1:$POTLUCK_PORT:7700" -v /data || return 1
    for node in "${NODES[@]}"; do
        put "$node" "$node.txt" "brought by $node"
        put "$node" "dishes/of-$node/recipe.txt" "a recipe of $node"
        put "$node" menu.txt "the same on all" # equal content is no conflict
        touch -d @1700000000 "$(share "$node")/menu.txt"
        syncing "$node" -e POTLUCK_TRACKER=http://tracker:7700 || return 1
    done
}
fill_more() {
    head -c 5000000 /dev/urandom >"$(share node2)/large.bin"
    put node3 tools/run.sh '#!/bin/sh'
    chmod +x "$(share node3)/tools/run.sh"
    mkdir "$(share node4)/empty"
}
has_everything() {
    local node
    for node in "${NODES[@]}"; do all_say "$node.txt" "brought by $node" || return 1; done
    all_say tools/run.sh '#!/bin/sh' && [[ -x $(share node1)/tools/run.sh && -d $(share node1)/empty ]] &&
        [[ $(find "$(share node1)" -name .potluck -prune -o -type f -print | wc -l) == 11 ]]
}
all_at_once() {
    put node1 menu.txt 'another menu' &
    mv "$(share node2)/dishes/of-node1" "$(share node2)/dishes/renamed" &
    rm "$(share node3)/node4.txt" &
    put node4 dishes/new.txt 'a new dish' &
    wait
}
has_all_of_it() {
    all_say menu.txt 'another menu' && all_say dishes/renamed/recipe.txt 'a recipe of node1' &&
        nowhere dishes/of-node1 && nowhere node4.txt && all_say dishes/new.txt 'a new dish'
}
halves_agree() {
    says node2 left.txt 'from the left' && says node4 right.txt 'from the right' &&
        says node2 menu.txt 'menu of the left' && says node4 menu.txt 'menu of the right'
}
# is_healed: F27: what both halves edited is there twice, what one deleted is nowhere, what one made is everywhere.
is_healed() {
    both_kept node1 menu.txt 'menu of the left' 'menu of the right' && nowhere node1.txt && nowhere node3.txt &&
        all_say left.txt 'from the left' && all_say right.txt 'from the right'
}
# all_remembered: each knows the three others, whom to ask when the tracker is gone.
all_remembered() {
    local node other known
    for node in "${NODES[@]}"; do
        known=$(cat "$(share "$node")"/.potluck/peers.* 2>/dev/null | tr -d '\0') || return 1
        for other in "${NODES[@]}"; do
            [[ $other == "$node" || $known == *"\"name\":\"$other\""* ]] || return 1
        done
    done
}
try_halves() {
    check 'all remember each other' wait_until "$LIMIT" all_remembered
    check 'the network is cut into halves' halves
    put node1 menu.txt 'menu of the left'
    put node1 left.txt 'from the left'
    rm "$(share node2)/node3.txt"
    put node3 menu.txt 'menu of the right'
    put node4 node4-again.txt 'while cut'
    put node3 right.txt 'from the right'
    rm "$(share node4)/node1.txt"
    check '… each half goes on, also the one without a tracker' wait_until "$LIMIT" halves_agree
    check '… and nothing went across' says node1 node1.txt 'brought by node1'
    check 'the network is healed' halves -d
    check '… all are the same, both edits of one file are kept, deletes stay' become_same is_healed
}

check 'the images are packed' quietly "$ROOT/scripts/config.sh" -nr
rest_disk
docker network create "$NET" >/dev/null
check 'a tracker and four peers with different folders' start_nodes
fill_more
check '… end with the same' become_same has_everything
all_at_once
check 'an edit, a rename, a delete and a new file on different peers at once' become_same has_all_of_it

if [[ $(id -u) == 0 ]] && command -v ip >/dev/null || { [[ $(id -u) == 0 ]] && apt_install iproute2; }; then
    try_halves
else
    echo 'SKIPPED cutting the network into halves: needs root and ip (iproute2)' >&2
fi

docker kill "${POTLUCK_PREFIX}tracker" >/dev/null
put node2 dishes/new.txt 'edited without a tracker'
rm "$(share node4)/large.bin"
without_tracker() { all_say dishes/new.txt 'edited without a tracker' && nowhere large.bin; }
check 'the tracker is killed: sync goes on' become_same without_tracker
docker start "${POTLUCK_PREFIX}tracker" >/dev/null
check 'it comes back: all peers join again' wait_until "$LIMIT" has_peers 4
put node3 back.txt 'with a tracker again'
check '… and sync goes on' become_same all_say back.txt 'with a tracker again'
check '… through it' wait_until "$LIMIT" lists back.txt

put guest1 one.txt 'of guest1'
put guest2 two.txt 'of guest2'
syncing guest1
check 'a peer that was told nothing hosts a tracker' wait_until "$LIMIT" is_ready guest1
syncing guest2
guests() { says guest1 two.txt 'of guest2' && same guest1 guest2; }
check '… a second one finds it, and they sync' wait_until "$LIMIT" guests
check '… with one tracker' wait_until "$LIMIT" one_tracker guest1 guest2
put twin1 one.txt 'of twin1'
put twin2 two.txt 'of twin2'
syncing twin1 -e POTLUCK_SWARM=twins &
syncing twin2 -e POTLUCK_SWARM=twins &
wait
twins() { says twin1 two.txt 'of twin2' && says twin2 one.txt 'of twin1' && same twin1 twin2; }
check 'two that start at once end in one swarm and sync' wait_until "$LIMIT" twins
check '… with one tracker' wait_until "$LIMIT" one_tracker twin1 twin2
check '… and the swarms stay apart' says guest1 one.txt 'of guest1'
echo "test-sync.sh: $N_CHECKS checks passed"
