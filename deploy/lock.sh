#!/usr/bin/env bash
# The locks, from pyproject.toml, each package with the hashes of all its files; `make lock` calls it.
# Pins stay as they are but for what pyproject.toml asks for. Arguments go to uv: --upgrade renews all, -P NAME one.
set -euo pipefail
cd "$(dirname "$0")/.."
more=("$@")
torch='^(torch|triton|cuda-.*|nvidia-.*)$' # torch and what only its CUDA build needs

# lock FILE KEPT ARGUMENT…: compiles FILE anew, keeps its comments and the packages that the awk condition KEPT names.
lock() {
  local file=$1 kept=$2
  shift 2
  cp "$file" "$file.new"
  .venv/bin/uv pip compile -q --python-version 3.11 --no-header --no-annotate --generate-hashes \
    "${more[@]}" "$@" -o "$file.new" >/dev/null
  {
    grep '^#' "$file"
    awk -v torch="$torch" "/^[a-z0-9]/ { split(\$1, name, \"==\"); keep = name[1] $kept torch } keep" "$file.new"
  } >"$file.all"
  mv "$file.all" "$file"
  rm "$file.new"
}

# A local build of torch has other hashes than the index: these are the index's.
unset UV_FIND_LINKS
lock requirements.txt '!~' pyproject.toml --extra dev
lock requirements-torch.txt '~' pyproject.toml --extra workload --universal -c requirements.txt
lock deploy/requirements.txt '!~' pyproject.toml --extra deploy -c requirements.txt
lock deploy/requirements-tools.txt '!~' --group supply-chain
