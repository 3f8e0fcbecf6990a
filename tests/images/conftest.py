"""A `docker` command for the tests of builds that need no daemon."""

import json

import pytest

from images import build

FAKE_DOCKER = """#!/bin/sh
# Stands for the docker command: writes down what it is asked and answers from $WB/images.
echo "$@" >> "$WB/calls"
case "$1 $2" in
  "image inspect") cat "$WB/images/$(echo "$3" | tr '/:' '__')" 2>/dev/null \\
      || { echo "Error: No such image: $3" >&2; exit 1; } ;;
  "build --tag")
      cat > "$WB/context.tar"
      echo "Step 1/2 : FROM base"; echo "Step 2/2 : RUN make"
      [ ! -e "$WB/broken" ] || { echo "make: no rule"; exit 1; }
      echo '[{"Id": "sha256:new", "Size": 1500000, "Config": {"Labels": {}}}]' \\
        > "$WB/images/$(echo "$3" | tr '/:' '__')" ;;
  "run --rm") ! echo "$@" | grep -qs -f "$WB/unable" \\
      || { echo "ModuleNotFoundError: No module named 'torch'" >&2; exit 1; } ;;
  "pull base:2")
      echo "2: Pulling from base"
      echo "aaaaaaaaaaaa: Already exists"; echo "bbbbbbbbbbbb: Pulling fs layer"
      echo "cccccccccccc: Pulling fs layer"; echo "bbbbbbbbbbbb: Download complete"
      echo "bbbbbbbbbbbb: Pull complete"; echo "cccccccccccc: Pull complete"
      cp "$WB/images/base_1" "$WB/images/base_2" ;;
  pull*) echo "Error response from daemon: lookup registry-1.docker.io: no such host" >&2; exit 1 ;;
  "push far.example/"*) echo "denied: requested access to the resource is denied" >&2; exit 1 ;;
  push*) echo "latest: digest: sha256:$(printf 'a%.0s' $(seq 64)) size: 1" ;;
esac
"""


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """A `docker` command that needs no daemon; returns its folder."""
    (tmp_path / "images").mkdir()
    program = tmp_path / "docker"
    program.write_text(FAKE_DOCKER)
    program.chmod(0o755)
    base = [{"Id": "sha256:base", "Size": 1, "RepoDigests": ["debian@sha256:d1"]}]
    (tmp_path / "images" / "base_1").write_text(json.dumps(base))
    monkeypatch.setenv("WB", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(build, "_LOGS", tmp_path / "log")
    monkeypatch.setattr(build, "_ROOT", tmp_path)
    return tmp_path
