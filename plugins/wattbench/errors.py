"""Errors of the controller that a user can act on: one line with thing, place, and next action.

analysis.errors.UserError
├── ConfigError      a hosts or experiment file
├── HostError        a worker host: unreachable, refused, not fit; ``code`` says which
├── StoreError       the object store
└── RegistryError    an image registry
"""

from __future__ import annotations

from typing import NamedTuple

from wattbench.analysis.model.errors import UserError

__all__ = ["HOST_CODES", "ConfigError", "HostError", "RegistryError", "StoreError", "UserError"]


class HostCode(NamedTuple):
    """What a :class:`HostError`'s code means, and what to do about it."""

    meaning: str
    action: str


#: Codes of the SSH side and of the agent. Those of the preflight are in ``worker.agent.preflight``.
HOST_CODES = {
    "unreachable": HostCode(
        "No connection to the host's sshd.",
        "Check address and port, that the host is up, and the way to it (firewall, VPN).",
    ),
    "auth": HostCode(
        "The host refuses the login.",
        "Put the public key into the user's `~/.ssh/authorized_keys`, or correct the connection's key.",
    ),
    "host-key": HostCode(
        "The host's key is unknown, malformed, or another one than before.",
        "Compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host, then accept it.",
    ),
    "sftp": HostCode(
        "The host's sshd has no SFTP.", "Add `Subsystem sftp internal-sftp` to its sshd_config."
    ),
    "timeout": HostCode(
        "A call to the host did not end in time.",
        "Check the host's load and the network, then try again.",
    ),
    "lost": HostCode(
        "The connection broke. What runs on the host goes on.",
        "Try again; the result is collected.",
    ),
    "protocol": HostCode(
        "The agent gave no answer that can be read.",
        "Check that the host's Python is 3.9 or newer, and that its login shell prints nothing.",
    ),
    "facts": HostCode(
        "The agent's description of the host is not complete.",
        "Read the message; report it if the host is fit.",
    ),
    "leased": HostCode(
        "Another run holds the host.",
        "Wait until it is over; if it no longer exists: `wattbench host release`.",
    ),
    "busy": HostCode(
        "A trial is being measured on the host.", "Wait for it, or end its run in Airflow."
    ),
    "ended": HostCode(
        "The run is being ended on this host.", "Clear its task `check` if it is to go on."
    ),
    "no-lease": HostCode(
        "A request came without the host's lease.", "Start the run anew; the lease has expired."
    ),
    "disk-full": HostCode(
        "The host's spool or Docker's folder has no room.", "Free space on the host."
    ),
    "spool": HostCode(
        "The host's spool folder can't be used.", "Create it and give it to the SSH user."
    ),
    "conflict": HostCode(
        "The spool holds an attempt of another run under this name.",
        "Give every host a spool of its own.",
    ),
    "missing": HostCode(
        "A file is not on the host, or can't be read there.",
        "Look at the file that the message names.",
    ),
    "file-missing": HostCode(
        "A file of the workload is not on the host.",
        "Start the trial anew; the files are copied first.",
    ),
    "port-closed": HostCode(
        "The port for a load from another host can't be opened on the measured one.",
        "End what listens there, or name another `workload.load.from.port` or `hosts.NAME.address`.",
    ),
    "port-unreached": HostCode(
        "The load host does not reach the measured host's port.",
        "Open it in the firewall, or name the address at which it does (`hosts.NAME.address`).",
    ),
    "load-host": HostCode(
        "The load can't come from the host that `workload.load.from` names.",
        "Name another machine, or correct the measured host's address.",
    ),
    "image": HostCode(
        "Docker on the host does not have the image that was resolved.",
        "Remove the image from the host, and run again.",
    ),
    "docker": HostCode(
        "The host's Docker does not answer.", "Start Docker on the host; look at its log."
    ),
    "workload": HostCode(
        "The workload fails the checks of a trial before any trial is measured.",
        "Run it by hand in the image; correct what the message names.",
    ),
    "packages": HostCode(
        "The packages of a process on the host can't be listed.",
        "Install pip for its Python, or name the Python first in the command.",
    ),
    "supervisor": HostCode(
        "The process that runs a trial did not start.",
        "Look at the log that the message names, on the host.",
    ),
    "bad-request": HostCode(
        "The agent does not accept a request.",
        "Correct the setting that the message names; else report it.",
    ),
    "unknown": HostCode(
        "The agent does not have the attempt that was asked for.", "Start the trial anew."
    ),
    "internal": HostCode("A defect of the agent.", "Report it with the task's log."),
    "host": HostCode("None of the other codes applies.", "Read the message."),
}


class ConfigError(UserError):
    """A hosts or experiment file that can't be used."""


class HostError(UserError):
    """A worker host that can't be reached, refused a request, or is not fit.

    Attributes:
        code: stable word for the cause, of :data:`HOST_CODES` or of a probe of the preflight.
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


class UnreachableRegistryError(RegistryError):
    """An image registry did not answer, however often it was asked."""
