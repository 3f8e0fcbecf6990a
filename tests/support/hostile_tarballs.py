"""Hostile archives: some sixty, each small on disk, written header by header.

``cases`` has for each its name, a function that writes it, and what the audit says of it: a pattern of the
one line, or None where the audit ends in a report.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import struct
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tests.support.image_tarballs import (
    PYTHON_START,
    config_of,
    docker_parts,
    fatbin,
    members,
    oci_parts,
    python_base,
    sha256,
    torch_layer,
)

END = bytes(1024)
#: How a zstd frame begins (RFC 8878, 3.1.1).
ZSTD = b"\x28\xb5\x2f\xfd"


def octal(value: int, width: int) -> bytes:
    return f"{value:0{width - 1}o}".encode() + b"\0"


def binary(value: int, width: int) -> bytes:
    """GNU's form of large and negative numbers."""
    return (value % (1 << 8 * width) | 0x80 << 8 * (width - 1)).to_bytes(width, "big")


def header(
    name: str | bytes,
    size: int | bytes = 0,
    kind: bytes = b"0",
    target: bytes = b"",
    mtime: bytes = b"",
    mode: bytes = b"0000644\0",
    tail: bytes = b"",
    magic: bytes = b"ustar\x0000",
) -> bytes:
    """A header block with a right checksum; ``tail`` is what lies from byte 345 on."""
    raw = name.encode(errors="surrogateescape") if isinstance(name, str) else name
    number = (
        size if isinstance(size, bytes) else (octal(size, 12) if size < 8**11 else binary(size, 12))
    )
    block = b"".join(
        [
            raw[:100].ljust(100, b"\0"), mode, bytes(16), number, mtime or octal(7, 12), b" " * 8, kind,
            target[:100].ljust(100, b"\0"), magic, bytes(80),
        ]
    )  # fmt: skip
    block = (block + tail).ljust(512, b"\0")
    return block[:148] + f"{sum(block):06o}".encode() + b"\0 " + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: str, data: bytes = b"x", **more: Any) -> bytes:
    return header(name, len(data), **more) + padded(data)


def pax(kind: bytes = b"x", **records: str | bytes) -> bytes:
    body = b""
    for key, value in records.items():
        raw = value if isinstance(value, bytes) else value.encode(errors="surrogateescape")
        line = b" " + key.replace("__", ".").encode() + b"=" + raw + b"\n"
        length = len(line) + 1
        while len(str(length)) + len(line) != length:
            length = len(str(length)) + len(line)
        body += str(length).encode() + line
    return file("PaxHeaders/x", body, kind=kind)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return file("././@LongLink", name + b"\0", kind=kind, magic=b"ustar  \0")


def image(*layers: bytes, config: Any = None, **settings: Any) -> dict[str, bytes]:
    """Members of a saved image of these layers; ``config`` in place of the right one."""
    right = config_of(list(layers), **(settings or PYTHON_START))
    raw = config if isinstance(config, bytes) else json.dumps(config or right).encode()
    parts = {f"l{n}.tar": data for n, data in enumerate(layers)}
    manifest = [{"Config": "c.json", "RepoTags": ["app:1"], "Layers": list(parts)}]
    return parts | {"c.json": raw, "manifest.json": json.dumps(manifest).encode()}


def layered(*content: bytes, end: bytes = END) -> Callable[[Path], None]:
    """An image of one layer of these blocks."""
    return lambda path: _write(path, image(b"".join(content) + end))


def configured(**settings: Any) -> Callable[[Path], None]:
    layer = python_base().bytes()
    return lambda path: _write(path, image(layer, **settings))


def with_config(change: dict[str, Any]) -> Callable[[Path], None]:
    layer = python_base().bytes()
    return lambda path: _write(path, image(layer, config=config_of([layer]) | change))


def with_manifest(manifest: Any) -> Callable[[Path], None]:
    raw = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return lambda path: _write(path, image(python_base().bytes()) | {"manifest.json": raw})


def oci(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Callable[[Path], None]:
    return lambda path: _write(
        path, change(oci_parts([("linux/amd64", [python_base()], PYTHON_START)]))
    )


def raw(data: bytes) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(data), None)[1]


def _write(path: Path, parts: dict[str, bytes]) -> None:
    path.write_bytes(members(parts))


