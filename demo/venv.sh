#!/usr/bin/env bash
# Makes .venv from the lock. Needs Python 3.11 or newer; installs the venv module where Debian left it out.
# Interrupted, it is called again and goes on.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
install() {
  echo "setup: installing $*"
  dpkg --configure -a >/dev/null # an interrupted installation first
  apt-get -qq -o DPkg::Lock::Timeout=120 update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=120 install \
    --no-install-recommends "$@" >/dev/null
}

python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null && [ -z "${PYTHON:-}" ] && as_root; then
  install python3 python3-venv
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "setup: $python is missing or older than 3.11; install Python 3.11 or newer (PYTHON=… names it)" >&2
  exit 2
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  if as_root; then
    install python3-venv
  else
    echo "setup: $python has no venv module; install it: apt-get install python3-venv" >&2
    exit 2
  fi
fi
.venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
unfetched() {
  echo "setup: the packages could not be fetched, see above; connect this machine to PyPI, or name a mirror:" \
    "PIP_INDEX_URL=… UV_DEFAULT_INDEX=… make setup" >&2
  exit 2
}
# The packages of a lock with these names, hashes included.
locked() { awk -v names=" $* " '/^[a-z0-9]/ { split($1, n, "=="); keep = index(names, " " n[1] " ") } keep' requirements.txt; }
.venv/bin/uv --version >/dev/null 2>&1 ||
  locked uv | .venv/bin/pip install -qq --force-reinstall --require-hashes -r /dev/stdin || unfetched
echo "setup: installing the locked packages into .venv"
install_locked() { .venv/bin/uv pip install -q --python .venv/bin/python "$@" || unfetched; }
# Hundreds of processes import them, three at once in the tests alone: compiled once, not by each of them.
install_locked --compile-bytecode --require-hashes -r requirements.txt
export UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
if [ -n "$UV_FIND_LINKS" ]; then
  install_locked -c requirements.txt "$(grep -o '^torch==[^ ]*' requirements-torch.txt)"
else
  install_locked --no-deps --require-hashes -r requirements-torch.txt
fi
install_locked --no-deps -e .
