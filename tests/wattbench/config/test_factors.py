"""Factors and layers: which images they stand for, and the one line that each mistake gets."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.config_mistakes import refusal
from wattbench.config.dockerfile_ladder import ladder
from wattbench.config.experiment import Experiment
from wattbench.config.factors import MOST_IMAGES, Change, expand
from wattbench.config.loader import load_experiment, load_hosts, read_experiment
from wattbench.config.types import Image
from wattbench.errors import ConfigError
from wattbench.run.plan import make_plan

REPO = Path(__file__).parents[3]
REF = Image(ref="r.example/wattbench/bloated:1", env={"OMP_NUM_THREADS": "8"})
EXPERIMENT = """
hosts: [h]
workload: {passes: [{resolution: 256, iterations: 400}]}
images: {base: {ref: "r.example/wattbench/pip-venv:1", env: {OMP_NUM_THREADS: 8, LANG: C}}}
reference: base
factors:
  installer: {uv: {ref: "r.example/wattbench/uv:1"}}
  omp: {1: {env: {OMP_NUM_THREADS: 1}}, 4: {env: {OMP_NUM_THREADS: 4}}}
"""


def read(folder: Path, text: str) -> Experiment:
    path = folder / "night.yaml"
    path.write_text(text)
    return read_experiment(path)


def test_each_level_is_an_image_that_differs_in_nothing_else(tmp_path: Path) -> None:
    found = read(tmp_path, EXPERIMENT)
    assert list(found.images) == ["base", "installer-uv", "omp-1", "omp-4"]
    assert found.images["omp-4"].env == {"OMP_NUM_THREADS": "4", "LANG": "C"}
    assert found.images["omp-4"].ref == found.images["base"].ref
    assert found.images["installer-uv"].env == found.images["base"].env
    assert found.variants == {
        "installer-uv": {"installer": "uv"}, "omp-1": {"omp": "1"}, "omp-4": {"omp": "4"},
    }  # fmt: skip


def test_what_is_expanded_is_stored_and_read_again_as_it_is(tmp_path: Path) -> None:
    found = read(tmp_path, EXPERIMENT.replace('pip-venv:1"', 'bloated:1", layers: true'))
    assert found.ladders
    assert Experiment.model_validate(found.model_dump(mode="json")) == found


def test_a_factorial_design_combines_all_levels(tmp_path: Path) -> None:
    found = read(tmp_path, EXPERIMENT + "design: factorial\n")
    assert list(found.images) == [
        "base", "omp-1", "omp-4", "installer-uv", "installer-uv-omp-1", "installer-uv-omp-4",
    ]  # fmt: skip
    both = found.images["installer-uv-omp-4"]
    assert (both.ref, both.env["OMP_NUM_THREADS"]) == ("r.example/wattbench/uv:1", "4")
    assert found.variants["installer-uv-omp-4"] == {"installer": "uv", "omp": "4"}


counts = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@given(counts, st.sampled_from(["one-factor", "factorial"]))
def test_every_setting_is_an_image_of_its_own_once(levels: list[int], design: str) -> None:
    factors = {
        f"f{i}": {str(k): Change(env={f"V{i}": str(k)}) for k in range(n)}
        for i, n in enumerate(levels)
    }
    wanted = math.prod(n + 1 for n in levels) if design == "factorial" else 1 + sum(levels)
    if wanted > MOST_IMAGES:
        with pytest.raises(ValueError, match="more than 40 images; declare fewer levels, or set"):
            expand({"ref": REF}, "ref", factors, design, str)  # type: ignore[arg-type]
        return
    found = expand({"ref": REF}, "ref", factors, design, str)  # type: ignore[arg-type]
    assert len(found.images) == wanted
    assert len({str(i) for i in found.images.values()}) == wanted
    assert set(found.variants) == set(found.images) - {"ref"}
    for name, settings in found.variants.items():
        env = {f"V{factor[1:]}": level for factor, level in settings.items()}
        assert found.images[name].env == REF.env | env


def test_the_ladder_of_a_dockerfile_is_an_image_a_layer(tmp_path: Path) -> None:
    found = read(tmp_path, EXPERIMENT.replace('pip-venv:1"', 'bloated:1", layers: true'))
    rungs = found.ladders["base"]
    assert [r.number for r in rungs] == list(range(8))
    assert [r.image for r in rungs] == [*(f"base-layer-{n}" for n in range(7)), "base"]
    assert rungs[5].instruction == "RUN rm /opt/download.bin"
    refs = {str(found.images[r.image].ref) for r in rungs}
    assert len(refs) == 8
    assert all(ref.startswith("r.example/wattbench/bloated:1") for ref in refs)
    assert found.images["base-layer-3"].env == found.images["base"].env


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("reference: base", "reference: bass", "reference: 'bass' is not among images (base)"),
        ("1: {env: {OMP_NUM_THREADS: 1}}", "1: {env: {OMP_NUM_THREADS: 8}}",
         "factors.omp.1: changes nothing, it is the reference"),
        ("1: {env: {OMP_NUM_THREADS: 1}}", "1: {}", "factors.omp.1: changes nothing"),
        ("1: {env: {OMP_NUM_THREADS: 1}}", "1: {env: {OMP_NUM_THREADS: 4}}",
         "factors.omp.4: is the same as 'omp-1'; remove one of them"),
        ("1: {env: {OMP_NUM_THREADS: 1}}", "1: {envv: {OMP_NUM_THREADS: 1}}",
         "factors.omp.1.envv: unknown key; did you mean env? allowed: ref, command, python, env, framework"),
        ("1: {env", "off: {env", "factors.omp: YAML reads on, off, yes and no as true and false"),
        ("1: {env", "One: {env", "factors.omp: 'One': must be a name"),
        ("{uv: {ref:", "{uv: {ref: $(id), command:", "factors.installer.uv.ref"),
        ("images: {base:", "images: {omp-1: {ref: a/b}, base:", "there is an image 'omp-1' already; rename"),
        ("  omp:", f"  {'o' * 40}:", "longer than 40; shorten factor or level"),
        ("{uv: {ref:", "{}\n  other: {uv: {ref:", "factors.installer"),
        ("reference: base", "reference: base\ndesign: factorial\nhosts: [h]", "'hosts' stands twice"),
        ("reference: base", "reference: base\ndesign: all", "design: 'all': must be one of one-factor, factorial"),
        ("factors:", "design: factorial\nfactors:\n  threads: {2: {env: {OMP_NUM_THREADS: 2}}}",
         "factors.omp: threads sets env.OMP_NUM_THREADS too, so their levels can't be combined"),
        ("factors:", "design: factorial\nfacts:", "facts: unknown key; did you mean factors? allowed: description"),
        ('pip-venv:1"', 'unheard-of:1", layers: true', "images.base.layers: images/unheard-of/Dockerfile is not there"),
        ('pip-venv:1"', 'paper-nvcr:1", layers: true', "images/paper-nvcr/Dockerfile adds no layer"),
        ('ref: "r.example/wattbench/pip-venv:1"', "runtime: process, command: python3, layers: true",
         "runtime: process has no layers"),
        ('pip-venv:1"', f'bloated@sha256:{64 * "a"}", layers: true', "name it by a tag"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_with_file_path_and_next_action(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in EXPERIMENT
    line = refusal(read, tmp_path, EXPERIMENT.replace(old, new))
    assert said in line
    assert re.match(rf"{tmp_path.name}/night\.yaml( line \d+)?: ", line)


def test_a_factorial_of_one_factor_is_refused(tmp_path: Path) -> None:
    text = EXPERIMENT.partition("  omp:")[0] + "design: factorial\n"
    with pytest.raises(ConfigError, match="design: factorial needs at least two factors"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "images", "shipped"),
    [("ablation", 8, "hosts.example.yaml"), ("demo-ablation", 15, None)],
)
def test_the_shipped_ablations_are_valid_and_can_be_planned(
    tmp_path: Path, name: str, images: int, shipped: str | None
) -> None:
    text = (REPO / "config/experiments" / f"{name}.yaml").read_text()
    hosts = {"store": {"bucket": "wattbench"}, "hosts": {}}
    hosts["hosts"] = {h: {"ssh_conn_id": "c"} for h in yaml.safe_load(text)["hosts"]}
    example = (REPO / "config" / shipped).read_text() if shipped else yaml.safe_dump(hosts)
    (tmp_path / "hosts.yaml").write_text(example)
    path = REPO / "config/experiments" / f"{name}.yaml"
    found = load_experiment(path, load_hosts(tmp_path))
    assert len(found.images) == images
    assert len({factor for settings in found.variants.values() for factor in settings}) >= 4
    plan = make_plan(list(found.images), found.protocol, found.hosts[0], "1")
    first = [t.image for t in plan if t.block == 1 and t.kind == "workload"]
    assert sorted(first) == sorted(found.images)


def test_levels_change_the_workload_and_the_container_of_the_reference(tmp_path: Path) -> None:
    text = EXPERIMENT.replace(
        "factors:",
        """factors:
  precision: {half: {workload: {precision: fp16}}}
  memory: {little: {container: {memory: 1g, volumes: {/b: /srv/b}}}}""",
    )
    text = text.replace(
        "images: {base: {", "images: {base: {container: {cpus: 2, volumes: {/a: /srv/a}}, "
    )
    found = read(tmp_path, text)
    assert found.workload_of("precision-half").model_dump()["precision"] == "fp16"
    assert found.workload_of("base").model_dump()["precision"] == "fp32"
    container = found.container_of("memory-little")
    assert (container.cpus, container.memory) == (2, 1 << 30)
    assert {path: volume.host for path, volume in container.volumes.items()} == {
        "/a": "/srv/a", "/b": "/srv/b",
    }  # fmt: skip
    assert found.container_of("precision-half") == found.container_of("base")


def test_a_level_with_an_unknown_key_of_the_workload_is_refused_in_one_line(tmp_path: Path) -> None:
    text = EXPERIMENT.replace("1: {env: {OMP_NUM_THREADS: 1}}", "1: {workload: {batches: 2}}")
    assert "images.omp-1.workload.batches: unknown key" in refusal(read, tmp_path, text)


# Dockerfiles ------------------------------------------------------------------------------------

TAIL = 'USER 10001\nENTRYPOINT ["python3"]\n'
DOCKERFILE = f"""\
# Why this image.
ARG BASE=debian:bookworm-slim
FROM ${{BASE}} AS build
RUN make everything
FROM ${{BASE}}