def whole() -> bytes:
    return members(docker_parts([python_base(), torch_layer()], **PYTHON_START))


def blobs_with_holes(count: int, size: int) -> Callable[[Path], None]:
    """Members that begin as JSON does; the file on disk has holes."""

    def write(path: Path) -> None:
        with path.open("wb") as out:
            for n in range(count):
                out.write(header(f"blobs/sha256/{n:064x}", size) + b"[")
                out.seek(size - 1, 1)
            out.write(members(image(python_base().bytes())))

    return write


def gzip_bomb(path: Path) -> None:
    """6 GiB of zeros in 6 MiB: one gzip member of 64 MiB, ninety-six times."""
    member = gzip.compress(bytes(64 << 20), 9, mtime=0)
    start = gzip.compress(header("zeros", 96 * (64 << 20)), mtime=0)
    path.write_bytes(start + member * 96)


def zstd_bomb(path: Path) -> None:
    """6 GiB of zeros: one zstd frame of 64 MiB, ninety-six times."""
    frame = pa.compress(bytes(64 << 20), "zstd", asbytes=True)
    start = pa.compress(header("zeros", 96 * (64 << 20)), "zstd", asbytes=True)
    path.write_bytes(start + frame * 96)


def zstd_of_large_window() -> bytes:
    """A zstd frame whose header declares a window of 1 GiB (RFC 8878, 3.1.1.1.2), then one raw block."""
    return ZSTD + bytes([0x00, 20 << 3]) + (1 | 512 << 3).to_bytes(3, "little") + bytes(512)


def zstd_skip(size: int) -> bytes:
    """A skippable frame (RFC 8878, 3.1.2)."""
    return struct.pack("<II", 0x184D2A50, size) + bytes(size)


def many_gzip_members(path: Path) -> None:
    """One gzip member for each 512 bytes."""
    data = members(image(python_base().bytes()))
    path.write_bytes(
        b"".join(gzip.compress(data[n : n + 512], 1, mtime=0) for n in range(0, len(data), 512))
    )


def layer_in_layers(path: Path) -> None:
    """Gzip in gzip in gzip: the inner ones are content like any other."""
    inner = python_base().bytes()
    twice = gzip.compress(gzip.compress(gzip.compress(inner, mtime=0), mtime=0), mtime=0)
    parts = image(inner)
    _write(path, parts | {"l0.tar": twice})


def same_layer_often(count: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        layer = python_base().bytes()
        parts = image(layer)
        manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["l0.tar"] * count}]
        config = config_of([layer] * count)
        _write(
            path,
            parts
            | {
                "manifest.json": json.dumps(manifest).encode(),
                "c.json": json.dumps(config).encode(),
            },
        )

    return write


def deep(count: int) -> bytes:
    return b'{"config": ' + b'{"a": ' * count + b"1" + b"}" * count + b"}"


def manifest_of_sha(parts: dict[str, bytes], change: Callable[[Any], Any]) -> dict[str, bytes]:
    """An OCI layout whose index names a changed manifest by its right digest."""
    index = json.loads(parts["index.json"])
    name = "blobs/" + index["manifests"][0]["digest"].replace(":", "/")
    changed = json.dumps(change(json.loads(parts[name]))).encode()
    index["manifests"][0]["digest"] = f"sha256:{sha256(changed)}"
    return parts | {
        f"blobs/sha256/{sha256(changed)}": changed,
        "index.json": json.dumps(index).encode(),
    }


def nested_index(parts: dict[str, bytes]) -> dict[str, bytes]:
    """Indexes in indexes, 40 deep."""
    below = parts["index.json"]
    parts = dict(parts)
    for _ in range(40):
        parts[f"blobs/sha256/{sha256(below)}"] = below
        below = json.dumps({"manifests": [{"digest": f"sha256:{sha256(below)}"}]}).encode()
    return parts | {"index.json": below}


def many_targets(count: int) -> bytes:
    """A library with device code for so many capabilities, none of them real."""
    return fatbin([(2, 1000 + n, 8) for n in range(count)])


def many_files(count: int) -> bytes:
    return b"".join(header(f"f{n}") for n in range(count))


class Case(NamedTuple):
    name: str
    write: Callable[[Path], Any]
    says: str | None


