"""A run as the store holds it, of known truth: every attempt goes through the real reader and energy code.

``write`` makes the folder ``runs/<run_id>`` of a campaign on several hosts: raw EnergiBridge files,
workload logs, agent's reports, computed records, outcomes, ``run.json`` and the manifest. Powers and
times follow a small model whose parameters are the truth; the same design gives the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import simulated_server
from tests.support.simulated_server import Part as _Part
from wattbench.analysis.meters.attempt import RawAttempt, evaluate
from wattbench.analysis.model.trials import TrialRow

RUN_START = datetime(2026, 3, 14, 22, 0, tzinfo=UTC).timestamp()
WRAP_J = 262144.0


@dataclass(frozen=True)
class Image:
    """One treatment. ``energy`` and ``time`` are factors of the steady phases; start-up in s.

    ``carries`` is a factor of the power that the trial executed after it has.
    """

    energy: float = 1.0
    time: float = 1.0
    startup_s: float = 4.0
    size_gb: float = 3.0
    carries: float = 1.0


@dataclass(frozen=True)
class Host:
    """One machine. ``watts`` under load, ``idle_w``, ``factor`` of time, ``noise`` relative."""

    watts: float = 180.0
    idle_w: float = 35.0
    factor: float = 1.0
    noise: float = 0.006
    drift: float = 0.0
    bias: Mapping[str, float] = field(default_factory=dict)


IMAGES = {
    "pytorch": Image(1.0, 1.0, 4.0, 9.62),
    "cuda": Image(1.012, 1.01, 4.4, 12.91),
    "nvcr": Image(1.027, 1.04, 6.5, 40.86),
    "python": Image(1.001, 1.0, 3.2, 9.95),
    "compiled": Image(0.91, 0.9, 6.0, 10.4),
}
HOSTS = {
    "lab-a": Host(),
    "lab-b": Host(watts=240.0, idle_w=52.0, factor=0.8, drift=0.012),
    "edge-c": Host(watts=65.0, idle_w=11.0, factor=2.2, noise=0.011, bias={"nvcr": 1.02}),
}


@dataclass(frozen=True)
class Design:
    """What is simulated.

    Attributes:
        kind: the meter's; ``modelled`` makes it a run of modelled joules.
        failing: (host, planned position) → attempts that fail before one is good.
        lost: (host, planned position) that never get an accepted attempt.
        skipped: hosts that stop early after this block.
        declares: further keys of the experiment.
        server: the images are servers under a load (``simulated_server``); None: the built-in workload.
        seed: of order and noise.
    """

    hosts: Mapping[str, Host] = field(default_factory=lambda: dict(HOSTS))
    images: Mapping[str, Image] = field(default_factory=lambda: dict(IMAGES))
    blocks: int = 8
    idle_every: int | None = 2
    kind: str = "energibridge"
    steady_s: float = 24.0
    failing: Mapping[tuple[str, int], int] = field(default_factory=lambda: {("lab-a", 7): 1})
    lost: tuple[tuple[str, int], ...] = (("edge-c", 12),)
    skipped: Mapping[str, int] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)
    declares: Mapping[str, Any] = field(default_factory=dict)
    server: simulated_server.Server | None = None
    seed: int = 7
    run_id: str = "paper-20260314T220000Z-a1b2c3"

    @property
    def has_gpu(self) -> bool:
        return self.kind != "modelled" and self.server is None


def small(**changes: Any) -> Design:
    """Two hosts, three images, three blocks, short windows: quick to write."""
    base = Design(
        hosts={k: HOSTS[k] for k in ("lab-a", "lab-b")},
        images={k: IMAGES[k] for k in ("pytorch", "nvcr", "compiled")},
        blocks=3,
        steady_s=8.0,
        lost=(),
        failing={("lab-a", 2): 1},
    )
    return replace(base, **changes)


def write(folder: Path, design: Design | None = None) -> Path:
    """Write the run below ``folder``; returns ``folder/runs/<run_id>``."""
    design = design or Design()
    root = folder / "runs" / design.run_id
    plans = {host: _plan(design, host) for host in design.hosts}
    hosts = {}
    for host in design.hosts:
        entry = _host_document(design, host)
        outcomes = {}
        if host in design.unfit:
            entry["problems"] = [
                {"code": "docker", "severity": "hard", "message": design.unfit[host], "action": "start it"}
            ]  # fmt: skip
        else:
            outcomes = _write_host(root, design, host, plans[host])
        _put(root, f"hosts/{host}/host.json", _json(entry))
        hosts[host] = entry | {"outcomes": outcomes}
    _put(root, "run.json", _json(_document(design, plans, hosts)))
    objects = [
        {"key": p.relative_to(root).as_posix(), "bytes": p.stat().st_size, "sha256": _sha(p.read_bytes())}
        for p in sorted(root.rglob("*"))
        if p.is_file()
    ]  # fmt: skip
    _put(root, "manifest.json", _json({"schema": 1, "generation": 1, "objects": objects}))
    return root


def _put(root: Path, key: str, data: bytes) -> None:
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(image: str) -> str:
    return "sha256:" + _sha(image.encode())


def _plan(design: Design, host: str) -> list[dict[str, Any]]:
    plan: list[dict[str, Any]] = []
    for block in range(1, design.blocks + 1):
        members = [("workload", i) for i in design.images]
        if design.idle_every and (block - 1) % design.idle_every == 0:
            members += [("idle", i) for i in design.images]
        members.sort(key=lambda m: _sha(f"{design.seed} {host} {block} {m}".encode()))
        for kind, image in members:
            place = len(plan) + 1
            plan.append(
                {"planned_position": place, "block": block, "kind": kind, "image": image,
                 "name": f"{place:03d}-{image}"}
            )  # fmt: skip
    return plan


def _document(design: Design, plans: Mapping[str, Any], hosts: Mapping[str, Any]) -> dict[str, Any]:
    images = {
        name: {
            "ref": f"registry.example/bench/{name}:1",
            "resolved_ref": f"registry.example/bench/{name}@{_digest(name)}",
            "runtime": "docker",
            "digest": _digest(name),
            "size_bytes": int(image.size_gb * 0.45e9),
        }
        for name, image in design.images.items()
    }
    return {
        "schema": 1,
        "run_id": design.run_id,
        "dag_id": "paper",
        "dag_run_id": "manual__2026-03-14T22:00:00+00:00",
        "run_after": "2026-03-14T22:00:00+00:00",
        "experiment": {
            "description": "ResNet-50 inference at 256 and 512 px.",
            "hosts": list(design.hosts),
            "device": "cuda" if design.has_gpu else "cpu",
            "workload": {
                "program": "resnet50", "framework": "torch", "precision": "fp32", "batch": 1,
                "passes": _passes(),
            },
            "images": images,
            "reference": next(iter(design.images)),
            "protocol": {"blocks": design.blocks, "attempts": 2, "timeout_s": 600},
            "analysis": {"alpha": 0.05, "correction": "holm", "equivalence_pct": 1.0},
            **(design.server.declares if design.server else {}),
            **design.declares,
        },
        "seed": str(design.seed),
        "plan": dict(plans),
        "skipped_hosts": {},
        "skipped_images": {},
        "versions": {"python": "3.11.9", "wattbench": "0.1.0", "apache-airflow": "3.3.2"},
        "hosts": dict(hosts),
    }  # fmt: skip


def _passes() -> list[dict[str, int]]:
    return [{"resolution": 256, "iterations": 400}, {"resolution": 512, "iterations": 200}]


def _host_document(design: Design, host: str) -> dict[str, Any]:
    gpu = [{"name": "GeForce RTX 4070", "driver": "570.86", "uuid": "GPU-5f"}]
    return {
        "host": host,
        "config": {"meter": {"kind": design.kind, "interval_ms": 500}, "gpus": ["GPU-5f"]},
        "facts": {
            "host": {
                "os": "Debian GNU/Linux 13", "kernel": "6.12.41", "cpu_model": "Intel Core i5-14500",
                "sockets": 1, "cores": 14, "memory_bytes": 34359738368, "virtual": False,
            },
            "docker": {"ok": True, "version": "28.3.2"},
            "cpu": {"governor": "performance", "turbo": False, "smt": True},
            "gpu": gpu if design.has_gpu else [],
            "machine": {
                "cpu.turbo": False, "kernel.thp": "madvise", "rapl.package[0].long_term_w": 65.0,
                **({"gpu[0].power_limit_w": 200.0} if design.has_gpu else {}),
            },
            "idle": {"cpu_pct": 0.4, "temperature_c": 38.0, "power_w": design.hosts[host].idle_w},
            "meter": {"ok": True, "kind": design.kind, "version": "energibridge 0.0.7"},
        },
        "problems": [
            {"code": "governor", "severity": "soft", "message": "the CPU governor is powersave",
             "action": "set it to performance"}
        ] if host == "edge-c" else [],
        "clock_offset_s": 0.004,
        "pulls": {
            name: {
                "image": f"registry.example/{name}@sha256:0", "seconds": 10 * image.size_gb,
                "bytes": int(image.size_gb * 4e8), "size_bytes_unpacked": int(image.size_gb * 1e9),
                "energy": pull_energy(design, host, name),
            }
            for name, image in design.images.items()
        },
    }  # fmt: skip


def pull_energy(design: Design, host: str, image: str) -> dict[str, Any]:
    """20 W above idle for the pull and 2 s; once the meter did not start."""
    if (host, image) == ("lab-b", "nvcr"):
        return {"why": "the meter ended with 101 before the workload started"}
    window_s = 10 * design.images[image].size_gb + 2
    return {
        "energy_j": (design.hosts[host].idle_w + 20) * window_s, "energy_uncertainty_j": 1.0,
        "energy_scope": "package", "window_s": window_s,
        "energy_source": "modelled" if design.kind == "modelled" else "measured",
    }  # fmt: skip


def _write_host(
    root: Path, design: Design, host: str, plan: list[dict[str, Any]]
) -> dict[str, dict[str, str]]:
    rng = np.random.default_rng([design.seed, *host.encode()])
    clock, again, outcomes, carried = RUN_START, [], {}, 1.0
    for trial in plan:
        if trial["block"] > design.skipped.get(host, design.blocks):
            reason = f"precise enough after {design.skipped[host]} blocks"
            outcomes[trial["name"]] = {"status": "skipped", "reason": reason}
            _put(
                root, f"hosts/{host}/outcomes/{trial['name']}.json", _json(outcomes[trial["name"]])
            )
            continue
        place = (host, trial["planned_position"])
        fails = place in design.lost or design.failing.get(place, 0) > 0
        clock = _attempt(
            root, design, host, trial | {"carried": carried}, 1, clock + 60, rng, fails=fails
        )
        carried = design.images[trial["image"]].carries if trial["kind"] == "workload" else 1.0
        if fails:
            again.append(trial)
    for trial in again:
        fails = (host, trial["planned_position"]) in design.lost
        clock = _attempt(root, design, host, trial, 2, clock + 60, rng, fails=fails)
    return outcomes


def _parts(
    design: Design, host: str, trial: Mapping[str, Any], noise: float, slow: float
) -> list[_Part]:
    machine, image = design.hosts[host], design.images[trial["image"]]
    if trial["kind"] == "idle":
        return [_Part("idle", design.steady_s / 2, machine.idle_w * (1 + noise / 2))]
    seconds = design.steady_s * machine.factor * image.time * slow
    drift = machine.drift * trial["planned_position"] / 60
    bias = machine.bias.get(trial["image"], 1.0)
    watts = machine.watts * image.energy / image.time / slow * (1 + noise + drift) * bias
    watts *= trial.get("carried", 1.0)
    calm = machine.idle_w + 0.35 * (machine.watts - machine.idle_w)
    return [
        _Part("start", 0.6, calm),
        _Part("import", 0.45 * image.startup_s, calm),
        _Part("load", 0.35 * image.startup_s, calm * 1.1),
        _Part("warmup", 0.2 * image.startup_s, machine.watts * 0.8),
        _Part("steady:256", 0.45 * seconds, watts * 0.92),
        _Part("steady:512", 0.55 * seconds, watts * 1.065),
        _Part("stop", 0.4, calm),
    ]


def _attempt(
    root: Path,
    design: Design,
    host: str,
    trial: Mapping[str, Any],
    attempt: int,
    start: float,
    rng: np.random.Generator,
    *,
    fails: bool,
) -> float:
    """Write one attempt; returns when its window ended."""
    noise, slow = rng.normal(0, design.hosts[host].noise), 1 + abs(rng.normal(0, 0.004))
    parts = _parts(design, host, trial, noise, slow)
    if fails:
        parts = parts[:3]
    served = None
    if design.server is not None and trial["kind"] == "workload":
        served = design.server.attempt(
            trial["image"], round(start, 3), design.hosts[host].idle_w, noise, rng
        )
        parts, fails = served.parts, served.dies
    end = start + sum(p.seconds for p in parts)
    start, end = round(start, 3), round(end, 3)
    folder = f"hosts/{host}/trials/{trial['name']}/{attempt}"
    csv = _csv(design, parts, start, rng)
    lines = b"" if trial["kind"] == "idle" else _workload(design, parts, start, fails)
    report = _report(design, host, trial, attempt, start, end, fails)
    files = {"energibridge.csv": csv, "workload.jsonl": lines}
    expected = {
        "kind": trial["kind"], "device": "cuda" if design.has_gpu else "cpu",
        "gpus": ["GPU-5f"] if design.has_gpu else [], "precision": "fp32", "batch": 1,
        "passes": _passes() if trial["kind"] == "workload" else [],
        "meter": design.kind, "interval_ms": 500,
    }  # fmt: skip
    if served is not None and design.server is not None:
        lines = b""
        files = {"energibridge.csv": csv, **served.files}
        expected |= {"precision": None, "passes": []} | design.server.expected
        _put(root, f"{folder}/truth.json", _json(served.truth))
        place, line = design.server.broken or (0, 0)
        if trial["planned_position"] == place:
            lines_of = files["requests.csv"].split(b"\n")
            lines_of[line - 1] = b"c4,torn"
            files["requests.csv"] = served.files["requests.csv"] = b"\n".join(lines_of)
        for name, data in served.files.items():
            _put(root, f"{folder}/{name}.gz", gzip.compress(data, mtime=0))
    report["files"] = {"energibridge.csv": {"bytes": len(csv), "sha256": _sha(csv)}}
    record = evaluate(
        RawAttempt(report, files),
        expected=expected,
        plan_row=TrialRow(
            run_id=design.run_id, host=host, kind=trial["kind"], block=trial["block"], position=None,
            planned_position=trial["planned_position"], image=trial["image"],
            digest=_digest(trial["image"]), attempt=attempt, late=attempt > 1,
            raw=f"runs/{design.run_id}/{folder}/energibridge.csv.gz",
        ),
    )  # fmt: skip
    _put(root, f"{folder}/energibridge.csv.gz", gzip.compress(csv, mtime=0))
    _put(root, f"{folder}/attempt.json", _json(report))
    _put(root, f"{folder}/trial.json", _json(record.to_dict()))
    _put(
        root, f"{folder}/stderr.log", b"RuntimeError: CUDA error: out of memory\n" if fails else b""
    )
    if lines:
        _put(root, f"{folder}/workload.jsonl", lines)
    return end


def _csv(design: Design, parts: list[_Part], start: float, rng: np.random.Generator) -> bytes:
    """EnergiBridge's file: cumulative J on the CPU, momentary mW of the GPU, every 500 ms."""
    ends = np.cumsum([p.seconds for p in parts])
    times = np.arange(-1.0, ends[-1] + 1.0, 0.5)
    place = np.clip(np.searchsorted(ends, times, side="right"), 0, len(parts) - 1)
    watts = np.array([p.watts for p in parts])[place]
    gpu_share = 0.55 if design.has_gpu else 0.0
    package_w, dram_w, gpu_w = watts * (0.9 - gpu_share), watts * 0.1, watts * gpu_share
    grid = np.arange(-1.0, ends[-1] + 1.0, 0.01)
    power = np.array([p.watts for p in parts])[
        np.clip(np.searchsorted(ends, grid, side="right"), 0, len(parts) - 1)
    ]
    energy = np.interp(times, grid, np.concatenate([[0.0], np.cumsum(power[:-1] * 0.01)]))
    offset = float(rng.uniform(1000, WRAP_J - 1))
    header = ["Delta", "Time", "CPU_USAGE_0", "DRAM_ENERGY (J)"]
    if design.has_gpu:
        header += ["GPU0_POWER (mWatts)", "GPU0_TEMPERATURE", "GPU0_USAGE"]
    header += ["PACKAGE_ENERGY (J)", "TOTAL_MEMORY", "USED_MEMORY"]
    rows = [",".join(header)]
    temperature = 42.0
    for i, t in enumerate(times):
        busy = watts[i] > 0.5 * watts.max() and len(parts) > 1
        temperature += 0.02 * ((78.0 if busy else 42.0) - temperature)
        cells = [
            "0" if i == 0 else "499", str(round((start + t) * 1000)), f"{97.0 if busy else 3.0:.3f}",
            f"{(offset + energy[i] * dram_w[0] / watts[0]) % 65536:.6f}",
        ]  # fmt: skip
        if design.has_gpu:
            cells += [f"{gpu_w[i] * 1000 + i % 7:.0f}", f"{temperature:.0f}", "98" if busy else "0"]
        cells += [
            f"{(offset + energy[i] * package_w[0] / watts[0]) % WRAP_J:.6f}",
            "34359738368", "4294967296",
        ]  # fmt: skip
        rows.append(",".join(cells))
    return ("\n".join(rows) + "\n").encode()


