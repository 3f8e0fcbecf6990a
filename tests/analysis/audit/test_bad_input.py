"""Input of any quality: exit 2, or a finding that names the file; never a traceback, never a silent skip."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wattbench.analysis.__main__ import main
from wattbench.analysis.audit import page

pytestmark = pytest.mark.slow

HEADER = b"Delta,Time,CPU_USAGE_0,DRAM_ENERGY (J),PACKAGE_ENERGY (J)\n"


def rows(n: int, step_j: float = 100.0, start: float = 1000.0) -> bytes:
    """Rows of a run in the hour after T0; ``raw`` moves each run to an hour of its own."""
    lines = [
        f"{0 if i == 0 else 10000},{1742860000000 + 10000 * max(i - 1, 0)},50,{start / 2 + i},{start + step_j * i}"
        for i in range(n)
    ]
    return (
        "\n".join(lines)
    ).encode() + f"\n20,{1742860000000 + 10000 * (n - 1)},5,{start},{start + step_j * n}\n".encode()


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures have their own tests and would take most of the time here."""
    monkeypatch.setattr(page.figures, "draw", lambda *_, **__: {})


def raw(folder: Path, run: int, data: bytes, image: str = "img") -> None:
    results = folder / image / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"energy_results_{image}_{run}.csv").write_bytes(shifted(data, run))


def shifted(data: bytes, hours: int) -> bytes:
    return re.sub(rb"\b17428\d{8}\b", lambda m: str(int(m[0]) + 3_600_000 * hours).encode(), data)


def run(folder: Path, *more: str) -> tuple[int, Path]:
    out = folder.parent / "out"
    return main(["audit", str(folder), "--out", str(out), *more]), out


def trial(out: Path, number: int) -> pd.Series:
    frame = pd.read_csv(out / "trials.csv")
    return frame[frame.run == number].iloc[0]


def messages(out: Path, code: str) -> str:
    found = json.loads((out / "findings.json").read_text())
    return "\n".join(f["message"] for f in found if f["code"] == code and f["verdict"] == "found")


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    folder = tmp_path / "campaign"
    for i in range(3):
        raw(folder, i, HEADER + rows(20, 100.0 + i))
    return folder


@pytest.mark.parametrize("what", ["empty", "missing", "file", "only junk", "only hidden"])
def test_a_folder_with_nothing_to_audit_is_one_line_and_exit_two(tmp_path, capsys, what):
    folder = tmp_path / "campaign"
    if what != "missing":
        folder.mkdir()
    if what == "file":
        folder = folder / "x.csv"
        folder.write_text("a,b\n1,2\n")
    elif what == "only junk":
        (folder / "photo.bin").write_bytes(os.urandom(5000))
        (folder / "notes.txt").write_text("nothing to see\n")
        (folder / "cut.csv").write_bytes(b"\xef")  # of a byte order mark
    elif what == "only hidden":
        (folder / ".hidden.csv").write_bytes(HEADER + rows(5))
    code, _ = run(folder)
    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1
    assert str(folder) in err


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("zero bytes", b""),
        ("header only", HEADER),
        ("junk", random.Random(3).randbytes(4000)),
        ("another csv", b"a,b,c\n1,2,3\n"),
        ("no energy", b"Delta,Time,CPU_USAGE_0\n0,1742860000000,5\n10000,1742860010000,5\n"),
        ("one row", HEADER + b"0,1742860000000,5,1,1\n"),
        ("time goes back", HEADER + rows(10).replace(b"1742860050000", b"1742850050000")),
        ("a counter that restarts", HEADER + rows(10) + rows(10, start=3.0)),
        ("cut in a row", HEADER + rows(10)[:-25]),
    ],
)
def test_a_bad_raw_file_is_a_row_that_is_not_valid_and_a_finding_that_names_it(
    campaign, name, data
):
    raw(campaign, 7, data)
    code, out = run(campaign)
    assert code == 1, name
    row = trial(out, 7)
    assert row.status in ("failed", "invalid"), name
    assert row.reason
    found = json.loads((out / "findings.json").read_text())
    named = [
        f
        for f in found
        if f["verdict"] == "found" and f["severity"] == "error" and "_7.csv" in f["subject"]
    ]
    assert named, name
    assert named[0]["evidence"]["file"].endswith("energy_results_img_7.csv")
    assert pd.read_csv(out / "trials.csv").set_index("run").status[[0, 1, 2]].eq("valid").all()


