# For setup.sh and image.sh, which source it: a Python, a virtual environment of it, and a pip that installs into it.
# Which index is asked, and how, is the machine's pip and apt configuration; nothing here names one.
#
# Uses $scratch, a temporary folder of the caller's. find_python sets "python", find_installer "installer".

me=$(basename -- "$0" .sh)
say() { printf '%s: %s\n' "$me" "$*" >&2; }
fail() {
    say "$*"
    exit 2
}

is_usable() { "$1" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
version_of() { "$1" -I -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_usable "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer."
        python=$PYTHON
        return
    fi
    for candidate in python3.11 python3.12 python3.13 python3; do
        if is_usable "$candidate"; then
            python=$candidate
            return
        fi
    done
    fail "no Python 3.11 or newer found; install one (on Debian: python3.11), or name it: make setup PYTHON=..."
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
    say "this Python has no pip: taking Debian's own, for this environment only ..."
    mkdir -p "$scratch/debs"
    (
        cd "$scratch/debs"
        apt-get -qq -o APT::Sandbox::User=root download "$@" 2>/dev/null ||
            { private_apt update && private_apt download "$@"; }
    ) >&2 || return 1
    local package
    for package in "$scratch"/debs/*.deb; do dpkg-deb -x "$package" "$scratch/debian"; done
}

# Sets "installer" to the first pip that works for the environment's Python $1, best first. Where only Debian's
# packed one does, "packed_pip" names it as well.
find_installer() {
    local into=$1
    packed_pip=
    installer=("$into" -I -m pip)
    "${installer[@]}" --version >/dev/null 2>&1 && return
    installer=("$python" -I -m pip --python "$into")
    "${installer[@]}" --version >/dev/null 2>&1 && return
    packed_pip=$(compgen -G '/usr/share/python-wheels/pip-*.whl' | head -n 1) || true
    if [ -z "$packed_pip" ] && unpack_from_debian python3-pip-whl ca-certificates; then
        packed_pip=$(compgen -G "$scratch/debian/usr/share/python-wheels/pip-*.whl" | head -n 1) || true
    fi
    if [ -n "$packed_pip" ]; then
        installer=("$into" -I "$packed_pip/pip")
    elif command -v uv >/dev/null; then
        installer=(uv pip)
        export VIRTUAL_ENV=${into%/bin/*}
    else
        fail "no pip to be had for $python; install python3-venv (Debian), or any pip or uv, then repeat."
    fi
}

# Writes the certificates that came with Debian's pip to $1, on a machine that has none of its own.
lend_certificates() {
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] && [ -d "$scratch/debian" ] || return 0
    cat "$scratch"/debian/usr/share/ca-certificates/mozilla/*.crt >"$1"
}

# Lets pip trust the file $1 where the machine has neither certificates nor a setting of its own.
trust_certificates() {
    [ -e "$1" ] && [ ! -e /etc/ssl/certs/ca-certificates.crt ] || return 0
    "${installer[@]}" config list | grep '\.cert=' >/dev/null || export PIP_CERT="${PIP_CERT:-$1}"
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

# Installs what the lock $1 pins, and nothing that it does not.
install_lock() {
    local lock=$1
    shift
    say "installing $(grep -c '==' "$lock") pinned packages ..."
    install --require-hashes --only-binary :all: "$@" -r "$lock"
}
