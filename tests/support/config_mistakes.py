"""Mistakes that people make in experiments/: in a file's text, in its name, in what it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wattbench.errors import ConfigError

HOSTS = """
store: {conn_id: wattbench_store, bucket: wattbench, prefix: ""}
hosts:
  gpu-a: {ssh_conn_id: wattbench_gpu_a, gpus: [GPU-5f], meter: {kind: energibridge, command: /usr/local/bin/energibridge}}
  cpu-b: {ssh_conn_id: wattbench_cpu_b}
"""
EXPERIMENT = """
hosts: [gpu-a]
device: cuda
workload: {passes: [{resolution: 256, iterations: 400}]}
images: {pytorch: {ref: "pytorch/pytorch:2.6.0"}, metal: {runtime: process, command: python3 run.py}}
reference: pytorch
"""
#: What EXPERIMENT's text has, what a mistake has in its place, and what the message says.
MISTAKES = [
    ("device: cuda", "devise: cuda", "line 3: devise: unknown key; did you mean device? allowed: description, schedule"),
    ("reference: pytorch", "reference: tf", "'tf' is not among images (pytorch, metal)"),
    ("reference: pytorch", "", "reference: is missing"),
    ("pytorch/pytorch:2.6.0", "pytorch;reboot", "images.pytorch.ref"),
    ("pytorch/pytorch:2.6.0", "$(id)", "images.pytorch.ref"),
    ("pytorch: {ref", "idle: {ref", "'idle' is a reserved name"),
    ("iterations: 400", "iterations: 0", "line 4: workload.passes.0.iterations: 0: must be at least 1"),
    ("hosts: [gpu-a]", "hosts: [gpu-z]", "'gpu-z' is not in hosts.yaml (gpu-a, cpu-b)"),
    ("hosts: [gpu-a]", "hosts: [gpu-a, gpu-a]", "a name stands twice"),
    ("hosts: [gpu-a]", "hosts: [cpu-b]", "gives 'cpu-b' no gpus"),
    ("hosts: [gpu-a]", "hosts: []", "hosts: an empty list: must not be empty"),
    ("device: cuda", "protocol: {blocks: 0}", "protocol.blocks: 0: must be at least 1"),
    ("device: cuda", "protocol: {blocks: {min: 3, max: 9, precision_pct: 1}}", "protocol.blocks.min: 3"),
    ("device: cuda", "protocol: {idle_baseline: {secnds: 5}}", "protocol.idle_baseline.secnds: unknown key"),
    ("device: cuda", "device: cuda\ndevice: cpu", "line 4: 'device' stands twice (also in line 3)"),
    ("device: cuda", "device: [", "line 5: not YAML: did not find expected"),
]  # fmt: skip


def _merge_bomb() -> str:
    levels = ["a0: &a0 {x: 1}"]
    levels += [f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 60)]
    return "\n".join(levels)


#: File → (content, the id of its DAG, what its page says). ``{}`` is a sound experiment's text.
FILES = {
    "path.yaml": ("{}", "path", None),
    "logging.yaml": ("{}", "logging", None),
    "globals.yaml": ("{}", "globals", None),
    "cron.yaml": ("{}\nschedule: every day", "cron", "schedule: 'every day' is not a cron line"),
    "six-fields.yaml": ("{}\nschedule: '0 0 1 * * *'", "six-fields", "is not a cron line"),
    "no-such-day.yaml": ("{}\nschedule: '0 0 31 2 *'", "no-such-day", "schedule"),
    "A b.yaml": ("{}", "A-b", "rename it"),
    "A-b.yaml": ("{}", "A-b-refused", "rename it"),
    "x.yml": ("{}", "x", "experiments end with .yaml; rename it"),
    "é.yaml": ("{}", "-", "rename it"),
    "wattbench-retention.yaml": ("{}", "wattbench-retention", "a DAG of wattbench itself"),
    "list-as-key.yaml": ("? [a, b]\n: c\n", "list-as-key", "line 1: a key is a list or mapping"),
    "deep.yaml": ("a: " + "[" * 5000 + "]" * 5000, "deep", "nested more than"),
    "bomb.yaml": (_merge_bomb(), "bomb", "expand to more than"),
    "self.yaml": ("a: &a [*a]", "self", "contains itself"),
    "tag.yaml": ("a: !!python/object/apply:os.system [id]", "tag", "not a valid value"),
    "date.yaml": ("{}\ndescription: 2026-13-45", "date", "not a valid value"),
    "digits.yaml": ("{}\nseed: " + "9" * 9000, "digits", "digits"),
    "nul.yaml": ("{}\ndescription: \"\\0\"\0", "nul", "not YAML"),
    "empty.yaml": ("", "empty", "is empty"),
    "nan.yaml": ("{}\nalert_after_h: .nan", "nan", "alert_after_h"),
}  # fmt: skip
#: Files that hold no text, each with the id of its DAG.
SPECIAL = {"latin.yaml": "latin", "gone.yaml": "gone", "pipe.yaml": "pipe", "zero.yaml": "zero"}
#: Files beside experiments that are none.
PASSED_OVER = (".exp-00.yaml.swp", "notes.md", "bench.py", "exp-00.yaml~")


def write_bad_files(folder: Path, sound: str) -> None:
    """Files of every kind into experiments/.

    Args:
        folder: experiments/.
        sound: text of an experiment.
    """
    for name, (text, _, _) in FILES.items():
        (folder / name).write_text(text.replace("{}", sound, 1))
    (folder / "latin.yaml").write_bytes(b"description: \xff\xfe\n")
    (folder / "folder.yaml").mkdir()
    (folder / "gone.yaml").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.yaml")
    (folder / "zero.yaml").symlink_to("/dev/zero")
    for name in PASSED_OVER:
        (folder / name).write_text("")


def refusal(read: Callable[..., object], *arguments: object) -> str:
    """The line in which a configuration is refused; fails if it is accepted or takes several lines."""
    with pytest.raises(ConfigError) as caught:
        read(*arguments)
    line = str(caught.value)
    assert "\n" not in line
    return line
