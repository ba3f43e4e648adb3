#!/usr/bin/env bash
# What the tests need beside Python: redis-server, PostgreSQL, Chromium, and a C compiler that gives processes
# clocks of their own. real_servers.py needs the first two.
#
#   test_servers.sh [NAME...]         installs what is missing through apt, on Debian as root; costs nothing when
#                                     all is there; without names, all of them
#   test_servers.sh where [NAME...]   prints one line each: name, path ("" when it is missing), what is needed
#
# Nothing is left running: the packages' own services are neither started nor enabled, and no PostgreSQL
# cluster is made; the tests start servers of their own. Where nothing can be installed, this says what is
# missing and ends well: the tests that need it are then skipped, or fail where CI is set.
set -euo pipefail
unset CDPATH

readonly OLDEST_POSTGRESQL=13
readonly UPDATE_SECONDS=60 INSTALL_SECONDS=900 CONNECT_SECONDS=10 # a machine without network does not hang

readonly NAMES=(redis-server postgresql chromium tcc) # Debian's packages have these names
declare -rA NEEDED=(
    [redis-server]="redis-server"
    [postgresql]="PostgreSQL $OLDEST_POSTGRESQL or newer (initdb and postgres)"
    [chromium]="Chromium"
    [tcc]="a C compiler (cc, gcc, clang or tcc)"
)

say() { printf 'test servers: %s\n' "$*" >&2; }

is_postgresql() {
    local version
    [ -x "$1/initdb" ] && [ -x "$1/postgres" ] || return 1
    version=$("$1/postgres" --version 2>/dev/null) || return 1
    [[ $version =~ \ ([0-9]+) ]] && ((BASH_REMATCH[1] >= OLDEST_POSTGRESQL))
}

# Prints where a server is: the program, and for PostgreSQL the folder of its programs.
find_server() {
    local place
    case $1 in
    redis-server) type -P redis-server ;;
    tcc) type -P cc || type -P gcc || type -P clang || type -P tcc ;;
    chromium) type -P chromium || type -P chromium-browser || type -P google-chrome ;;
    postgresql)
        place=$(type -P postgres) && place=$(dirname -- "$(readlink -f -- "$place")") &&
            is_postgresql "$place" && printf '%s\n' "$place" && return
        while IFS= read -r place; do
            is_postgresql "$place" && printf '%s\n' "$place" && return
        done < <(compgen -G '/usr/lib/postgresql/*/bin' | sort -rV)
        return 1
        ;;
    esac
}

task=install
if [ "${1:-}" = where ]; then
    task=where
    shift
fi
for name in "$@"; do
    [ -n "${NEEDED[$name]:-}" ] || { say "usage: scripts/test_servers.sh [where] [NAME...], of ${NAMES[*]}"; exit 2; }
done
asked=("$@")
[ $# != 0 ] || asked=("${NAMES[@]}")

if [ "$task" = where ]; then
    for name in "${asked[@]}"; do
        printf '%s\t%s\t%s\n' "$name" "$(find_server "$name" || true)" "${NEEDED[$name]}"
    done
    exit
fi

# Sets "missing" to the names of what is not here.
look() {
    missing=()
    local name
    for name in "${asked[@]}"; do find_server "$name" >/dev/null || missing+=("$name"); done
}

look
[ ${#missing[@]} = 0 ] && exit

readonly MARK="# for the time of an installation by $(basename -- "$0")"
files=() folders=()
tidy() {
    rm -f -- "${files[@]}"
    rmdir -- "${folders[@]}" 2>/dev/null || true # a package has put something there
}

# Writes a file for the time of the installation, and its folder; what the machine has already stays as it is.
place() {
    local file=$1 folder mode=$2
    folder=$(dirname -- "$file")
    if [ -e "$file" ] && ! grep -qxF "$MARK" "$file"; then return; fi
    [ -d "$folder" ] || folders+=("$folder")
    files+=("$file")
    mkdir -p -- "$folder"
    { cat && printf '%s\n' "$MARK"; } >"$file"
    chmod "$mode" "$file"
}

# What it says is shown when it fails.
apt() {
    local seconds=$1 said
    shift
    said=$(timeout --kill-after=30 "$seconds" apt-get -qq -o "Acquire::http::Timeout=$CONNECT_SECONDS" \
        -o "Acquire::https::Timeout=$CONNECT_SECONDS" -o Acquire::Retries=1 -o DPkg::Lock::Timeout=120 \
        -o Dpkg::Use-Pty=0 "$@" 2>&1 </dev/null) && return
    printf '%s\n' "$said" >&2
    return 1
}

install_missing() {
    [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null || return 0
    say "installing ${missing[*]} through apt ..."
    trap tidy EXIT
    trap 'exit 130' INT TERM HUP
    place /usr/sbin/policy-rc.d 755 <<<$'#!/bin/sh\nexit 101' # no service is started
    place /etc/postgresql-common/createcluster.d/patrol-tests.conf 644 <<<'create_main_cluster = false'
    export DEBIAN_FRONTEND=noninteractive
    apt "$UPDATE_SECONDS" update || say "apt's lists could not be brought up to date; trying with what is here."
    apt "$INSTALL_SECONDS" install --yes --no-install-recommends "${missing[@]}" ||
        say "apt could not install all of them; the lines above say why."
    if [[ " ${missing[*]} " == *" redis-server "* ]] && command -v update-rc.d >/dev/null; then
        update-rc.d redis-server disable >/dev/null 2>&1 || true # the tests start their own
    fi
    look
}

install_missing
outcome=
if [ $# = 0 ]; then
    case ${CI:-} in
    "" | 0 | false) outcome="; tests of it will be skipped" ;;
    *) outcome="; tests of it will fail" ;;
    esac
fi
for name in "${missing[@]}"; do
    say "${NEEDED[$name]} is missing$outcome. On Debian: apt-get install $name"
done