def _tar_cases() -> Iterable[Case]:
    huge = 1 << 62
    sparse_map = b"1\n0\n1\n".ljust(512, b"\0")
    deep_name = "/".join(["d"] * 200_000)
    cycle = [header("a", kind=b"2", target=b"b"), header("b", kind=b"2", target=b"a")]
    no = r"l0\.tar is damaged or cut .*; save it again"
    for name, content, says in (
        ("a sparse file of 2^62 bytes, PAX 1.0",
         [pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__name="a",
              GNU__sparse__realsize=str(huge)), file("a", sparse_map + b"x")], no),
        ("a sparse file of 2^62 bytes, PAX 0.1",
         [pax(GNU__sparse__size=str(huge), GNU__sparse__map="0,1"), file("a")], no),
        ("a sparse file of 2^62 bytes, GNU",
         [header("a", 1, b"S", tail=bytes(138) + binary(huge, 12), magic=b"ustar  \0"), padded(b"x")], no),
        ("a sparse file of 8 TiB",
         [header("a", 1, b"S", tail=bytes(138) + binary(1 << 43, 12), magic=b"ustar  \0"), padded(b"x")],
         None),
        ("a sparse file with maps to the end",
         [header("a", 1, b"S", tail=bytes(137) + b"\1" + binary(9, 12)), *[b"\1" * 512] * 1000], None),
        ("a sparse size that is negative",
         [header("a", 1, b"S", tail=bytes(138) + binary(-5, 12)), padded(b"x")], no),
        ("a map of sparse parts that says 10^9 parts",
         [pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="5"),
          file("a", b"1000000000\n")], None),
        ("a file of 2^62 bytes that isn't there", [header("a", huge)], no),
        ("a folder of 2^62 bytes", [header("d", huge, b"5"), file("d/a")], None),
        ("a device of 2^62 bytes", [header("d", huge, b"4"), file("a")], None),
        ("a member of an unknown type of 2^62 bytes", [header("d", huge, b"Q")], no),
        ("a whiteout of 2^62 bytes", [header("d/.wh.a", huge)], no),
        ("a negative size", [header("a", binary(-1, 12))], no),
        ("a size that is no number", [header("a", b"12ab\0".ljust(12, b"\0"))], no),
        ("a PAX header of 6 GB", [header("p", 6 << 30, b"x")], r"extended header of 6,442,450,944 bytes"),
        ("a global PAX header of 6 GB", [header("p", 6 << 30, b"g")], r"extended header"),
        ("a GNU name of 2 GB", [header("././@LongLink", 2 << 30, b"L")], r"extended header"),
        ("a thousand GNU names one after the other", [long_name(b"a")] * 1000 + [file("b")], None),
        ("ten thousand PAX headers one after the other", [pax(path="a")] * 10_000 + [file("b")], None),
        ("a thousand global PAX headers", [pax(b"g", path="../../x")] * 1000 + [file("b")], None),
        ("a PAX record whose length is too large", [file("p", b"99 path=a\n", kind=b"x"), file("b")], no),
        ("a PAX record of length 0", [file("p", b"0 path=a\n", kind=b"x"), file("b")], no),
        ("a PAX record whose length has 5,000 digits", [file("p", b"9" * 5000, kind=b"x"), file("b")], no),
        ("a PAX size that is no number", [pax(size="1e3"), file("b")], no),
        ("a PAX size of 5,000 digits", [pax(size="9" * 5000), file("b")], no),
        ("a zero byte in a PAX path", [pax(path=b"a\0b"), file("b")], no),
        ("mtime NaN", [pax(mtime="nan"), file("b")], r"has the time 'nan'"),
        ("mtime of infinity", [pax(mtime="inf"), file("b")], r"has the time 'inf'"),
        ("mtime 1e999", [pax(mtime="1e999"), file("b")], no),
        ("mtime before 1970 and after 2^64",
         [file("a", mtime=binary(-(1 << 80), 12)), file("b", mtime=binary(1 << 80, 12))], None),
        ("200,000 path components", [pax(path=deep_name), file("b")], r"a path of 399,999 bytes"),
        ("ten thousand paths of 2,000 components",
         [pax(path="/".join(["d"] * 2000) + f"/{n}") + file("b") for n in range(300)], None),
        ("a file name of 256 bytes", [pax(path="n" * 256), file("b")], r"a file name of over 255 bytes"),
        ("a path that leaves the image", [pax(path="../../etc/passwd"), file("b")], r"leaves the image"),
        ("a hard link that leaves the image", [header("a", kind=b"1", target=b"../../etc/passwd")],
         r"leaves the image"),
        ("a path inside by way of ..", [file("a/../b/./c")], None),
        ("symbolic links in a circle", cycle, None),
        ("a folder that is a link to itself", [header("a", kind=b"2", target=b"a/a/a"), file("a/b")], None),
        ("hard links in a circle", [header("a", kind=b"1", target=b"b"), header("b", kind=b"1", target=b"a")],
         None),
        ("a hard link to itself", [header("a", kind=b"1", target=b"a")], None),
        ("whiteouts without a name", [file(".wh."), file("d/.wh."), file(".wh..."), file("d/.wh..wh..opq"),
                                       file(".wh..wh..opq"), file(".wh..wh.plnk")], None),
        ("a whiteout and an opaque mark that are folders", [header(".wh.a", kind=b"5"),
                                                             header("d/.wh..wh..opq", kind=b"5")], None),
        ("a name of no bytes", [file("")], None),
        ("names with escapes and no UTF-8", [file("\x1b]0;owned\x07\x1b[2J"), file("\udcff\udc80\u202e")], None),
        ("a file and a folder of one name, in turns", [file("a"), file("a/b"), file("a"), file("a/b/c")], None),
        ("a file stored ten thousand times", [file("a")] * 10_000, None),
        ("no end mark", [file("a")], None),
        ("a header with a wrong checksum", [file("a"), b"\1" * 512], no),
        ("half a header", [file("a"), header("b")[:300]], no),
        ("other data after the end", [file("a"), END, b"more" * 512], None),
        ("forty thousand files", [many_files(40_000)], None),
    ):  # fmt: skip
        end = b"" if name in ("no end mark", "half a header") or "2^62" in name else END
        yield Case(name, layered(*content, end=end), says)


