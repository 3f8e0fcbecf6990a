"""Base of the models that describe a workload in an experiment's YAML."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _argv(value: object) -> object:
    return shlex.split(value) if isinstance(value, str) else value


PositiveInt = Annotated[int, Field(ge=1)]
#: A command: a list of words, or one line that is split as a shell would, without running one.
Command = Annotated[
    list[str], BeforeValidator(_argv, json_schema_input_type=list[str] | str), Field(min_length=1)
]


class Model(BaseModel):
    """A model that knows its keys and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(Model):
    """What an experiment's ``workload`` holds; each kind has its own, with its ``kind`` as default.

    Attributes:
        kind: of the workload; chosen by the other keys if not given.
    """

    kind: str

    def changed(self, changes: dict[str, Any]) -> Settings:
        """The same workload with some keys changed, as an image or a factor's level changes them.

        Raises:
            ValidationError: it can't be changed so.
        """
        return type(self).model_validate(self.model_dump() | changes)
