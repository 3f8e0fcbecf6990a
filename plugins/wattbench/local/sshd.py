"""Private sshd on the loopback address: the calling user logs in to this machine, and no other user does."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

from wattbench.analysis.model.errors import UserError
from wattbench.analysis.storage.atomic import write_atomically
from wattbench.local import packages
from wattbench.local.keys import KeyPair, key_pair
from wattbench.local.processes import Service, service
from wattbench.local.state_folder import StateFolder

ADDRESS = "127.0.0.1"
NAME = "sshd"
#: sshd started by root refuses to run without it.
_PRIVILEGE_SEPARATION = Path("/run/sshd")


class PrivateSshd:
    """An sshd of a state folder, with keys of its own.

    Args:
        state: whose sshd.
    """

    def __init__(self, state: StateFolder) -> None:
        folder = state.folder("ssh", mode=0o700)
        self._state = state
        self._service: Service = service(state, NAME)
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.host_key: KeyPair = key_pair(folder / "host")
        self.client_key: KeyPair = key_pair(folder / "client")
        running = self._service.pid() is not None
        self.port = state.port(NAME) if running else state.free_port(NAME)

    def ensure(self) -> None:
        """Starts it where it is not running, and waits until it answers.

        Raises:
            UserError: there is no sshd, or it does not start.
        """
        program = packages.find("sshd")
        if program is None:
            raise UserError(
                "no sshd on this machine; install the package openssh-server "
                "(sudo apt-get install openssh-server): wattbench runs one of its own, on "
                f"{ADDRESS} and as you; the system's may stay off"
            )
        if os.geteuid() == 0:
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        folder = self.client_key.file.parent
        authorized = folder / "authorized_keys"
        write_atomically(authorized, f"{self.client_key.public}\n", mode=0o600)
        text = sshd_config(self.port, self.user, self.host_key.file, authorized)
        config = self._state.folder("etc") / "sshd_config"
        write_atomically(config, text)
        # By its whole path, since it starts itself anew for each connection.
        self._service.ensure([program, "-D", "-e", "-f", str(config)], env={}, also=text)
        self._service.wait_until(self._answers, within_s=20)

    def _answers(self) -> bool:
        """Whether a server with SSH's greeting listens."""
        try:
            with socket.create_connection((ADDRESS, self.port), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


def sshd_config(port: int, user: str, host_key: Path, authorized_keys: Path) -> str:
    """The configuration: one user by one key, commands and SFTP, nothing else."""
    return f"""\
ListenAddress {ADDRESS}
Port {port}
HostKey "{host_key}"
AuthorizedKeysFile "{authorized_keys}"
AllowUsers "{user}"
PermitRootLogin prohibit-password
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM {"yes" if _needs_pam(user) else "no"}
StrictModes no
PidFile none
UseDNS no
AllowAgentForwarding no
AllowTcpForwarding no
AllowStreamLocalForwarding no
X11Forwarding no
PermitTunnel no
PermitTTY no
PrintMotd no
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""


def _needs_pam(user: str) -> bool:
    """Whether sshd would refuse the user as locked: it has no password, and sshd can see that.

    Only root's sshd can; PAM lets such an account in by its key.
    """
    try:
        lines = Path("/etc/shadow").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith(f"{user}:!") for line in lines)