@pytest.mark.parametrize("cell", [b'"50"', b"0x50", b"5.0.1", b"nan", b"", b"much"])
def test_a_cell_that_is_no_number_is_named_with_its_line(campaign, cell):
    lines = (HEADER + rows(20)).split(b"\n")
    lines[6] = lines[6].replace(b",50,", b"," + cell + b",")
    raw(campaign, 7, b"\n".join(lines))
    _, out = run(campaign)
    (finding,) = [
        f
        for f in json.loads((out / "findings.json").read_text())
        if f["code"] == "file-unread" and f["verdict"] == "found"
    ]
    assert (finding["evidence"]["line"], finding["evidence"]["column"]) == (7, "CPU_USAGE_0")
    assert trial(out, 7).status == "valid"


@pytest.mark.parametrize("shift", [b"97428123456", b"-17428"])
def test_a_time_that_is_no_date_is_refused_with_its_line(campaign, shift):
    raw(campaign, 0, (HEADER + rows(20)).replace(b",17428", b"," + shift))
    code, out = run(campaign)
    assert code == 1
    assert "is no date" in messages(out, "clock-skew")
    assert pd.isna(trial(out, 0).started_at) or trial(out, 0).status == "failed"


def test_joules_that_no_counter_holds_are_refused(campaign, recwarn):
    raw(campaign, 7, (HEADER + rows(20)).replace(b",1000.0\n", b",1e308\n"))
    code, out = run(campaign)
    assert code == 1
    assert trial(out, 7).status == "failed"
    assert not recwarn.list


def test_a_packed_log_is_read_as_the_plain_one(campaign):
    raw(campaign, 7, HEADER + rows(20, 101.0))
    plain = campaign / "img" / "results" / "energy_results_img_7.csv"
    later = plain.read_bytes().replace(b",17428", b",17438")
    for name, data in (("8", gzip.compress(later)), ("9", b"\x1f\x8b\x08junk")):
        plain.with_name(f"energy_results_img_{name}.csv.gz").write_bytes(data)
    _, out = run(campaign)
    assert trial(out, 8).package_j == trial(out, 7).package_j
    assert "can't be unpacked" in trial(out, 9).reason


def test_run_numbers_that_are_dates_are_not_counted_through(campaign):
    raw(campaign, 7, HEADER + rows(20))
    dated = campaign / "img" / "results" / "energy_results_img_7.csv"
    dated.rename(dated.with_name("energy_results_img_20250324123456.csv"))
    code, out = run(campaign)
    assert code == 0
    assert "have no file" not in messages(out, "trial-missing")


def test_a_name_that_is_no_text_is_shown_escaped(campaign):
    plain = campaign / "img" / "results" / "energy_results_img_2.csv"
    plain.rename(os.fsdecode(os.fsencode(plain.parent) + b"/energy_results_\xff_2.csv"))
    code, out = run(campaign)
    assert code == 0
    assert "energy_results_\\udcff_2.csv: its name is not UTF-8" in messages(out, "file-unread")


@pytest.mark.parametrize(
    "line",
    [
        "Energy consumption in joules: 1.2.3 for 4 sec of execution.",
        "Energy consumption in joules: ... for ... sec of execution.",
        "Energy consumption in joules: 9e999 for 1e999 sec of execution.",
        "Experiment took 1e999 seconds",
        "[99999999999999999999999999999]",
    ],
)
def test_a_log_line_with_a_number_that_is_none_says_nothing(campaign, line):
    (campaign / "img" / "energy_logs_img.txt").write_text(f"{line}\n")
    _, out = run(campaign)
    assert "no start of a workload" in messages(out, "file-unread")