def _workload(design: Design, parts: list[_Part], start: float, fails: bool) -> bytes:
    return b"".join((json.dumps(e) + "\n").encode() for e in _events(design, parts, start, fails))


def _events(
    design: Design, parts: list[_Part], start: float, fails: bool
) -> Iterator[dict[str, Any]]:
    device = "cuda" if design.has_gpu else "cpu"

    def event(kind: str, at: float, /, **more: Any) -> dict[str, Any]:
        return {
            "event": kind,
            "unix_s": round(start + at, 6),
            "mono_s": round(1000 + at, 6),
            **more,
        }

    at = parts[0].seconds
    yield event("start", at, program="resnet50", framework="torch", precision="fp32")
    yield event("device", at, requested=device, actual=device, name="GPU", uuid="GPU-5f")
    yield event("versions", at, python="3.12.4", torch="2.9.0", threads=14)
    yield event("weights", at, sha256="ab" * 32, parameters=25557032, source="published")
    for part in parts[1:]:
        if part.name == "stop":
            continue
        yield event("phase", at, name=part.name, edge="begin")
        if part.name.startswith("steady:"):
            resolution = int(part.name.split(":")[1])
            n = {p["resolution"]: p["iterations"] for p in _passes()}[resolution]
            yield event("input", at, resolution=resolution, sha256=_sha(part.name.encode()))
        at += part.seconds
        yield event("phase", at, name=part.name, edge="end")
        if part.name.startswith("steady:"):
            yield event(
                "result", at, phase=part.name, resolution=resolution, iterations=n, batch=1,
                images=n, duration_s=part.seconds, fingerprint=[1.25, -0.5, 3.75],
            )  # fmt: skip
    if fails:
        yield event("error", at, message="CUDA error: out of memory")
    else:
        yield event("end", at, images=600)


