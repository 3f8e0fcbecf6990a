r"""The mapping file: facts that a campaign's files do not hold, and names of other layouts.

Every key is optional. An example::

    name: resnet50-images
    reference: pytorch-base
    sizes_gb: {ubuntu: 9.11, python: 9.95, cuda: 12.91, pytorch: 9.62, nvcr: 40.86}
    expected_trials: 30
    iterations: {256: 400, 512: 200, 1024: 133, 2048: 100}
    printed:
      relative:
        - {image: cuda-base, median_diff_j: 454.88, median_diff_pct: 1.22,
           size_diff_gb: 3.29, size_diff_pct: 34.2}

    raw: {glob: "**/run_*/energy.csv", image: "^([^/]+)/", run: "run_(\d+)"}
    columns: {"PKG (J)": "PACKAGE_ENERGY (J)"}
    derived: {glob: "tables/*.csv", run: run, energy_j: joules, duration_s: seconds}

Images may be written with or without ``-base`` and ``_idle``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from wattbench.analysis.model.errors import InputError
from wattbench.analysis.storage.documents import read_yaml

#: What names of one image may end with, taken off in this order.
SUFFIXES = ("_output.csv", "_idle", "-base")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RawFiles(_Strict):
    """Where raw meter logs are, and what their paths say.

    Attributes:
        glob: relative to the campaign.
        image: pattern searched in the relative path; its first group is the image.
        run: likewise the run number.
        idle: pattern of idle runs' paths.
    """

    glob: str
    image: str | None = None
    run: str | None = None
    idle: str | None = None

    @field_validator("image", "run", "idle")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _groups(self) -> Self:
        for name in ("image", "run"):
            pattern = getattr(self, name)
            if pattern is not None and re.compile(pattern).groups < 1:
                raise ValueError(f"{name}: {pattern!r} needs a group (…) around the {name}")
        return self


class DerivedFiles(_Strict):
    """Summary CSVs with one row per run; the column names default to those of their headers."""

    glob: str = "**/*_output.csv"
    run: str | None = None
    energy_j: str | None = None
    duration_s: str | None = None


class Mapping(_Strict):
    """A campaign's mapping file.

    Attributes:
        name: the campaign's name; its folder's by default.
        host: the machine's name.
        reference: the image the others are compared with.
        device: device that the workload was meant to use.
        sizes_gb: uncompressed image sizes, GB.
        expected_trials: trials per image that the campaign claims.
        iterations: inferences for each image size (resolution) of the workload.
        cuda_images: images built for CUDA; by default recognised by name and banner.
        images: other names of images: as found → as shown.
        suffixes: what names of one image may end with: load, idle and published data that differ in
            these only are one image's.
        factors: experiment-runner's columns that make up the treatment.
        raw: where raw logs are.
        logs: glob of text logs.
        derived: where derived tables are.
        columns: columns of raw logs: as found → EnergiBridge's name.
        versions: versions that the text claims, by the name that a banner has, such as ``CUDA: "12.6"``.
        printed: published tables by name, rows of cells as printed.
    """

    name: str | None = None
    host: str = ""
    reference: str | None = None
    device: str | None = None
    sizes_gb: dict[str, Annotated[float, Field(gt=0)]] = {}
    expected_trials: Annotated[int, Field(gt=0)] | None = None
    iterations: dict[int, Annotated[int, Field(gt=0)]] = {}
    cuda_images: list[str] | None = None
    images: dict[str, str] = {}
    suffixes: tuple[str, ...] = SUFFIXES
    factors: list[str] | None = None
    raw: RawFiles | None = None
    logs: str | None = None
    derived: DerivedFiles = DerivedFiles()
    columns: dict[str, str] = {}
    versions: dict[str, str] = {}
    printed: dict[str, list[dict[str, str | float | None]]] = {}

    def key(self, image: str) -> str:
        """The name under which load, idle and published data of an image are joined."""
        return key_of(image, self.suffixes)

    @field_validator("printed")
    @classmethod
    def _known_tables(
        cls, value: dict[str, list[dict[str, Any]]]
    ) -> dict[str, list[dict[str, Any]]]:
        from wattbench.analysis.stats import (
            paper_tables,  # seconds of import, spared where nothing is printed
        )

        for table, rows in value.items():
            if table not in paper_tables.COLUMNS:
                raise ValueError(f"no table {table!r}; known: {', '.join(paper_tables.COLUMNS)}")
            known = paper_tables.COLUMNS[table]
            for row in rows:
                if odd := set(row) - set(known):
                    raise ValueError(
                        f"{table}: no column {sorted(odd)[0]!r}; known: {', '.join(known)}"
                    )
        return value


def load(path: Path | None) -> Mapping:
    """Read a mapping file; None: one without entries.

    Raises:
        InputError: it can't be read, is not YAML, or holds an unknown or ill-typed key.
    """
    if path is None:
        return Mapping()
    try:
        data = read_yaml(path)
    except OSError as error:
        raise InputError(
            f"{path}: can't be read ({error.strerror}); correct it or leave out --mapping"
        ) from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds no keys; see `wattbench audit --help`")
    try:
        return Mapping.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        allowed = (
            f"; allowed: {', '.join(Mapping.model_fields)}"
            if first["type"] == "extra_forbidden" and len(first["loc"]) == 1
            else ""
        )
        raise InputError(
            f"{path}: {key}: {first['msg']}{allowed}; correct it and run again"
        ) from error


def key_of(image: str, suffixes: Iterable[str] = SUFFIXES) -> str:
    """The name under which load, idle and derived data of an image are joined."""
    for suffix in suffixes:
        image = image.removesuffix(suffix)
    return image
