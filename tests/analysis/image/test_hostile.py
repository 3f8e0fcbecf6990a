"""Hostile archives: one line and exit 2, or a sound report; within 2 GiB of memory and a bounded CPU time."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import subprocess
import sys
import tarfile
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.hostile_tarballs import cases
from wattbench.analysis.image import tar_stream

_ROOT = Path(__file__).parents[3]
_MEMORY_BYTES = 2 << 30
_CPU_S = 240


@pytest.mark.slow  # a dozen seconds of CPU: some archives hold gigabytes
def test_every_hostile_archive_ends_in_one_line_or_in_a_report(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import audit_all; audit_all({str(tmp_path)!r})"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "plugins")])},
        cwd=_ROOT,
        capture_output=True,
        text=True,
    )
    outcomes = {one["name"]: one for one in map(json.loads, child.stdout.splitlines())}
    assert child.returncode == 0, (
        f"ended at {len(outcomes)} of {len(cases())}: {child.stderr[-2000:]}"
    )
    assert set(outcomes) == {case.name for case in cases()}
    wrong = []
    for case in cases():
        one = outcomes[case.name]
        line = (one["err"].splitlines() or [""])[-1]
        refused = case.says is not None and one["rc"] == 2 and re.search(case.says, line)
        reported = case.says is None and one["rc"] in (0, 1) and one["out"] > 0
        # Before the line there may be progress on a slow machine, and nothing else.
        progress = all(re.search(r" MB read$", text) for text in one["err"].splitlines()[:-1])
        if not (refused or reported) or not progress or one["left"]:
            wrong.append((case.name, one))
    assert not wrong


def audit_all(folder: str) -> None:
    """Audit every case in this process, held to memory and CPU time."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    from wattbench.analysis.__main__ import main

    path, report = Path(folder) / "image.tar", Path(folder) / "report"
    for case in cases():
        path.unlink(missing_ok=True)
        case.write(path)
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code: int | str = main(["image", str(path), "--out", str(report)])
        except Exception:  # noqa: BLE001 - what escapes is the test's finding
            code = traceback.format_exc()[-1500:]
        text = out.getvalue() + err.getvalue()
        document = {
            "name": case.name,
            "rc": code,
            "out": len(out.getvalue()),
            "err": err.getvalue()[-3000:],
            "left": re.findall(r"[^\n\x20-\x7e\u00a1-\u2027\u2030-\u2065\u2070-\ufdff]", text)[:3],
        }
        print(json.dumps(document), flush=True)


NAMES = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=60)
MEMBERS = st.lists(
    st.tuples(
        st.lists(NAMES.filter(lambda n: n not in (".", "..")), min_size=1, max_size=6).map("/".join),
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]),
        st.binary(max_size=1500),
        st.integers(0, 1 << 33),
        st.integers(0, 0o7777),
    ),
    max_size=8,
)  # fmt: skip


@given(MEMBERS, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_archives_read_as_the_standard_library_reads_them(
    wanted: list[tuple[str, bytes, bytes, int, int]], form: int
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, kind, data, mtime, mode in wanted:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.mode, info.linkname = kind, mtime, mode, ""
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = name[::-1]
            if kind == tarfile.REGTYPE:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    mine = [
        (one.name.rstrip("/"), bytes([one.type]), one.size, one.mtime, one.mode, one.target, b"".join(iter(content.read, b"")))
        for one, content in tar_stream.members(buffer)
    ]  # fmt: skip
    buffer.seek(0)
    theirs = []
    with tarfile.open(fileobj=buffer) as tar:
        for info in tar:
            content = tar.extractfile(info) if info.isreg() else None
            theirs.append((info.name.rstrip("/"), info.type, info.size, info.mtime & 0xFFFFFFFF,
                           info.mode, info.linkname, content.read() if content else b""))  # fmt: skip
    assert mine == theirs


@given(st.data())
def test_a_changed_archive_is_read_or_refused(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("long/" * 30 + "é")
        info.size, info.mtime = 700, 1.5
        tar.addfile(info, io.BytesIO(bytes(700)))
    archive = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        archive[data.draw(st.integers(0, 4095))] = data.draw(st.integers(0, 255))
    for block in range(0, 4096, 512):  # else nearly each change would only be a wrong checksum
        total = sum(archive[block : block + 148]) + sum(archive[block + 156 : block + 512]) + 256
        archive[block + 148 : block + 156] = f"{total:06o}\0 ".encode()
    with contextlib.suppress(tar_stream.DamagedError):
        for _, content in tar_stream.members(io.BytesIO(bytes(archive))):
            content.skip()