def _held_files() -> Iterable[Case]:
    deep_python = (
        "x = " + "(" * 1500 + "\n" + "-" * 2000 + "1\ncuda = '12.4'\n__version__ = '2.6.0'\n"
    )
    yield Case(
        "a torch/version.py that no parser takes",
        layered(file("usr/torch/version.py", deep_python.encode())),
        None,
    )
    yield Case(
        "device code for 50,000 GPUs",
        layered(file("usr/libtorch_cuda.so", many_targets(50_000))),
        None,
    )
    yield Case(
        "broken metadata, package lists and programs",
        layered(
            file("etc/os-release", b"A='\nPRETTY_NAME=\"x\n\0\xff=1\n"),
            file("var/lib/dpkg/status", b"Package\n: x\n\nVersion:\n" + b":" * 5000),
            file("lib/apk/db/installed", b"P:\nV:\n\n" * 100),
            file("usr/x.dist-info/METADATA", b"Name: \xff\n a\n b\nVersion: =cmd\n"),
            file("usr/bin/python3", b"\x7fELF"),
            file("usr/lib/python3.99999/os.py"),
            file("usr/lib/python3.11/__pycache__/os.cpython-311.pyc", b"\xa7"),
        ),
        None,
    )
    yield Case(
        "four package lists of 60 MiB",
        lambda path: _write(
            path,
            image(
                b"".join(file(f"var/lib/dpkg/status.d/{n}", bytes(60 << 20)) for n in range(4))
                + END
            ),
        ),
        r"file names and package lists of over 192 MiB",
    )


