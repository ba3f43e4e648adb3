#!/usr/bin/env bash
# The steps that worker.Dockerfile is made of; tests/image/ runs the same ones in a bare directory.
#
#   image.sh build DEST      an environment with the hash-pinned packages of requirements.lock
#   image.sh install DEST    Patrol into it, as a wheel; then what only building needs is removed, all is compiled
#   image.sh system          in an image only: git, the user "patrol", and no pip any more
#
# DEST is where it will run: its scripts hold the full path. It is read-only for all but its owner.
set -euo pipefail
unset CDPATH PYTHONHOME PYTHONPATH
: "${HOME:=~}"
export HOME

cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
. scripts/python_env.sh

# The group "build" of pyproject.toml, with what it alone brings; the test would find another one's.
readonly BUILD_ONLY=(hatchling editables pathspec pluggy tomlkit trove-classifiers)
readonly USER_ID=10001

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
export TMPDIR=$scratch PIP_NO_CACHE_DIR="${PIP_NO_CACHE_DIR:-1}" PYTHONDONTWRITEBYTECODE=1

build() {
    [ ! -e "$dest/pyvenv.cfg" ] || fail "$dest holds an environment already; name another folder."
    find_python
    "$python" -I -m venv --without-pip "$dest"
    find_installer "$dest/bin/python"
    lend_certificates "$scratch/ca-certificates.crt"
    trust_certificates "$scratch/ca-certificates.crt"
    install_lock requirements.lock --no-compile || fail "the packages could not be installed; the lines above say why."
}

install_project() {
    python=$("$dest/bin/python" -I -c 'import sys; print(sys._base_executable)')
    find_installer "$dest/bin/python"
    # From a copy: building leaves nothing behind, and the source may be read-only.
    mkdir "$scratch/source"
    cp -R pyproject.toml README.md LICENSE notifier scanner "$scratch/source"
    find "$scratch/source" -name __pycache__ -prune -exec rm -rf {} +
    PIP_REQUIRE_HASHES=0 install --no-index --no-deps --no-build-isolation --no-compile "$scratch/source" ||
        fail "the project could not be installed; the lines above say why."
    local remove=("${installer[@]}" uninstall --quiet)
    [ "${installer[0]}" = uv ] || remove+=(--yes)
    "${remove[@]}" "${BUILD_ONLY[@]}"
    # Where the project came from: a temporary folder's name is nobody's business.
    rm -f -- "$dest"/lib/python*/site-packages/pat_patrol-*.dist-info/direct_url.json
    # Not by time: a copied file may have another one, and nobody could write the new bytecode.
    "$dest/bin/python" -I -m compileall -q -j 0 --invalidation-mode unchecked-hash "$dest"/lib/python*/site-packages
    chmod -R u=rwX,go=rX "$dest"
}

system() {
    [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] || fail "system is for an image of Debian's, as root."
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends git
    rm -rf /var/lib/apt/lists/*
    groupadd --gid "$USER_ID" patrol
    useradd --uid "$USER_ID" --gid patrol --home-dir /data --no-create-home --shell /usr/sbin/nologin patrol
    mkdir --mode=1777 /data # whatever user it runs as, and whatever is mounted there takes it over
    rm -rf /usr/local/bin/pip* /usr/local/lib/python*/ensurepip /usr/local/lib/python*/site-packages/{pip,setuptools,wheel}*
}

dest=${2:-}
case "${1:-} $#" in
"build 2") build ;;
"install 2") install_project ;;
"system 1") system ;;
*) fail "usage: scripts/image.sh build DEST | install DEST | system" ;;
esac
