"""A run in a bucket, read from a real, authenticated S3 server (rclone), is the run in the folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import simulated_run as simulated
from tests.support.s3_server import KEY, RCLONE, SECRET, Server
from wattbench.analysis.__main__ import main
from wattbench.analysis.runs import assemble, load
from wattbench.analysis.storage.source import (
    DamagedError,
    MissingError,
    S3Source,
    SourceError,
    open_source,
    s3_client,
)

pytestmark = pytest.mark.skipif(RCLONE is None, reason="rclone is not installed: no S3 server")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder inside what the server serves as bucket ``lab``."""
    folder = tmp_path_factory.mktemp("buckets") / "lab" / "team"
    return simulated.write(folder, simulated.small(blocks=1, steady_s=4.0, idle_every=None))


@pytest.fixture(scope="module")
def endpoint(root: Path) -> Iterator[str]:
    server = Server(root.parents[3])
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def place(root: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The run's s3:// place, reachable by the standard variables alone."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return f"s3://lab/{root.relative_to(root.parents[2]).as_posix()}"


def test_the_same_run_comes_from_the_bucket_and_from_the_folder(root: Path, place: str) -> None:
    from_bucket = assemble.assemble(load.load(open_source(place)))
    from_folder = assemble.assemble(load.load(open_source(root)))
    assert from_bucket.trials.equals(from_folder.trials)
    assert from_bucket.findings == from_folder.findings
    assert open_source(place).list() == open_source(root).list()


def test_a_configured_client_reads_it_too(root: Path, place: str) -> None:
    prefix = place.removeprefix("s3://lab/")
    source = S3Source(s3_client(), "lab", prefix)
    assert source.read("run.json") == (root / "run.json").read_bytes()


def test_what_was_changed_in_the_bucket_is_refused(root: Path, place: str) -> None:
    path = next(iter(root.glob("hosts/*/trials/*/1/trial.json")))
    name, original = path.relative_to(root).as_posix(), path.read_bytes()
    key = f"{place.removeprefix('s3://lab/')}/{name}"
    s3_client().put_object(Bucket="lab", Key=key, Body=original + b" ")
    try:
        source = open_source(place)
        with pytest.raises(DamagedError, match="not what the manifest lists"):
            source.read(name)
        found = [f for f in load.load(source).notes if f.code == "row-untraceable"]
        assert len(found) == 1
    finally:
        s3_client().put_object(Bucket="lab", Key=key, Body=original)


def test_what_is_not_there_is_said_to_be_missing(place: str) -> None:
    with pytest.raises(MissingError, match="no such object"):
        open_source(place).read("hosts/none/host.json")


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "check key, secret"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "check AWS_ENDPOINT_URL"),
    ],
)
def test_a_store_that_refuses_or_is_away_is_one_line_with_advice(
    place: str,
    change: dict[str, str],
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SourceError, match=advice):
        open_source(place).list()
    assert main(["report", place, "--out", str(tmp_path / "out")]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert advice in last
    assert not (tmp_path / "out").exists()


def test_a_place_without_a_bucket_is_refused() -> None:
    with pytest.raises(SourceError, match="names no bucket"):
        open_source("s3://")
