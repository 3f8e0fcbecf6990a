"""What a host's check could not find out, for the reader of many hosts."""

from __future__ import annotations

from typing import Any

from wattbench.steps import check_host


def facts(*unknown: str) -> dict[str, Any]:
    rows = [{"severity": "unknown", "message": text} for text in unknown]
    return {"probes": [*rows, {"severity": "soft", "message": "the CPU governor is powersave"}]}


def test_what_is_unknown_on_several_hosts_is_said_once() -> None:
    found = check_host.unknown_on(
        [("a", facts("no governor", "no turbo")), ("b", facts("no governor")), ("c", facts())]
    )
    assert found == {"no governor": ["a", "b"], "no turbo": ["a"]}
