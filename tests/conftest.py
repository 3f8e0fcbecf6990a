"""What all tests share."""

from __future__ import annotations

import pytest

from tests import reruns


def pytest_runtest_setup(item: pytest.Item) -> None:
    reruns.now = getattr(item, "execution_count", 1) > 1
    reruns.begun += reruns.now
