"""Validation errors of the config models as one line: file, line, key, what is expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from wattbench.config.types import NAME_LENGTH, NAME_PATTERN

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from wattbench.config.yaml_document import KeyPath, YamlDocument

#: Names of a union's branches in pydantic's paths: models, types, functions.
_BRANCH = re.compile(r"[^\w.@ -]|^[A-Z]\w+$|^constrained-|^(int|str|float|bool)$")
#: Error types of pydantic → what is expected, with the error's context filled in.
EXPECTED = {
    "int": "be a whole number",
    "float": "be a number",
    "bool": "be true or false",
    "string": "be text; put it in quotes",
    "list": "be a list",
    "dict": "be a mapping of keys to values",
    "model": "be a mapping of keys to values",
    "greater_than": "be more than {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be less than {lt}",
    "less_than_equal": "be at most {le}",
    "too_short": "not be empty",
    "string_too_short": "not be empty",
    "string_too_long": "have at most {max_length} characters",
    "finite_number": "be a finite number",
}  # fmt: skip


def describe(error: ValidationError, model: type[BaseModel], document: YamlDocument) -> str:
    """The most telling mistake with its place, and how many more there are."""
    mistakes = error.errors(include_url=False)
    first = _most_telling(mistakes)
    path = _path_of(first)
    message = _message(first, model, path)
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    key = ".".join(str(part) for part in path)
    return f"{document.at(path)}: {key}: {message}{more}" if key else (
        f"{document.place}: {message}{more}"
    )  # fmt: skip


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a mistyped one most likely means."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)


def _most_telling(mistakes: Sequence[ErrorDetails]) -> ErrorDetails:
    """A misspelt key is the cause of the missing one beside it.

    In a union each branch complains; the longest path belongs to the branch that was meant.
    """
    unknown = [m for m in mistakes if m["type"] == "extra_forbidden"]
    if unknown:
        return unknown[0]
    if len({m["loc"][:2] for m in mistakes}) == 1:
        return max(mistakes, key=lambda m: len(m["loc"]))
    return mistakes[0]


def _path_of(mistake: ErrorDetails) -> KeyPath:
    """The path in the file: pydantic's own also names the branches of unions."""
    loc = mistake["loc"]
    return tuple(part for part in loc if isinstance(part, int) or not _BRANCH.search(part))


def _message(mistake: ErrorDetails, model: type[BaseModel], path: KeyPath) -> str:
    kind, given = mistake["type"], mistake["input"]
    if kind == "extra_forbidden":
        return _unknown_key(str(path[-1]), _model_at(model, mistake["loc"][:-1]))
    if kind == "missing":
        return "is missing; add it"
    if kind in ("value_error", "workload_kind", "meter_kind"):
        message = mistake["msg"].removeprefix("Value error, ")
        plain = isinstance(given, (str, int, float)) and repr(given) not in message
        return f"{_short(given)} {message}" if plain and message.startswith("is ") else (
            f"{_short(given)}: {message}" if plain else message
        )  # fmt: skip
    return f"{_short(given)}: must {_expected(mistake)}"


def _expected(mistake: ErrorDetails) -> str:
    kind, context = mistake["type"], mistake.get("ctx", {})
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(context["expected"]))
        meant = nearest(str(mistake["input"]), allowed)
        return f"be one of {', '.join(allowed)}" + (f"; did you mean {meant}?" if meant else "")
    if kind == "string_pattern_mismatch":
        if context["pattern"] == NAME_PATTERN:
            return f"be a name: small letters, digits and '-', {NAME_LENGTH} characters at most"
        return f"match {context['pattern']}"
    word = EXPECTED.get(kind) or EXPECTED.get(kind.partition("_")[0])
    return word.format(**context) if word else f"be valid: {mistake['msg']}"


def _unknown_key(key: str, parent: type[BaseModel] | None) -> str:
    if parent is None:
        return "unknown key"
    allowed = keys_of(parent)
    meant = nearest(key, allowed)
    hint = f"did you mean {meant}? " if meant else ""
    return f"unknown key; {hint}allowed: {', '.join(allowed)}"


def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by their keys in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "be a list" if value else "an empty list"
    return "null" if value is None else repr(value)[:80]


def _model_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model whose keys a path's end belongs to, as far as it can be known."""
    current: type[BaseModel] | None = model
    for part in loc:
        if current is None:
            return None
        if (field := keys_of(current).get(str(part))) is None:
            continue
        found = _models_in(field.annotation)
        named = [
            m for m in found if m.__name__ in map(str, loc)
        ]  # a union's branch, as pydantic names it
        current = next(iter(named or found), None)
    return current


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for arg in getattr(annotation, "__args__", ()) for m in _models_in(arg)]
