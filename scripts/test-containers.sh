#!/usr/bin/env bash
# Try potluck in containers, as a person would: test-containers.sh [-h]
#
# Builds the images under a tag of their own and runs docker-compose.yml with its own project name,
# container names, port and folders, so it may run beside a potluck in use. Needs a Docker daemon
# and docker compose or docker-compose. Removes everything it made.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
parse_only_help "$@"
# shellcheck source=scripts/test-lib.sh
source "$ROOT/scripts/test-lib.sh"
export POTLUCK_TAG=test$$
# Root would own everything anyway; another uid shows that ownership is really passed on.
[[ $(id -u) != 0 ]] || export POTLUCK_UID=12345 POTLUCK_GID=12345
# shellcheck source=scripts/lib.sh
source "$ROOT/scripts/lib.sh" # again, for the settings above
# shellcheck source=scripts/containers.sh
source "$ROOT/scripts/containers.sh"

clean_up_more() { docker rmi -f potluck-{tracker,peer,build}:"$TAG" >/dev/null 2>&1 || true; }
show_logs() { local c; for c in $(docker ps -aq --filter "name=$PREFIX"); do docker inspect -f '{{.Name}} {{json .State}}' "$c"; docker logs --tail 15 "$c"; done >&2; }

# inside NAME ARGUMENTS…: the program in that container, without a flag.
inside() { docker exec "$PREFIX$1" potluck "${@:2}"; }
all_healthy() { local name; for name; do is_healthy "$name" || return 1; done; }
no_stranger_in() { [[ -z $(find "$@" ! -uid "$OWNER" -print -quit) ]]; }
is_hardened() { [[ $(docker inspect -f '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}}' "$PREFIX$1") == "true [ALL] $OWNER:$GROUP" ]]; }
none_runs() { [[ -z $(docker ps -q --filter "name=$PREFIX") ]]; }
# Some of a content is there, with the record to go on from.
has_begun() { (($(find "$POTLUCK_VOLUMES/$1/.potluck/partial" -type f | wc -l) > 1)); }
nothing_left() { [[ -z $(docker ps -aq --filter "name=$PREFIX" ; docker network ls -q --filter "name=$COMPOSE_PROJECT_NAME") ]]; }
# A terminal in the container: docker exec -it wants one on our side, which script(1) provides.
on_a_terminal() { script -qec "docker exec -it $PREFIX$1 potluck ${*:2}" /dev/null </dev/null; }

check 'config.sh builds the images' quietly "$ROOT/scripts/config.sh"
rest_disk
check 'run.sh -n 4 starts tracker and peers' run -n 4
check 'all are healthy' all_healthy tracker node1 node2 node3 node4
check 'peers run unprivileged on a read-only root' is_hardened node1
check 'banquet.bin has three owners' wait_until 120 has_owners banquet.bin 3
check '/v1/files lists it' lists banquet.bin
check 'docker exec node1 potluck download' inside node1 download banquet.bin
check '… has the right bytes' same_bytes "$POTLUCK_VOLUMES/node1/banquet.bin" "$POTLUCK_VOLUMES/.start/node2/banquet.bin"
check '… from three owners' wait_until 120 log_names_owners node1 banquet.bin node2 node3 node4
check 'docker exec -it attaches' on_a_terminal node1 status
check 'what containers wrote belongs to us' no_stranger_in "$POTLUCK_VOLUMES/node1" "$POTLUCK_LOGS/node1" "$POTLUCK_LOGS/tracker"

check 'a fifth peer' run -n 5
docker kill --signal KILL "${PREFIX}node3" >/dev/null
check 'it downloads although an owner was just killed' inside node5 download banquet.bin
check '… the right bytes' same_bytes "$POTLUCK_VOLUMES/node5/banquet.bin" "$POTLUCK_VOLUMES/.start/node2/banquet.bin"
check 'run.sh brings the killed peer back' run -n 5

# F54: everything is killed at once, in the middle of a download, and started again as it stands.
check 'a sixth peer' run -n 6
check '… that downloads slowly' inside node6 limit down 2M
docker exec -d "${PREFIX}node6" potluck download banquet.bin
check '… and has begun' wait_until 60 has_begun node6
mapfile -t everything < <(docker ps -q --filter "name=$PREFIX")
docker kill --signal KILL "${everything[@]}" >/dev/null
check 'all containers killed at once' none_runs
check '… in the middle of that download' gone "$POTLUCK_VOLUMES/node6/banquet.bin"
docker start "${everything[@]}" >/dev/null
check 'started again, all peers come back' wait_until 120 has_peers 6
check '… and the download ends by itself' wait_until 120 has_owners banquet.bin 6
check '… with the right bytes' same_bytes "$POTLUCK_VOLUMES/node6/banquet.bin" "$POTLUCK_VOLUMES/.start/node2/banquet.bin"

check '--scale peer=3' quietly compose up -d --no-build --scale peer=3
check '… and all three join' wait_until 120 has_peers 9

docker restart "${PREFIX}tracker" >/dev/null
check 'all peers come back to a restarted tracker' wait_until 120 has_peers 9
check '… and with them all owners of banquet.bin' wait_until 120 has_owners banquet.bin 6

check 'reset.sh -v' quietly "$ROOT/scripts/reset.sh" -v
check '… leaves no container and no network' nothing_left
check '… and the share folder as it was' diff -r "$POTLUCK_VOLUMES/node1" "$POTLUCK_VOLUMES/.start/node1"
echo "test-containers.sh: $N_CHECKS checks passed"