def test_measurements_of_runs_without_a_raw_file_are_named(campaign):
    table = "Run,Energy (J),Time (sec)\n0,2000,190\n9,6,1\n"
    (campaign / "img" / "energy_measurements_img.csv").write_text(table)
    _, out = run(campaign)
    assert "1 of 2 rows are of runs without a raw file" in messages(out, "file-unread")


def test_a_run_table_names_the_lines_that_its_rows_stand_on(campaign):
    table = "__run_id,__done,engine,energy\n\nrun_0,DONE,a,nan\n,DONE,b,5\n" + "x" * 200_000
    (campaign / "run_table.csv").write_text(table)
    _, out = run(campaign)
    text = messages(out, "file-unread")
    assert "line 4 has no __run_id" in text
    assert "no CSV from line 5 on" in text
    assert "run_table.csv:3: run_0" in messages(out, "trial-missing")


def test_mixed_line_ends_are_read_as_they_are_meant(campaign):
    plain = HEADER + rows(20, 101.0)
    lines = plain.split(b"\n")
    mixed = b"".join(line + (b"\r\n" if i % 2 else b"\n") for i, line in enumerate(lines[:-1]))
    raw(campaign, 5, mixed)
    _, out = run(campaign)
    assert trial(out, 5).package_j == trial(out, 1).package_j
    assert trial(out, 5).status == "valid"


def test_a_file_over_the_limit_is_named_and_not_read(campaign):
    path = campaign / "img" / "results" / "energy_results_img_8.csv"
    with path.open("wb") as file:
        file.write(HEADER)
        file.truncate(10 * 1024**3)  # sparse: no byte of it is on the disk
    code, out = run(campaign)
    assert code == 1
    assert "not read" in trial(out, 8).reason


def test_a_log_that_is_not_utf8_is_parsed(campaign):
    log = b"\xff\xfe caf\xe9\r\nUsing cpu device\r\n[256]\r\n\xe9Experiment is running for image size 256x256\n"
    (campaign / "img" / "energy_logs_img.txt").write_bytes(
        log + b"Experiment took 3.5 seconds\n" + b"\xff" * 200_000
    )
    code, out = run(campaign)
    assert code in (0, 1)
    assert "cpu" in set(pd.read_csv(out / "trials.csv").device.dropna())


def test_a_log_without_any_start_is_a_finding(campaign):
    (campaign / "img" / "energy_logs_img.txt").write_bytes(b"\x00\x01" * 500)
    _, out = run(campaign)
    assert "energy_logs_img.txt" in messages(out, "file-unread")


def test_links_in_a_loop_end_and_are_named(campaign):
    (campaign / "img" / "again").symlink_to(campaign)
    (campaign / "gone.csv").symlink_to(campaign / "nowhere")
    code, out = run(campaign)
    assert code in (0, 1)
    assert len(pd.read_csv(out / "trials.csv")) == 3
    text = messages(out, "file-unread")
    assert "again" in text
    assert "gone.csv" in text


