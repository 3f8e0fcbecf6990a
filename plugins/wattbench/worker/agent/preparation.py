"""What a new worker host needs, once: the only place where these commands stand.

The preflight's actions, ``wattbench host add`` and docs/hosts.md are made from this table.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: Name → command for root, what it is for. Fields: ``user`` (the SSH login), ``spool``, ``program``.
STEPS = {
    "docker": ("usermod -aG docker {user}", "the login that wattbench uses; log in anew after it"),
    "spool": ("install -d -o {user} {spool}", "raw logs until the store has verified copies"),
    "msr": (
        "modprobe msr && echo msr > /etc/modules-load.d/msr.conf",
        "EnergiBridge reads model-specific registers",
    ),
    "setcap": ("setcap cap_sys_rawio=ep {program}", "again after each update of the program"),
    "setfacl": ("setfacl -m u:{user}:r /dev/cpu/*/msr", "until the next boot: use a udev rule"),
    "rapl": (
        "chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj",
        "powercap, or a second opinion: all sockets; until the next boot",
    ),
    "nvidia": ("nvidia-smi -pm 1", "NVIDIA GPUs: persistence mode"),
    "governor": (
        "cpupower frequency-set -g performance",
        "optional: clocks that don't follow load",
    ),
}


def command(name: str, **fields: str) -> str:
    """A step's command, for root."""
    import shlex

    known = {"user": os.environ.get("USER", "$USER"), **fields}
    quoted = {k: v if v.startswith("$") else shlex.quote(v) for k, v in known.items()}
    return STEPS[name][0].format(**quoted)


def sudo(name: str, **fields: str) -> str:
    """A step's command, for a user who may use sudo."""
    text = command(name, **fields)
    return "sudo sh -c '%s'" % text if "&&" in text or ">" in text else "sudo " + text


def script(names: Iterable[str], **fields: str) -> list[str]:
    """Steps as lines of a shell script for root, each with its comment."""
    lines = [(command(name, **fields), STEPS[name][1]) for name in names]
    width = max((len(text) for text, _ in lines), default=0)
    return ["%s  # %s" % (text.ljust(width), comment) for text, comment in lines]
