"""What an answer holds: the value that must be the same for all images, and tokens.

A streamed answer of an OpenAI API is read as server-sent events and put together to what the server would
have answered without streaming, so that one path finds the value in both.
"""

from __future__ import annotations

import hashlib
import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Union

    Path = tuple[Union[str, int], ...]

#: APIs whose answers are streamed, and what is asked for.
STREAMED = {"openai-chat": "/v1/chat/completions", "openai-completions": "/v1/completions"}
#: A larger answer is not kept: it can't be parsed.
MOST_BYTES = 4 << 20
#: No answer has more tokens.
_MOST_TOKENS = 1 << 40

_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\[\"([^\"\]]+)\"\]")


class AnswerError(Exception):
    """An answer that can't be used: ``word`` for the record, and one line."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


def parse_path(text: str) -> Path:
    """The steps of ``$.choices[0].text``.

    Raises:
        ValueError: it is something else.
    """
    steps: list[str | int] = []
    at = 1
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            break
        name, index, quoted = found.groups()
        steps.append(int(index) if index is not None else name or quoted)
        at = found.end()
    if not text.startswith("$") or at < len(text):
        raise ValueError("%r is not a path such as $.label or $.choices[0].text" % text)
    return tuple(steps)


def value_at(document: Any, path: Path) -> Any:
    """What a path leads to.

    Raises:
        AnswerError: ``answer``: it leads nowhere.
    """
    for step in path:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            raise AnswerError("answer", "the answer has no %r" % step) from None
    return document


def fingerprint(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a value as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Plain:
    """An answer that is one document, read only if a value of it is asked for.

    Args:
        path: to the value that must be the same; None: the body is not looked at.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._body = bytearray()
        self.first_s: float | None = None
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.counted = False

    def head(self, _headers: Sequence[tuple[bytes, bytes]], first_s: float) -> None:
        """The headers have come, their first byte at ``first_s``."""
        self.first_s = first_s

    def feed(self, data: bytes, _now_s: float) -> None:
        """A part of the body has come."""
        if self._path is not None and len(self._body) <= MOST_BYTES:
            self._body += data

    def answer(self) -> str:
        """Fingerprint of the value; empty where none is asked for.

        Raises:
            AnswerError: the body is not JSON, or has no such value.
        """
        if self._path is None:
            return ""
        return fingerprint(value_at(_json(bytes(self._body)), self._path))


class Stream:
    """An answer of an OpenAI API: server-sent events, or one document where the server does not stream.

    Args:
        api: a key of :data:`STREAMED`.
        path: as of :class:`Plain`.
    """

    def __init__(self, api: str, path: Path | None) -> None:
        self._chat, self._path = api == "openai-chat", path
        self._events = False
        self._rest = bytearray()
        self._bytes = 0
        self._texts: list[str] = []
        self._finish: Any = None
        self._usage: Any = None
        self._ended = False
        self._problem: AnswerError | None = None
        self.first_s: float | None = None
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None
        self.counted = False

    def head(self, headers: Sequence[tuple[bytes, bytes]], _first_s: float) -> None:
        """The headers have come: they say whether events follow."""
        kind = dict(headers).get(b"content-type", b"")
        self._events = kind.split(b";")[0].strip().lower() == b"text/event-stream"

    def feed(self, data: bytes, now_s: float) -> None:
        """A part of the body has come."""
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            return
        self._rest += data
        if not self._events:
            self.first_s = self.first_s or now_s
            return
        *lines, rest = bytes(self._rest).replace(b"\r\n", b"\n").split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            if line.startswith(b"data:") and self._problem is None:
                self._event(line[5:].strip(), now_s)

    def _event(self, data: bytes, now_s: float) -> None:
        if data == b"[DONE]":
            self._ended = True
            return
        try:
            chunk = _json(data)
            self._chunk(chunk, now_s)
        except AnswerError as error:
            self._problem = error

    def _chunk(self, chunk: Any, now_s: float) -> None:
        if not isinstance(chunk, dict):
            raise AnswerError("parse", "an event of the answer is not a JSON object")
        if chunk.get("error"):
            raise AnswerError("answer", "the server reports: %s" % _said(chunk["error"]))
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        part = choice.get("delta") if self._chat else choice
        text = part.get("content" if self._chat else "text") if isinstance(part, dict) else None
        self._finish = choice.get("finish_reason") or self._finish
        if isinstance(text, str) and text:
            self.first_s = self.first_s or now_s
            self._texts.append(text)

    def answer(self) -> str:
        """Fingerprint of the value; sets the tokens.

        Raises:
            AnswerError: it is not an answer of this API.
        """
        if self._bytes > MOST_BYTES:
            raise AnswerError("parse", "the answer has more than %d MiB" % (MOST_BYTES >> 20))
        document = self._together() if self._events else _json(bytes(self._rest))
        if not isinstance(document, dict) or not isinstance(document.get("choices"), list):
            said = _said(document.get("error")) if isinstance(document, dict) else ""
            raise AnswerError("parse", said or "the answer has no choices: it is not of this API")
        usage = document.get("usage")
        if isinstance(usage, dict):
            self.tokens_in = _count(usage.get("prompt_tokens"))
            self.tokens_out = _count(usage.get("completion_tokens"))
        if self.tokens_out is None:
            self.tokens_out, self.counted = len(self._texts), True
        return "" if self._path is None else fingerprint(value_at(document, self._path))

    def _together(self) -> dict[str, Any]:
        """What the events add up to: the document of an answer that is not streamed."""
        if self._problem is not None:
            raise self._problem
        if not self._ended and self._finish is None:
            raise AnswerError("parse", "the stream of the answer ends before its last event")
        text = "".join(self._texts)
        said = {"message": {"content": text}} if self._chat else {"text": text}
        return {
            "choices": [{**said, "finish_reason": self._finish}],
            **({} if self._usage is None else {"usage": self._usage}),
        }


def _json(data: bytes) -> Any:
    if len(data) > MOST_BYTES:
        raise AnswerError("parse", "the answer has more than %d MiB" % (MOST_BYTES >> 20))
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        said = data[:60].decode("utf-8", "replace")
        raise AnswerError("parse", "the answer is not JSON: %r" % said) from None


def _said(error: Any) -> str:
    text = error.get("message") if isinstance(error, dict) else error
    return str(text)[:200] if text else ""


def _count(value: Any) -> int | None:
    number = isinstance(value, int) and not isinstance(value, bool)
    return value if number and 0 <= value < _MOST_TOKENS else None
