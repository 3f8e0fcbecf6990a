"""Units of values that meters on the network give."""

from __future__ import annotations

#: Unit of power → W.
POWER_W = {"W": 1.0, "mW": 1e-3, "kW": 1e3}

#: Unit of an energy counter → J.
ENERGY_J = {
    "J": 1.0, "mJ": 1e-3, "uJ": 1e-6, "Wh": 3600.0, "mWh": 3.6, "kWh": 3.6e6, "Wmin": 60.0,
}  # fmt: skip
