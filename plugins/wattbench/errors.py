"""Errors of the controller that a user can act on: one line with thing, place, and next action.

analysis.errors.UserError
├── ConfigError      a hosts or experiment file
├── HostError        a worker host: unreachable, refused, not fit; ``code`` says which
├── StoreError       the object store
└── RegistryError    an image registry
"""

from __future__ import annotations

from wattbench.analysis.model.errors import UserError

__all__ = ["ConfigError", "HostError", "RegistryError", "StoreError", "UserError"]


class ConfigError(UserError):
    """A hosts or experiment file that can't be used."""


class HostError(UserError):
    """A worker host that can't be reached, refused a request, or is not fit.

    Attributes:
        code: stable word for the cause: one of the agent's (``leased``, ``busy``, ``disk-full``, …)
            or of the SSH side (``unreachable``, ``host-key``, ``auth``, ``timeout``, ``lost``,
            ``protocol``).
        details: the agent's whole answer, where it gave one.
    """

    def __init__(
        self, message: str, *, code: str = "host", details: dict[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.details: dict[str, object] = details or {}


class StoreError(UserError):
    """The object store refused, lost or damaged something."""


class RegistryError(UserError):
    """An image registry can't be reached, refused, or doesn't know an image."""
