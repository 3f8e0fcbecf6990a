"""Reading images: every form gives the same, and what is damaged is refused in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.support.image_tarballs import (
    PYTHON_START,
    LayerTar,
    docker_parts,
    docker_save,
    members,
    oci_parts,
    python_base,
    torch_layer,
)
from wattbench.analysis.__main__ import main
from wattbench.analysis.image import archive, layers
from wattbench.analysis.image.provenance import describe
from wattbench.analysis.model.errors import InputError


def stack() -> list[LayerTar]:
    return [python_base(), torch_layer(), LayerTar().file("opt/x", b"x" * 1000)]


def test_docker_save_oci_layout_gzipped_file_and_folder_read_the_same(tmp_path: Path) -> None:
    saved = docker_save(tmp_path / "saved.tar", stack(), **PYTHON_START)
    zipped = tmp_path / "saved.tar.gz"
    zipped.write_bytes(gzip.compress(saved.read_bytes()))
    oci = tmp_path / "oci.tar"
    parts = oci_parts([("linux/amd64", stack(), PYTHON_START)])
    oci.write_bytes(members(parts))
    folder = tmp_path / "oci"
    for name, data in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    images = [describe(archive.read(str(place))) for place in (saved, zipped, oci, folder)]
    for other in images[1:]:
        assert other.inventory == images[0].inventory
        assert [one.diff_id for one in other.layers] == [one.diff_id for one in images[0].layers]
        assert other.size_bytes == images[0].size_bytes
    assert images[0].packed_bytes is None
    blobs = sorted(len(d) for n, d in parts.items() if d[:2] == b"\x1f\x8b")
    assert sorted(layer.packed_bytes or 0 for layer in images[2].layers) == blobs
    assert images[2].digest == json.loads(parts["index.json"])["manifests"][0]["digest"]


def zstd_chunked(layer: bytes) -> bytes:
    """Frames of up to 1,000 bytes, then a table in a frame to skip, as zstd:chunked layers have it."""
    frames = (pa.compress(layer[n : n + 1000], "zstd", asbytes=True) for n in range(0, len(layer), 1000))  # fmt: skip
    return b"".join(frames) + struct.pack("<II", 0x184D2A50, 64) + bytes(range(64))


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("zstd", lambda layer: pa.compress(layer, "zstd", asbytes=True)),
        ("zstd", zstd_chunked),
        ("xz", lzma.compress),
        ("bzip2", bz2.compress),
    ],
)
def test_layers_in_other_compressions_read_the_same_as_plain_ones(
    name: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    plain = describe(archive.read(str(docker_save(tmp_path / "a.tar", stack(), **PYTHON_START))))
    parts = oci_parts([("linux/amd64", stack(), PYTHON_START)], pack)
    (tmp_path / "b.tar").write_bytes(members(parts))
    stored = archive.read(str(tmp_path / "b.tar"))
    assert {layer.compression for layer in stored.layers} == {name}
    packed = describe(stored)
    assert packed.inventory == plain.inventory
    assert [one.diff_id for one in packed.layers] == [one.diff_id for one in plain.layers]
    assert [one.size_bytes for one in packed.layers] == [one.size_bytes for one in plain.layers]
    wanted = [len(pack(layer.bytes())) for layer in stack()]
    assert [layer.packed_bytes for layer in packed.layers] == wanted


def test_a_layer_that_docker_stores_as_a_link_to_its_equal_is_read(tmp_path: Path) -> None:
    equal = [LayerTar().file("a", b"1"), LayerTar().delete("a"), LayerTar().file("a", b"1")]
    parts = docker_parts(equal)
    third = f"{2:064x}/layer.tar"
    del parts[third]
    path = tmp_path / "x.tar"
    path.write_bytes(members(parts, {third: f"../{0:064x}/layer.tar"}))
    image = describe(archive.read(str(path)))
    assert [one.size_bytes for one in image.layers] == [1, 0, 1]
    assert [(one.layer, one.size) for one in image.hidden] == [(0, 1)]


def test_of_several_platforms_one_is_chosen_and_without_a_choice_all_are_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "multi.tar"
    both = [
        ("linux/amd64", stack(), PYTHON_START),
        ("linux/arm64", [python_base(183)], PYTHON_START),
    ]
    path.write_bytes(members(oci_parts(both)))
    image = describe(archive.read(str(path), platform="linux/arm64"))
    assert (image.platform, dict(image.inventory.machines)) == ("linux/arm64", {"arm64": 1})
    with pytest.raises(InputError, match=r"linux/amd64, linux/arm64.*--platform"):
        archive.read(str(path))


def test_of_several_saved_images_one_is_chosen_by_name(tmp_path: Path) -> None:
    one, two = (
        docker_parts([LayerTar().file("a", b"1")], "app:1"),
        docker_parts([LayerTar().file("b", b"22")], "app:2"),
    )
    manifest = json.loads(one["manifest.json"]) + json.loads(two["manifest.json"])
    manifest[1]["Layers"] = ["second/layer.tar"]
    parts = (
        one
        | {n: d for n, d in two.items() if n.endswith(".json")}
        | {"second/layer.tar": two[f"{0:064x}/layer.tar"]}
    )
    path = tmp_path / "two.tar"
    path.write_bytes(members(parts | {"manifest.json": json.dumps(manifest).encode()}))
    assert describe(archive.read(str(path), name="app:2")).size_bytes == 2
    with pytest.raises(InputError, match=r"2 images: app:1, app:2; choose one with --name"):
        archive.read(str(path))


def test_names_with_odd_bytes_do_not_stop_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "opt/\udcff\nline"
    path = docker_save(
        tmp_path / "odd.tar",
        [python_base().file(odd, b"x" * 2000), LayerTar().delete(odd)],
        **PYTHON_START,
    )
    for form in ("text", "md", "json", "html"):
        assert main(["image", str(path), "--format", form, "--out", str(tmp_path / "out")]) == 0
        assert "\\udcff" in capsys.readouterr().out
    (lost,) = json.loads((tmp_path / "out" / "image.json").read_text())["hidden"]
    assert (lost["size"], lost["layer"], lost["by"]) == (2000, 1, 2)


def mutate_layer(parts: dict[str, bytes]) -> dict[str, bytes]:
    name = f"{1:064x}/layer.tar"
    data = bytearray(parts[name])
    data[600] ^= 0xFF  # content of the first file: the archive stays well-formed
    return parts | {name: bytes(data)}


def without(parts: dict[str, bytes], suffix: str) -> dict[str, bytes]:
    return {n: d for n, d in parts.items() if not n.endswith(suffix)}


def cases() -> list[tuple[str, bytes, str]]:
    good = docker_parts(stack(), **PYTHON_START)
    whole = members(good)
    zipped = gzip.compress(whole)
    config = next(n for n in good if n.endswith(".json") and n != "manifest.json")
    rootfs = LayerTar().file("etc/passwd", b"root").bytes()
    return [
        ("junk", b"no tar at all" * 100, r"can't be read as a tar"),
        ("empty", b"", r"can't be read as a tar"),
        (
            "cut inside a layer",
            whole[: len(whole) // 2 - 700],
            r"damaged|cut|missing|no image|can't be read",
        ),
        ("cut between members", whole[: -10240 - 512], r"no image in it|cut|damaged|can't be read"),
        ("cut gzip", zipped[: len(zipped) // 2], r"can't be read|damaged"),
        ("a root file system", rootfs, r"no image in it"),
        ("a changed layer", members(mutate_layer(good)), r"layer 2 is damaged"),
        (
            "a missing layer",
            members(without(good, f"{1:064x}/layer.tar")),
            r"layer 2 of 3 is missing",
        ),
        ("no config", members(without(good, config)), r"config .* is missing"),
        (
            "manifest of junk",
            members(good | {"manifest.json": b"{nonsense"}),
            r"manifest\.json is no JSON",
        ),
        (
            "a manifest of something else",
            members(good | {"manifest.json": b'[{"Config": 3}]'}),
            r"manifest\.json: Config: input should be a valid string",
        ),
    ]


@pytest.mark.parametrize(("data", "says"), [pytest.param(d, s, id=n) for n, d, s in cases()])
def test_what_is_no_whole_image_is_one_line_and_exit_2(
    data: bytes, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.tar"
    path.write_bytes(data)
    assert main(["image", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert re.search(says, line)


@pytest.mark.parametrize("place", ["absent.tar", "./absent", "no-such-image:none"])
def test_what_is_nowhere_is_one_line_that_says_what_to_do(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(["image", place]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "docker save IMAGE -o FILE" in line


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither index\.json nor manifest\.json"):
        archive.read(str(tmp_path))


def test_memory_does_not_grow_with_the_content(tmp_path: Path) -> None:
    import tracemalloc

    class Zeros(io.RawIOBase):
        """A layer of one file of 256 MB that is never held in memory."""

        def __init__(self) -> None:
            info = tarfile.TarInfo("usr/lib/libtorch_cpu.so")
            info.size = 256 << 20
            self._head, self._left = info.tobuf(), info.size + 1024

        def read(self, size: int = -1) -> bytes:
            if self._head:
                head, self._head = self._head, b""
                return head
            size = min(size, self._left)
            self._left -= size
            return bytes(size)

    tracemalloc.start()
    layer: Any = layers.read(Zeros())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert layer.size_bytes == 256 << 20
    assert peak < 16 << 20


def test_a_file_costs_little_memory_however_many_there_are() -> None:
    import tracemalloc

    tar = LayerTar()
    count = 4000
    for n in range(count):
        tar.file(f"opt/package/module{n}.py", b"x")
    data = io.BytesIO(tar.bytes())
    tracemalloc.start()
    layer = layers.read(data)
    held = tracemalloc.get_traced_memory()[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(layer.entries) == count
    assert held < 350 * count
    assert peak < 450 * count
