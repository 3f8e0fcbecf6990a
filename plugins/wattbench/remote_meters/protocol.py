"""The remote variant of a meter: read by the controller over the network, never by the host.

A kind is a :class:`RemoteSettings` (its keys in hosts.yaml) and a :class:`Reader` in one module, listed in
:mod:`wattbench.remote_meters`. Readings go into one raw file per kind, ``KIND.jsonl``; its analysis half
(``analysis/meters/remote.py``) is the same for all kinds. A line is one JSON object with one of these keys:

    settings   a meter's: name, domain, units, lag, …; never a login
    clock      how far the host's clock is ahead of the controller's, s, and the round trip that showed it
    server     how far a server's clock is ahead of the controller's, s, and the round trip
    sample     values as the meter prints them, stamped by the controller's clock as they arrive
    error      why a reading gave no sample
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from wattbench.analysis.model.meter_units import ENERGY_J, POWER_W
from wattbench.errors import UserError
from wattbench.remote_meters.client import Access, Client, RemoteMeterError, refuse_secrets
from wattbench.workloads.settings import Model

__all__ = [
    "Access", "Client", "EnergyUnit", "EnergyValue", "History", "MeterEntry", "PowerUnit", "PowerValue",
    "Reader", "RemoteMeterError", "RemoteSettings", "Sample", "UserError", "number",
]  # fmt: skip

Domain = Literal["package", "dram", "gpu", "board", "wall"]
if TYPE_CHECKING:
    PowerUnit = str
    EnergyUnit = str
else:
    PowerUnit = Literal[tuple(POWER_W)]
    EnergyUnit = Literal[tuple(ENERGY_J)]

#: Oldest reading that a meter with a clock of its own may give, s beyond its lag and its interval.
STALE_S = 60.0


class MeterEntry(Model):
    """What all meters of a host have in common.

    Attributes:
        domain: What counts of it: ``package``, ``dram``, ``gpu`` (all GPUs together), ``board`` (inside the
            power supply) or ``wall`` (before it); null: each domain that it reads.
        primary: Whether its joules are the trials'; of several meters the first, if none is marked.
    """

    domain: Domain | None = None
    primary: bool = False


class PowerValue(Model):
    """Where a meter's power is found; a kind adds how.

    Attributes:
        unit: Unit of the value.
    """

    unit: PowerUnit = "W"


class EnergyValue(Model):
    """Where a meter's cumulative energy counter is found; a kind adds how.

    Attributes:
        unit: Unit of the value.
        wraps_at: Value at which the counter begins anew, in its unit; null: never, so that one that falls
            was reset.
    """

    unit: EnergyUnit
    wraps_at: Annotated[float, Field(gt=0)] | None = None


class RemoteSettings(MeterEntry):
    """A meter that the controller reads over the network.

    Attributes:
        name: Name in tables and findings; default: the kind.
        domain: What it measures: ``wall`` (before the power supply), ``board`` (behind it), ``package``,
            ``dram``, or ``gpu`` (all GPUs together).
        url: Address, without login.
        conn_id: Airflow connection with login and password; its extra: ``auth`` (``basic``, ``digest``,
            ``bearer`` with the token as password, or ``query`` for ``user`` and ``password`` in the query)
            and ``ca_file``, certificates that the address is checked against. Null: no login.
        interval_ms: Time between two readings, milliseconds.
        lag_s: Time after which a change of power shows in its values, seconds; taken into account.
        lag_uncertainty_s: How far the lag may differ from that, seconds; part of the uncertainty; default:
            half of ``lag_s``.
        averaged_s: Time over which its power values are averaged, seconds; part of the uncertainty.
        power: Its power.
        energy: Its energy counter.
    """

    #: Whether it has to be read while the window lasts.
    live: ClassVar[bool] = True

    kind: str
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")] = ""
    domain: Domain = "wall"
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#]+(/[^\s#]*)?(\?[^\s#]*)?$")]
    conn_id: str | None = None
    interval_ms: Annotated[int, Field(ge=100, le=600_000)] = 1000
    lag_s: Annotated[float, Field(ge=0, le=600)] = 0.0
    lag_uncertainty_s: Annotated[float, Field(ge=0, le=600)] | None = None
    averaged_s: Annotated[float, Field(ge=0, le=600)] = 1.0
    power: PowerValue | None = None
    energy: EnergyValue | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_by_kind(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("url"), str):
            refuse_secrets(value["url"])  # of the whole, whose text no message repeats
        if isinstance(value, Mapping) and not value.get("name"):
            return {**value, "name": cls.model_fields["kind"].default}
        return value

    @property
    def lag_doubt_s(self) -> float:
        """How far the lag may differ from ``lag_s``, s."""
        return self.lag_s / 2 if self.lag_uncertainty_s is None else self.lag_uncertainty_s

    @property
    def interval_s(self) -> float:
        """Time between two readings, s."""
        return self.interval_ms / 1000

    @property
    def settle_s(self) -> float:
        """Time after an edge of the window until its values show it, s."""
        return self.lag_s + self.lag_doubt_s + self.averaged_s

    def described(self, units: Mapping[str, Any]) -> dict[str, Any]:
        """The line ``settings`` of the raw file.

        Args:
            units: ``power_unit``, ``energy_unit`` and ``wraps_at`` as far as it has them.
        """
        return {
            "meter": self.name, "domain": self.domain, "primary": self.primary, "url": self.url,
            "interval_s": self.interval_s, "lag_s": self.lag_s, "lag_uncertainty_s": self.lag_doubt_s,
            "averaged_s": self.averaged_s, **units,
        }  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One reading.

    Attributes:
        unix_s: when it arrived, or for which moment it stands, by the controller's clock.
        trip_s: how long asking took, s.
        power: as the meter prints it, in its unit; None: it has no power.
        energy: likewise, its counter.
    """

    unix_s: float
    trip_s: float
    power: str | None = None
    energy: str | None = None