def _report(
    design: Design,
    host: str,
    trial: Mapping[str, Any],
    attempt: int,
    start: float,
    end: float,
    fails: bool,
) -> dict[str, Any]:
    edge = {
        "temperature_c": 43.0, "swap": {"pswpin": 0, "pswpout": 0}, "throttle": {"cpu0": 0},
        "memory_available_bytes": 28e9, "cpu_busy_ns": 0,
    }  # fmt: skip
    rested = 60 + 20 * abs(np.sin(trial["planned_position"]))
    return {
        "schema": 1,
        "id": f"{design.run_id}/{host}/{trial['name']}/{attempt}",
        "spec": {"meter": {"kind": design.kind}, "kind": trial["kind"]},
        "state": "done",
        "message": "CUDA error: out of memory" if fails else "",
        "rc": 1 if fails else 0,
        "command": {
            "started": {"unix_s": start, "mono_s": 1000.0},
            "ended": {"unix_s": end, "mono_s": 1000.0 + end - start},
            "rc": 1 if fails else 0,
        },
        "container": {"id": "f00", "image_id": _digest(trial["image"]), "exit_code": int(fails)},
        "meter": {"argv": ["energibridge"], "rc": 0, "version": "energibridge 0.0.7", "outlived": False},
        "edges": {"before": edge, "after": edge | {"temperature_c": 66.0}},
        "connections": [{"verb": "start", "unix_s": start - 0.5}],
        "clock": {"unix_minus_mono_before": start - 1000.0, "unix_minus_mono_after": start - 1000.0},
        "boot": {"before": "b1", "after": "b1"},
        "rest": {
            "rested_s": round(rested, 1), "quiet": True, "timed_out": False,
            "readings": {"cpu_pct": 0.5, "temperature_c": 40 + 3 * abs(np.cos(trial["planned_position"])),
                         "power_w": design.hosts[host].idle_w},
        },
    }  # fmt: skip