# installs
RUN apt-get update \\
 # beside the point
 && apt-get install python3
ENV PATH=/opt/bin
copy a b
{TAIL}"""


def test_a_rung_has_the_first_layers_of_the_last_stage_and_all_settings() -> None:
    base, first, whole = ladder(DOCKERFILE)
    assert whole.text == DOCKERFILE
    assert [r.instruction for r in (base, first, whole)] == [
        "", "RUN apt-get update && apt-get install python3", "copy a b",
    ]  # fmt: skip
    for rung in (base, first):
        assert "RUN make everything\n" in rung.text
        assert "ENV PATH=/opt/bin\n" in rung.text
        assert rung.text.endswith(TAIL)
        assert "copy a b" not in rung.text
    assert "apt-get install" in first.text
    assert "apt-get" not in base.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TAIL, "has no FROM"),
        (f"FROM a\nENV B=c\n{TAIL}", "adds no layer"),
        (f"FROM a\nRUN <<EOF\necho\nEOF\n{TAIL}", "here-document can't be taken apart"),
        (f"FROM a\n{TAIL}RUN b \\\n", "ends in the middle of an instruction"),
    ],
)
def test_a_dockerfile_that_has_no_ladder_says_why(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ladder(text)


@given(
    st.lists(st.sampled_from(["RUN a", "COPY b c", "ENV D=e", "WORKDIR /f", "# g", "RUN h \\\n i"]))
)
def test_rungs_grow_by_one_instruction_each(steps: list[str]) -> None:
    text = "\n".join(["FROM base", *steps, TAIL])
    layers = sum(s.startswith(("RUN", "COPY")) for s in steps)
    if not layers:
        with pytest.raises(ValueError, match="adds no layer"):
            ladder(text)
        return
    rungs = ladder(text)
    assert [r.number for r in rungs] == list(range(layers + 1))
    sizes = [sum(line.startswith(("RUN", "COPY")) for line in r.text.splitlines()) for r in rungs]
    assert sizes == [sizes[0] + n for n in range(layers + 1)]
    assert {r.text.count("ENV ") for r in rungs} == {steps.count("ENV D=e")}