def test_files_that_are_not_used_are_named(campaign):
    (campaign / "other.csv").write_text("colour,taste\nred,sweet\n")
    (campaign / "paper.pdf").write_bytes(b"%PDF")
    _, out = run(campaign)
    text = messages(out, "file-unread")
    assert "other.csv" in text
    assert "paper.pdf" in text


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (b"", ":"),
        (b"\x00\x01\x02", "binary"),
        (b"Run,Energy Consumption (Joules),Execution Time (Seconds)\r\n", "no rows"),
        (
            b"Run,Energy Consumption (Joules),Execution Time (Seconds)\r\n1,much,3\r\n2,5.5,3\r\n",
            "line 2",
        ),
        (b"Run,Watts\r\n1,3\r\n", "no column of joules"),
        (b"Run,Energy (J)\n1," + b"9" * 200_000 + b"\n", "no CSV from line 2 on"),
    ],
)
def test_a_bad_summary_table_is_a_finding_with_its_line(campaign, table, named):
    (campaign / "img_output.csv").write_bytes(table)
    _, out = run(campaign)
    text = messages(out, "file-unread")
    assert "img_output.csv" in text
    assert named in text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("refrence: x\n", "refrence"),
        ("sizes_gb: {a: -1}\n", "sizes_gb.a"),
        ("printed: {nothing: []}\n", "nothing"),
        ("printed: {energy: [{image: a, joules: 3}]}\n", "joules"),
        ("raw: {glob: '*.csv', image: '(('}\n", "raw.image"),
        ("raw: {glob: '*.csv', image: 'x'}\n", "group"),
        ("- a\n", "no keys"),
        ("a: [\n", "YAML"),
    ],
)
def test_a_bad_mapping_is_one_line_that_names_the_key(campaign, tmp_path, capsys, text, named):
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    code, _ = run(campaign, "--mapping", str(path))
    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1
    assert named in err


def test_an_unknown_reference_names_the_images(campaign, capsys):
    code, _ = run(campaign, "--reference", "nothing")
    assert code == 2
    assert "img" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(campaign, tmp_path, capsys):
    (tmp_path / "out").write_text("")
    assert run(campaign)[0] == 2
    assert "out" in capsys.readouterr().err


def test_results_inside_the_campaign_are_none_of_it(campaign):
    out = campaign / "audit"
    for _ in range(2):
        assert main(["audit", str(campaign), "--out", str(out)]) in (0, 1)
    assert "audit/" not in messages(out, "file-unread")


def test_a_mapping_adapts_another_layout_and_other_column_names(tmp_path):
    folder = tmp_path / "campaign"
    for image in ("a", "b"):
        for n in range(3):
            place = folder / "data" / f"{image}-rep{n}"
            place.mkdir(parents=True)
            data = (HEADER + rows(20, 100.0 + n)).replace(b"PACKAGE_ENERGY (J)", b"pkg")
            data = shifted(data.replace(b"DRAM_ENERGY (J)", b"mem"), n + 3 * (image == "b"))
            (place / "power.csv").write_bytes(data)
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        'raw: {glob: "data/*/power.csv", image: "data/([a-z]+)-", run: "rep(\\\\d+)"}\n'
        'columns: {pkg: "PACKAGE_ENERGY (J)", mem: "DRAM_ENERGY (J)"}\nimages: {a: alpha}\n'.replace(
            "\\\\", "\\\\"
        )
    )
    _, out = run(folder, "--mapping", str(mapping))
    trials = pd.read_csv(out / "trials.csv")
    assert sorted(zip(trials.image, trials.run, strict=True)) == [
        (i, n) for i in ("alpha", "b") for n in range(3)
    ]
    assert set(trials.status) == {"valid"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_in_any_file_end_without_a_traceback(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any") / "campaign"
    good = HEADER + rows(6)
    noise = st.one_of(
        st.binary(max_size=300),
        st.integers(0, len(good)).map(lambda n: good[:n] + b"\xff,\r\n" + good[n:]),
    )
    for i in range(2):
        raw(folder, i, data.draw(noise))
    (folder / "img" / "energy_logs_img.txt").write_bytes(
        data.draw(
            st.one_of(
                st.binary(max_size=200),
                st.just(b"Using cpu device\nExperiment took x seconds\n[1, 2]\n"),
            )
        )
    )
    (folder / "img_output.csv").write_bytes(
        data.draw(st.one_of(st.binary(max_size=100), st.just(b"Run,E (J)\n1,1e400\n")))
    )
    code, out = run(folder)
    assert code in (0, 1, 2)
    if code != 2:
        read_from = pd.read_csv(out / "trials.csv")["raw"].dropna()
        assert sum("/results/" in place for place in read_from) == 2
