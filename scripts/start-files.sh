#!/usr/bin/env bash
# Make the files that peers start with: start-files.sh [-h] NAME…
#
# For each NAME that has none yet, volumes/.start/NAME gets small files of several kinds, different
# for each name, and "house rules.txt", the same for all. node2, node3 and node4 also get
# banquet.bin, 64 MiB, so that node1 can fetch it from three owners at once. Nothing is downloaded
# and nothing is random: the same names always get the same bytes (on one machine).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

START=$VOLUMES/.start

dish_of() {
    case $1 in
    node1) echo 'crème brûlée' ;;
    node2) echo 'sourdough bread' ;;
    node3) echo 'lentil salad' ;;
    node4) echo 'minestrone' ;;
    *) echo "surprise of $1" ;;
    esac
}

recipe() {
    printf '# %s\n\nBrought by %s, for eight.\n\n' "$(dish_of "$1")" "$1"
    printf -- '- take what the garden gives\n- salt it with care\n- serve it while it is warm\n'
}

# guests NAME: a table whose numbers depend on the name.
guests() {
    awk -v seed="$(cksum <<<"$1" | cut -d' ' -f1)" 'BEGIN {
        x = seed % 2147483647
        print "guest,plates,minutes"
        for (i = 1; i <= 500; i++) {
            x = (x * 16807) % 2147483647
            printf "guest-%03d,%d,%d\n", i, 1 + x % 5, 10 + x % 170
        }
    }'
}

picture() {
    local hue=$(($(cksum <<<"$1" | cut -d' ' -f1) % 360))
    printf '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
    printf '<circle cx="50" cy="50" r="48" fill="hsl(%d 60%% 80%%)"/><circle cx="50" cy="50" r="34" fill="white"/>' "$hue"
    printf '<text x="50" y="54" font-size="9" text-anchor="middle">%s</text></svg>\n' "$1"
}

# A second of a rising tone: WAV, 8 bit, 8 kHz. The samples avoid the byte 0, which not every awk
# can print.
toast() {
    printf 'RIFF\x64\x1f\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x40\x1f\x00\x00\x01\x00\x08\x00data\x40\x1f\x00\x00'
    LC_ALL=C awk 'BEGIN { for (t = 0; t < 8000; t++) printf "%c", int(128 + 100 * sin(t * (0.1 + t / 40000))) }'
}

# 64 MiB in which no two chunks are alike. openssl takes a tenth of a second, awk a few.
banquet() {
    local mib=64
    if command -v openssl >/dev/null; then
        head -c $((mib << 20)) /dev/zero |
            openssl enc -aes-128-ctr -nosalt -K 706f746c75636b000000000000000000 -iv 00000000000000000000000000000000
    else
        awk -v lines=$((mib << 17)) 'BEGIN { x = 7700; for (i = 0; i < lines; i++) { x = (x * 16807) % 2147483647; printf "%07x\n", x % 268435456 } }'
    fi
}

house_rules() {
    printf '%s\n' 'Everyone brings something to the table.' 'Everyone eats from every dish.' 'Nobody counts.'
}

make_files() {
    local name=$1 dir=$2
    mkdir -p "$dir/recipes" "$dir/guests" "$dir/pictures"
    recipe "$name" >"$dir/recipes/$(dish_of "$name").md"
    guests "$name" >"$dir/guests/$name.csv"
    picture "$name" >"$dir/pictures/$name.svg"
    house_rules >"$dir/house rules.txt"
    case $name in
    node1) guests everyone | gzip -n >"$dir/guests/everyone.csv.gz" ;;
    node3) tar -czf "$dir/scripts.tar.gz" -C "$ROOT" scripts ;;
    node4) toast >"$dir/toast.wav" ;;
    esac
    case $name in
    node2 | node3 | node4)
        [[ -e $START/.banquet.bin ]] || { banquet >"$START/.making" && mv "$START/.making" "$START/.banquet.bin"; }
        ln "$START/.banquet.bin" "$dir/banquet.bin"
        ;;
    esac
}

case ${1:-} in
-h | --help) help && exit 0 ;;
'') bad_usage 'no name given' ;;
esac
make_dirs "$VOLUMES" "$START"
for name; do
    [[ ! -e $START/$name ]] || continue
    rm -rf "$START/.new"
    make_files "$name" "$START/.new"
    mv -T "$START/.new" "$START/$name" # complete or not there, also after Ctrl-C
    own "$START/$name"
done