@dataclass(frozen=True)
class History:
    """Readings of the past.

    Attributes:
        samples: in order of time.
        errors: moments of the controller's clock, s, and why they have no sample.
        ahead_s: how far the server's clock is ahead of the controller's, s.
        trip_s: the round trip that showed it, s.
        scraped: whether the samples' moments are those at which the server read the meter.
    """

    samples: tuple[Sample, ...]
    errors: tuple[tuple[float, str], ...]
    ahead_s: float
    trip_s: float
    scraped: bool = False


class Reader(ABC):
    """One remote meter, ready to be read.

    Attributes:
        settings: its keys of hosts.yaml.
        client: asks it, with the login of its connection.
    """

    #: Model of its keys.
    Settings: ClassVar[type[RemoteSettings]]

    def __init__(self, settings: RemoteSettings, access: Access) -> None:
        self.settings = settings
        self.client = Client(access)

    @property
    def units(self) -> dict[str, Any]:
        """``power_unit``, ``energy_unit`` and ``wraps_at`` as far as it has them."""
        power, energy = self.settings.power, self.settings.energy
        return {
            "power_unit": power.unit if power else None,
            "energy_unit": energy.unit if energy else None,
            "wraps_at": energy.wraps_at if energy else None,
        }

    def explained(self, error: Exception) -> str:
        """An error as one line that names the meter and holds no login."""
        return self.client.without_login(f"{self.settings.kind} meter {self.settings.name} {error}")

    @abstractmethod
    def probe(self) -> None:
        """Show that it yields energy, before anything is measured.

        Raises:
            RemoteMeterError: it does not, with the reason and what to do.
        """

    def sample(self) -> Sample:
        """Its values now; of a meter that is ``live``.

        Raises:
            RemoteMeterError: it has none that can be used.
        """
        raise NotImplementedError

    def history(self, start_s: float, end_s: float) -> History:
        """Its values between two moments of the controller's clock.

        Raises:
            RemoteMeterError: it has none that can be used.
        """
        raise NotImplementedError


def number(value: object, what: str) -> Decimal:
    """A finite number that is not 0, as the meter prints it.

    Args:
        value: a number of a JSON document, or its text.
        what: names it in messages.

    Raises:
        RemoteMeterError: it is not.
    """
    try:
        found = Decimal(value) if isinstance(value, (Decimal, int, str)) else None
    except InvalidOperation:
        found = None
    if found is None or isinstance(value, bool):
        raise RemoteMeterError(
            f"gives {what} as {str(value)[:40]!r}, not a number; correct the path or the query"
        )
    if not found.is_finite():
        raise RemoteMeterError(f"gives {what} as {found}; look at the meter")
    if not found:
        raise RemoteMeterError(
            f"gives {what} as 0; is it the meter of this host, and is the host connected to it?"
        )
    if found < 0:
        raise RemoteMeterError(f"gives {what} as {found}, less than 0; turn its direction around")
    return found
