#!/usr/bin/env bash
# Builds .venv from the hash-pinned lock: "setup.sh run" for the service, "setup.sh test" for the tests too.
#
# Every make target calls this first, so a finished .venv costs a few milliseconds: a stamp inside it says what
# it was built from. Needs a Python >= 3.11 and nothing else; no root. A machine without ensurepip (a bare
# Debian) lends its own signed pip package, unpacked into a temporary folder. Which index is asked, and how, is
# the machine's pip and apt configuration; nothing here names one.
set -euo pipefail
unset CDPATH PYTHONHOME PYTHONPATH
: "${HOME:=~}" # pip would make a folder named "~" here; the shell knows the home from the user database
export HOME

cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
root=$PWD
python_in_venv=$root/.venv/bin/python

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 2
}

kind=${1:-run}
case $kind in
run) lock=requirements.lock ;;
test) lock=requirements-test.lock ;;
*) fail "usage: scripts/setup.sh [run|test]" ;;
esac

is_usable() { "$1" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
version_of() { "$1" -I -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

# What a finished environment of this kind is made of. The folder counts: scripts in .venv hold its full path.
key_of() {
    {
        cat "$1" pyproject.toml scripts/setup.sh
        printf '%s\n' "$root" "$(version_of "$python_in_venv")"
    } | sha256sum
}
is_built() { [ -r ".venv/.built-$1" ] && [ "$(<".venv/.built-$1")" = "$(key_of "$2")" ]; }
is_asked_python() { [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$python_in_venv")" ]; }

is_asked_python && is_built "$kind" "$lock" && exit 0

[ -w . ] || fail "$root cannot be written by $(id -un 2>/dev/null || id -u); make setup builds .venv there."
[ ! -e .venv ] || [ -w .venv/. ] || fail "$root/.venv belongs to another user; remove it, or run as that user."
if command -v flock >/dev/null; then
    exec 9<.
    flock 9 # two makes at once: the second waits, then finds everything built
    is_asked_python && is_built "$kind" "$lock" && exit 0
fi

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
export TMPDIR=$scratch

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_usable "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer."
        printf '%s' "$PYTHON"
        return
    fi
    for candidate in python3.11 python3.12 python3.13 python3; do
        if is_usable "$candidate"; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer found; install one (on Debian: python3.11), or name it: make setup PYTHON=..."
}

make_venv() {
    say "making .venv with $("$python" -V) ..."
    rm -rf .venv
    if ! "$python" -I -c 'import ensurepip' 2>/dev/null || ! "$python" -I -m venv .venv >/dev/null 2>&1; then
        rm -rf .venv
        "$python" -I -m venv --without-pip .venv
    fi
    printf '%s' "$root" >.venv/.root
}

# apt-get with lists and cache of its own, so that neither root nor a filled package cache is needed.
private_apt() {
    mkdir -p "$scratch"/apt/{state/lists,cache/archives}/partial
    apt-get -qq -o Dir::State="$scratch/apt/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$scratch/apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}

# Unpacks Debian packages, checked by apt against Debian's keys, into the scratch folder; installs nothing.
unpack_from_debian() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    say "this Python has no pip: taking Debian's own, for .venv only ..."
    mkdir -p "$scratch/debs"
    (
        cd "$scratch/debs"
        apt-get -qq -o APT::Sandbox::User=root download "$@" 2>/dev/null ||
            { private_apt update && private_apt download "$@"; }
    ) >&2 || return 1
    local package
    for package in "$scratch"/debs/*.deb; do dpkg-deb -x "$package" "$scratch/debian"; done
}

# Sets "installer" to the first pip that works, best first.
find_installer() {
    local wheel
    installer=("$python_in_venv" -I -m pip)
    "${installer[@]}" --version >/dev/null 2>&1 && return
    installer=("$python" -I -m pip --python "$python_in_venv")
    "${installer[@]}" --version >/dev/null 2>&1 && return
    wheel=$(compgen -G '/usr/share/python-wheels/pip-*.whl' | head -n 1) || true
    if [ -z "$wheel" ]; then
        if unpack_from_debian python3-pip-whl ca-certificates; then
            wheel=$(compgen -G "$scratch/debian/usr/share/python-wheels/pip-*.whl" | head -n 1) || true
        fi
    fi
    if [ -n "$wheel" ]; then
        # Debian's pip trusts the system's certificates; a machine without any gets the package's own.
        if [ ! -e /etc/ssl/certs/ca-certificates.crt ] && [ -d "$scratch/debian" ]; then
            cat "$scratch"/debian/usr/share/ca-certificates/mozilla/*.crt >.venv/ca-certificates.crt
        fi
        "$python_in_venv" -I "$wheel/pip" -qq --disable-pip-version-check install --no-index --no-deps "$wheel"
        installer=("$python_in_venv" -I -m pip)
    elif command -v uv >/dev/null; then
        installer=(uv pip)
        export VIRTUAL_ENV=$root/.venv
    else
        fail "no pip to be had for $python; install python3-venv (Debian), or any pip or uv, then repeat."
    fi
}

# Runs the installer's "install" quietly; its errors are shown.
install() {
    if [ "${installer[0]}" = uv ]; then
        uv pip install --quiet "$@"
    else
        # A user's "user = true" would contradict a virtual environment.
        PIP_USER=0 "${installer[@]}" install -qq --disable-pip-version-check --no-input "$@"
    fi
}

# A set-up that was killed may leave half a package behind; one that failed by itself does not.
if ! is_usable "$python_in_venv" || ! is_asked_python || [ -e .venv/.unfinished ] ||
    { [ -e .venv/.root ] && [ "$(<.venv/.root)" != "$root" ]; }; then
    python=$(find_python)
    make_venv
else
    python=$("$python_in_venv" -I -c 'import sys; print(sys._base_executable)')
fi
rm -f .venv/.built-*
find_installer
if [ -e .venv/ca-certificates.crt ] && [ ! -e /etc/ssl/certs/ca-certificates.crt ] &&
    ! "${installer[@]}" config list | grep '\.cert=' >/dev/null; then # the machine's own setting counts more
    export PIP_CERT="${PIP_CERT:-$root/.venv/ca-certificates.crt}"
fi

give_up() {
    rm -f .venv/.unfinished
    fail "$*"
}
touch .venv/.unfinished
say "installing $(grep -c '==' "$lock") pinned packages into .venv ..."
started=$SECONDS
install --require-hashes --only-binary :all: -r "$lock" ||
    give_up "the packages of $lock could not be installed; the lines above say why."
# The project itself: from this folder, with the build tool the lock has just brought, without any index.
PIP_REQUIRE_HASHES=0 install --no-index --no-deps --no-build-isolation -e . ||
    give_up "the project could not be installed into .venv; the lines above say why."

[ "$kind" = run ] || key_of requirements.lock >.venv/.built-run # the test lock holds the other one whole
key_of "$lock" >".venv/.built-$kind"
rm -f .venv/.unfinished
say "done in $((SECONDS - started)) s."