def _document_cases() -> Iterable[Case]:
    yield Case("JSON 1,000 deep as config", lambda p: _write(p, image(python_base().bytes(), config=deep(1000))),
               r"config c\.json: nested more than 64 deep; save it again")  # fmt: skip
    yield Case(
        "JSON 100,000 deep as manifest", with_manifest(b"[" * 100_000), r"nested more than 64 deep"
    )
    yield Case(
        "a quote that does not end in a command",
        configured(Entrypoint="python3 -c 'print(1)"),
        None,
    )
    yield Case("a shell command of blanks", configured(Cmd=["sh", "-c", "exec   "]), None)
    yield Case(
        "a PATH of a million folders",
        configured(Env=["PATH=" + ":a" * 1_000_000], Cmd=["x"] * 9999),
        None,
    )
    yield Case(
        "a number of threads of 5,000 digits",
        configured(Env=["OMP_NUM_THREADS=" + "9" * 5000]),
        None,
    )
    yield Case("escapes and HTML in labels, user and command",
               configured(Labels={"\x1b[31m<b>": "</td><script>alert(1)</script>"}, User="\x9b2J",
                          Cmd=["=cmd|' /C calc'!A0", "\x1b]52;c;aGk=\x07"]), None)  # fmt: skip
    for name, settings, key in (
        ("Env a number", {"Env": 3}, "config.Env"),
        ("Env of numbers", {"Env": [1]}, "config.Env.0"),
        ("Labels a list", {"Labels": ["a"]}, "config.Labels"),
        ("Labels of numbers", {"Labels": {"a": 1}}, "config.Labels.a"),
        ("a user that is a number", {"User": 0}, "config.User"),
        ("a command of objects", {"Cmd": [{}]}, "config.Cmd"),
    ):
        yield Case(
            name, configured(**settings), rf"the image's config: {key}.*; save the image again"
        )
    yield Case("a config that is a list", with_config({}), None)
    yield Case("rootfs a text", with_config({"rootfs": "x"}), r"config: rootfs")
    yield Case(
        "diff_ids of numbers", with_config({"rootfs": {"diff_ids": [1]}}), r"rootfs\.diff_ids\.0"
    )
    yield Case("a history of numbers", with_config({"history": [1]}), r"config: history\.0")
    yield Case(
        "all of it null", with_config(dict.fromkeys(("config", "history", "created", "os"))), None
    )
    yield Case("created NaN", lambda p: _write(p, image(python_base().bytes(), config=b'{"created": NaN}')),
               r"NaN is not a JSON number")  # fmt: skip
    yield Case(
        "a number of a million digits", with_manifest(b"[" + b"9" * 1_000_000 + b"]"), r"is no JSON"
    )
    yield Case("a manifest of numbers", with_manifest([1, 2]), r"manifest\.json: the document")
    yield Case("a manifest of nothing", with_manifest([]), r"names no image")
    yield Case("a manifest that is an object", with_manifest({"a": 1}), r"names no image")
    yield Case(
        "layers a text", with_manifest([{"Config": "c.json", "Layers": "l0.tar"}]), r"Layers"
    )
    yield Case("layers elsewhere", with_manifest([{"Config": "c.json", "Layers": ["/etc/passwd"]}]),
               r"layer 1 of 1 is missing")  # fmt: skip
    yield Case("50,000 tags", with_manifest([{"Config": "c", "Layers": [], "RepoTags": [f"t{n}"]}
                                             for n in range(50_000)]), r"and 49992 more; choose one")  # fmt: skip
    yield Case("a layer named 100,000 times", same_layer_often(100_000), r"manifest\.json: Layers")
    yield Case("a layer named 127 times", same_layer_often(127), None)
    yield Case("a JSON document of 5 MB as config",
               lambda p: _write(p, image(python_base().bytes(), config=b"{" + b" " * 5_000_000 + b"}")),
               r"is larger than 4 MiB")  # fmt: skip
    yield Case("forty JSON blobs of 16 MiB", blobs_with_holes(40, 16 << 20), None)
    yield Case("a hundred JSON blobs of 1 MiB before the image's own", blobs_with_holes(100, 1 << 20),
               r"lies behind 32 MiB of other JSON")  # fmt: skip
    yield Case("an index of wrong digests",
               oci(lambda p: p | {"index.json": b'{"manifests": [{"digest": "../../../etc/passwd"}]}'}),
               r"index\.json: manifests\.0\.digest")  # fmt: skip
    yield Case("an index of numbers", oci(lambda p: p | {"index.json": b'{"manifests": [{"digest": 3}]}'}),
               r"manifests\.0\.digest")  # fmt: skip
    yield Case(
        "an index without manifests",
        oci(lambda p: p | {"index.json": b"{}"}),
        r"manifests: field required",
    )
    yield Case("indexes 40 deep", oci(nested_index), r"nested more than 4 deep")
    yield Case("a manifest that is another's", oci(lambda p: {n: d + b" " * (b'"config"' in d) for n, d in p.items()}),
               r"is damaged \(its digest is another\)")  # fmt: skip
    yield Case("a manifest whose layers are numbers",
               oci(lambda p: manifest_of_sha(p, lambda m: m | {"layers": [1]})), r"layers\.0")  # fmt: skip
    yield Case("a manifest without a config", oci(lambda p: manifest_of_sha(p, lambda m: {"layers": []})),
               r"config: field required")  # fmt: skip
    yield Case("a layer in gzip three times", layer_in_layers, r"layer 1 of 1 is missing")


