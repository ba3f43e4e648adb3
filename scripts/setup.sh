#!/usr/bin/env bash
# Builds .venv from the hash-pinned lock: "setup.sh run" for the service, "setup.sh test" for the tests too.
#
# Every make target calls this first, so a finished .venv costs a few milliseconds: a stamp inside it says what
# it was built from. Needs a Python >= 3.11 and nothing else; no root. A machine without ensurepip (a bare
# Debian) lends its own signed pip package, unpacked into a temporary folder.
set -euo pipefail
unset CDPATH PYTHONHOME PYTHONPATH
: "${HOME:=~}" # pip would make a folder named "~" here; the shell knows the home from the user database
export HOME

cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
root=$PWD
python_in_venv=$root/.venv/bin/python

. scripts/python_env.sh

kind=${1:-run}
case $kind in
run) lock=requirements.lock ;;
test) lock=requirements-test.lock ;;
*) fail "usage: scripts/setup.sh [run|test]" ;;
esac

# What a finished environment of this kind is made of. The folder counts: scripts in .venv hold its full path.
key_of() {
    {
        cat "$1" pyproject.toml scripts/setup.sh scripts/python_env.sh
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

make_venv() {
    say "making .venv with $("$python" -V) ..."
    rm -rf .venv
    if ! "$python" -I -c 'import ensurepip' 2>/dev/null || ! "$python" -I -m venv .venv >/dev/null 2>&1; then
        rm -rf .venv
        "$python" -I -m venv --without-pip .venv
    fi
    printf '%s' "$root" >.venv/.root
}

# A set-up that was killed may leave half a package behind; one that failed by itself does not.
if ! is_usable "$python_in_venv" || ! is_asked_python || [ -e .venv/.unfinished ] ||
    { [ -e .venv/.root ] && [ "$(<.venv/.root)" != "$root" ]; }; then
    find_python
    make_venv
else
    python=$("$python_in_venv" -I -c 'import sys; print(sys._base_executable)')
fi
rm -f .venv/.built-*
find_installer "$python_in_venv"
lend_certificates .venv/ca-certificates.crt
if [ -n "$packed_pip" ]; then # for the next time, and for its user
    "${installer[@]}" -qq --disable-pip-version-check install --no-index --no-deps "$packed_pip"
    installer=("$python_in_venv" -I -m pip)
fi
trust_certificates "$root/.venv/ca-certificates.crt"

give_up() {
    rm -f .venv/.unfinished
    fail "$*"
}
touch .venv/.unfinished
started=$SECONDS
install_lock "$lock" ||
    give_up "the packages of $lock could not be installed; the lines above say why."
# The project itself: from this folder, with the build tool the lock has just brought, without any index.
PIP_REQUIRE_HASHES=0 install --no-index --no-deps --no-build-isolation -e . ||
    give_up "the project could not be installed into .venv; the lines above say why."

[ "$kind" = run ] || key_of requirements.lock >.venv/.built-run # the test lock holds the other one whole
key_of "$lock" >".venv/.built-$kind"
rm -f .venv/.unfinished
say "done in $((SECONDS - started)) s."
