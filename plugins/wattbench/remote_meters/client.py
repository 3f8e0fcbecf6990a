"""JSON over HTTP from a meter: strict about what it is given, and silent about logins."""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from wattbench.errors import UserError

if TYPE_CHECKING:
    import requests

#: Longest wait for a connection and between two parts of an answer, s; all of it may take twice that.
TIMEOUT_S = 5.0
#: The largest answer that is read, bytes.
LARGEST_BYTES = 64 << 20
#: How an Airflow connection's login is sent.
WAYS = ("basic", "digest", "bearer", "query")
_SECRET_KEYS = ("password", "passwd", "token", "secret", "apikey", "api_key", "key")


class RemoteMeterError(UserError):
    """A meter that can't be read, or whose values can't be used; holds no login."""


@dataclass(frozen=True)
class Access:
    """How to reach one meter.

    Attributes:
        way: of :data:`WAYS`.
        username: of the login; None: no login.
        password: or the token.
        ca_file: certificates that the meter's own is checked against; None: those of the system.
    """

    way: str = "basic"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    @property
    def has_login(self) -> bool:
        """Whether it has anything to prove itself with."""
        return bool(self.username or self.password)


def refuse_secrets(url: str) -> None:
    """Refuse a URL of hosts.yaml that holds a login.

    Raises:
        ValueError: it holds one, or is not a URL.
    """
    parts = urllib.parse.urlsplit(url)
    keys = {key.lower() for key in urllib.parse.parse_qs(parts.query, keep_blank_values=True)}
    if "@" in url.partition("?")[0] or keys & set(_SECRET_KEYS):
        raise ValueError(
            "the URL holds a login; put it into an Airflow connection and name that as conn_id"
        )
    if not parts.hostname or parts.port == 0:  # reading an impossible port raises too
        raise ValueError("url names no host; write http://ADDRESS/…")


class Client:
    """Asks one meter for JSON documents."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._session: requests.Session | None = None

    def json(self, url: str, query: Mapping[str, str] | None = None) -> tuple[Any, float]:
        """A document and how long asking for it took, s; its numbers are Decimals.

        Raises:
            RemoteMeterError: no answer, a refusal, or not JSON.
        """
        import requests

        session = self._session = self._session or self._opened()
        given = dict(query or {})
        if self.access.way == "query" and self.access.has_login:
            given |= {"user": self.access.username or "", "password": self.access.password or ""}
        began = time.monotonic()
        try:
            with session.get(
                url, params=given, timeout=TIMEOUT_S, stream=True, allow_redirects=False
            ) as answer:
                body = _body(answer, began + 2 * TIMEOUT_S)
        except (requests.RequestException, OSError) as error:
            self.close()
            raise RemoteMeterError(_no_answer(url, error)) from None
        trip_s = time.monotonic() - began
        if answer.status_code >= 300:
            raise RemoteMeterError(self._refusal(answer, body))
        return _parsed(body), trip_s

    def without_login(self, text: str) -> str:
        """A message without the password, which a server may have repeated in its answer."""
        secret = self.access.password
        for form in (
            {secret, urllib.parse.quote(secret), urllib.parse.quote_plus(secret)} if secret else ()
        ):
            text = text.replace(form, "***")
        return text

    def close(self) -> None:
        """End the connection; the next question opens another."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _opened(self) -> requests.Session:
        import requests
        from requests.auth import HTTPBasicAuth, HTTPDigestAuth

        session, access = requests.Session(), self.access
        session.trust_env = False  # neither proxies nor ~/.netrc
        session.headers.update({"User-Agent": "wattbench", "Accept": "application/json"})
        session.verify = access.ca_file or True
        login = (access.username or "", access.password or "")
        if access.way == "bearer" and access.password:
            session.headers["Authorization"] = f"Bearer {access.password}"
        elif access.way == "digest" and access.has_login:
            session.auth = HTTPDigestAuth(*login)
        elif access.way == "basic" and access.has_login:
            session.auth = HTTPBasicAuth(*login)
        return session

    def _refusal(self, answer: requests.Response, body: bytes) -> str:
        status = f"answers {answer.status_code} {answer.reason}"
        if answer.status_code in (401, 403):
            if self.access.has_login:
                return f"{status}: it refuses the login of its connection; correct it (login, password, auth)"
            return f"{status}: it needs a login; put it into an Airflow connection and name that as conn_id"
        if answer.is_redirect:
            place = urllib.parse.urlsplit(answer.headers.get("location", ""))
            target = f"{place.scheme}://{place.netloc}" if place.netloc else "another address"
            return f"{status}: it sends on to {target}; give that address as url"
        return f"{status}{_said(body)}; correct its url or query"


def _body(answer: requests.Response, deadline: float) -> bytes:
    body = bytearray()
    for block in answer.iter_content(1 << 16):
        body += block
        if len(body) > LARGEST_BYTES:
            raise OSError("its answer has no end")
        if time.monotonic() > deadline:
            raise OSError("its answer takes too long")
    return bytes(body)


def _no_answer(url: str, error: Exception) -> str:
    """Why there is no answer, from the class of the error: its text may hold the query."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        why = "its certificate can't be verified"
        text = str(error).upper().replace(" ", "_")
        if "WRONG_VERSION" in text or "RECORD_LAYER" in text:
            return "speaks no TLS there; give its url with http://"
        return f"{why}; name its certificate as ca_file in the extra of its connection"
    if isinstance(error, requests.Timeout):
        return f"does not answer within {TIMEOUT_S:g} s; check its address and power"
    if isinstance(error, requests.ConnectionError):
        hint = "" if url.startswith("https:") else "; if it needs TLS, give its url with https://"
        return f"can't be reached or hangs up; check its address, port and power{hint}"
    if isinstance(error, requests.RequestException):
        return f"can't be asked ({type(error).__name__}); correct its url"
    return f"can't be read: {error.strerror if isinstance(error, OSError) and error.strerror else error}"


def _parsed(body: bytes) -> Any:
    text = body.decode("utf-8", "replace").strip()
    if text[:1] == "<":
        raise RemoteMeterError(
            "answers a web page (HTML), not JSON; give the url of its data (docs/hosts.md has examples)"
        )
    try:
        return json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=Decimal)
    except (ValueError, ArithmeticError, RecursionError):
        raise RemoteMeterError(f"answers no JSON{_said(body)}; correct its url") from None


def _said(body: bytes) -> str:
    """The beginning of an answer, for a message."""
    text = " ".join(body[:400].decode("utf-8", "replace").split())
    printable = "".join(c for c in text if c.isprintable())[:80]
    return f" ({printable})" if printable and not printable.startswith("<") else ""