def _stream_cases() -> Iterable[Case]:
    data = whole()
    zipped = gzip.compress(data, mtime=0)
    yield Case("a cut gzip", raw(zipped[: len(zipped) // 2]), r"the compressed data end early")
    yield Case(
        "a gzip with a wrong checksum", raw(zipped[:-8] + b"1234" + zipped[-4:]), r"are damaged"
    )
    yield Case("a gzip with other data behind it", raw(zipped + b"more data"), r"other data follow")
    yield Case("a gzip padded with zeros", raw(zipped + bytes(5000)), None)
    yield Case("a gzip of many members", many_gzip_members, None)
    yield Case(
        "a gzip of a thousand empty members", raw(gzip.compress(b"", mtime=0) * 1000 + zipped), None
    )
    yield Case("6 GiB in 6 MiB", gzip_bomb, r"unpacks to over 200 times its size")
    yield Case("bzip2", raw(bz2.compress(data)), None)
    yield Case("xz", raw(lzma.compress(data, preset=0)), None)
    yield Case("a cut xz", raw(lzma.compress(data, preset=0)[:300]), r"end early|damaged")
    yield Case(
        "an xz that wants 4 GiB of memory", raw(_xz_of_large_dictionary()), r"damaged|memory"
    )
    zstd = pa.compress(data, "zstd", asbytes=True)
    yield Case("zstd", raw(zstd), None)
    yield Case("a cut zstd", raw(zstd[: len(zstd) // 2]), r"the compressed data end early")
    yield Case("a zstd with other data behind it", raw(zstd + b"more data"), r"other data follow")
    yield Case("junk that begins like zstd", raw(ZSTD + bytes(600)), r"end early|damaged")
    yield Case("a zstd that wants 1 GiB of memory", raw(zstd_of_large_window()), r"memory")
    yield Case("a zstd of frames to skip alone", raw(zstd_skip(9) * 20_000), r"tar archive")
    yield Case("6 GiB in 200 KiB of zstd", zstd_bomb, r"unpacks to over 200 times its size")
    yield Case(
        "a cut layer",
        lambda p: _write(p, image(python_base().bytes()[:700])),
        r"l0\.tar is damaged or cut",
    )
    cut = gzip.compress(python_base().bytes(), mtime=0)[:200]
    yield Case("a cut gzip layer", lambda p: _write(p, image(python_base().bytes()) | {"l0.tar": cut}),
               r"l0\.tar is damaged or cut")  # fmt: skip
    yield Case("manifest.json twice", _manifest_twice, None)
    yield Case(
        "a layer that is a link to itself", _layer_links_to_itself, r"layer 1 of 1 is missing"
    )
    yield Case(
        "25,000 members", lambda p: p.write_bytes(many_files(25_000) + END), r"over 20,000 members"
    )
    yield Case("nothing but zeros", raw(bytes(10_240)), r"no image in it")
    yield Case("random bytes", raw(bytes(range(256)) * 40), r"not a tar archive")


def _xz_of_large_dictionary() -> bytes:
    """The size of the dictionary lies in one byte of the block's header, before its checksum."""
    import zlib

    data = bytearray(lzma.compress(b"x" * 100, preset=0))
    size = (data[12] + 1) * 4
    place = data.index(b"\x21\x01", 12) + 2
    data[place] = 40
    data[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(bytes(data[12 : 12 + size - 4])))
    return bytes(data)


def _manifest_twice(path: Path) -> None:
    parts = image(python_base().bytes())
    first = members({"manifest.json": b'[{"Config": "absent", "Layers": []}]'})[:1024]
    path.write_bytes(first + members(parts))


def _layer_links_to_itself(path: Path) -> None:
    parts = image(python_base().bytes())
    del parts["l0.tar"]
    path.write_bytes(members(parts, {"l0.tar": "l0.tar"}))


@cache
def cases() -> tuple[Case, ...]:
    """All of them; made when asked for, since some hold megabytes."""
    return (*_tar_cases(), *_held_files(), *_document_cases(), *_stream_cases())
