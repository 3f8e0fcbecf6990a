"""SSH client of the agent's protocol: one strict connection to one worker host.

Nothing here depends on Airflow. What is sent to the host's shell is always
``PYTHON -IS SPOOL/agent/HASH.pyz VERB``, or ``sha256sum`` of that file, quoted; everything else
travels as JSON on stdin.

paramiko never notices a dead link by itself, so every operation has a deadline of its own (a timer
that closes the connection, which wakes whatever hangs), and the kernel gives the socket up when the
peer's acknowledgements stay away. Neither wakes the host's sshd inside a measurement window.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import posixpath
import shlex
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, Self, overload

from wattbench.errors import HostError
from wattbench.worker.agent import limits, preparation
from wattbench.worker.agent_bundle import bundle
from wattbench.worker.answers import (
    CleanupAnswer,
    Json,
    LeaseAnswer,
    ListAnswer,
    PackagesAnswer,
    QuietAnswer,
    StartAnswer,
    StatusAnswer,
    WaitAnswer,
    WarmAnswer,
    fault,
)
from wattbench.worker.socket_forward import SocketForward
from wattbench.worker.target import HostTarget, fingerprint

if TYPE_CHECKING:
    import paramiko


log = logging.getLogger(__name__)

#: JSON values for a verb.
Payload = Mapping[str, object]
_Awaited = Literal["wait", "finish"]
_Plain = Literal["facts", "forget", "listen", "reach"]

#: Packet loss of 25 % stretches an answer to seconds: nothing is given up sooner than this, s.
CALL_TIMEOUT_S = 60.0
#: One try of TCP, key exchange and login, s.
TRY_TIMEOUT_S = 20.0
#: Time without an acknowledgement after which a link is dead, s. Shorter breaks recover by themselves.
LINK_TIMEOUT_S = 45
#: The slowest transfer that is not given up, bytes/s.
SLOWEST_BYTES_PER_S = 50_000
#: Causes after which the same idempotent call may be made again on a new connection.
PASSING = ("lost", "unreachable", "timeout")


class ClockReading(NamedTuple):
    """How far a host's clock is ahead of ours, s, and the round trip that showed it, s."""

    ahead_s: float
    trip_s: float


class _UnknownHostKeyError(Exception):
    """The host's key is not among the known ones."""


class Host:
    """One connection to a worker host; a context manager.

    Args:
        target: where it is.
    """

    def __init__(self, target: HostTarget) -> None:
        self.target = target
        self.spool = target.spool
        self.agent_path = f"{target.spool}/agent/{bundle().name}"
        self._client: paramiko.SSHClient | None = None
        self._abandoned = False

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- connection ------------------------------------------------------------------------------

    def connect(self, within_s: float | None = None) -> None:
        """Connect, trying again with growing pauses while the host refuses or is silent.

        Raises:
            HostError: ``host-key``, ``auth``, ``lost``, or ``unreachable`` once the time is over.
        """
        self.close()
        self._refuse_abandoned()
        budget = self.target.connect_timeout_s if within_s is None else within_s
        deadline, pause = time.monotonic() + budget, 0.25
        while True:
            left = deadline - time.monotonic()
            try:
                self._client = self._connect_once(max(1.0, min(left, TRY_TIMEOUT_S)))
                self._refuse_abandoned()
                return
            except HostError as error:
                if error.code != "unreachable" or time.monotonic() + pause >= deadline:
                    raise
                log.info("%s; trying again in %.2g s", error, pause)
            time.sleep(pause)
            self._refuse_abandoned()
            pause = min(2 * pause, 5.0)

    def _refuse_abandoned(self) -> None:
        if self._abandoned:
            self.close()
            raise HostError(
                f"{self.target.label}: the wait was given up; what runs there runs on",
                code="lost",
            )

    def _connect_once(self, timeout_s: float) -> paramiko.SSHClient:
        import paramiko

        target = self.target
        client = paramiko.SSHClient()
        self._learn_host_keys(client)
        client.set_missing_host_key_policy(_reject_unknown())
        key = _private_key(target)
        try:
            sock = socket.create_connection((target.hostname, target.port), timeout=timeout_s)
            _watch_link(sock)
            client.connect(
                target.hostname, target.port, target.username,
                sock=sock, pkey=key, key_filename=target.key_filename,
                allow_agent=key is None and target.key_filename is None,
                look_for_keys=key is None and target.key_filename is None,
                timeout=timeout_s, banner_timeout=timeout_s, auth_timeout=timeout_s,
                channel_timeout=timeout_s,
            )  # fmt: skip
        except _UnknownHostKeyError as error:
            client.close()
            raise HostError(
                f"{target.label}: its host key {error} is not known; compare it with the host's "
                "own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and put the key into the "
                "connection's host_key or into known_hosts",
                code="host-key",
            ) from None
        except paramiko.BadHostKeyException as error:
            client.close()
            raise HostError(
                f"{target.label}: its host key changed: expected "
                f"{fingerprint(error.expected_key.asbytes())}, "
                f"got {fingerprint(error.key.asbytes())}; the connection may be intercepted; if the host "
                "was set up anew, replace the connection's host_key or its line in known_hosts",
                code="host-key",
            ) from None
        except paramiko.AuthenticationException as error:
            client.close()
            raise HostError(
                f"{target.label}: login refused ({error}); put the public key into the host's "
                f"~{target.username}/.ssh/authorized_keys, or correct the connection's key",
                code="auth",
            ) from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            client.close()
            raise HostError(
                f"{target.label}: not reachable ({error or type(error).__name__}); check that it is "
                "up and its sshd answers",
                code="unreachable",
            ) from None
        return client

    def _learn_host_keys(self, client: paramiko.SSHClient) -> None:
        import paramiko
        from paramiko.pkey import UnknownKeyType

        target = self.target
        if target.host_key is None:
            path = Path(target.known_hosts_file or "~/.ssh/known_hosts").expanduser()
            try:
                client.load_system_host_keys(str(path))
            except OSError as error:
                if target.known_hosts_file:
                    raise HostError(
                        f"{target.label}: {path}: {error.strerror}; correct known_hosts_file",
                        code="host-key",
                    ) from None
            return
        try:
            kind, blob = target.host_key.split()[:2]
            key = paramiko.PKey.from_type_string(kind, base64.b64decode(blob, validate=True))
        except (ValueError, paramiko.SSHException, UnknownKeyType):
            raise HostError(
                f"{target.label}: host_key {target.host_key[:30]!r} is not a public key; "
                "it looks like 'ssh-ed25519 AAAA…'",
                code="host-key",
            ) from None
        port = target.port
        name = target.hostname if port == 22 else f"[{target.hostname}]:{port}"
        client.get_host_keys().add(name, kind, key)

    def close(self) -> None:
        """Drop the connection; what runs on the host runs on."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands, as far as this side can see; nothing is sent."""
        transport = self._client.get_transport() if self._client else None
        return transport is not None and transport.is_active()

    def abandon(self) -> None:
        """Drop the connection for good, from any thread: a call that waits on it ends with an error."""
        self._abandoned = True
        self.close()

    def _transport(self) -> paramiko.Transport:
        """A living transport; connects if there is none."""
        for _ in range(2):
            transport = self._client.get_transport() if self._client else None
            if transport is not None and transport.is_active():
                return transport
            self.connect()
        raise HostError(f"{self.target.label}: connections end at once", code="lost")

    @contextlib.contextmanager
    def _within(self, timeout_s: float, what: str) -> Iterator[paramiko.Transport]:
        """The transport, closed when the time is over, which ends every blocked call on it.

        Raises:
            HostError: ``timeout``, or ``lost`` if the connection broke.
        """
        import paramiko

        transport = self._transport()
        late = threading.Event()

        def expire() -> None:
            late.set()
            transport.close()

        timer = threading.Timer(timeout_s, expire)
        timer.daemon = True
        timer.start()
        try:
            yield transport
        except (OSError, EOFError, paramiko.SSHException) as error:
            # a refusal by SFTP does not mean that the connection is broken
            if isinstance(error, OSError) and transport.is_active():
                raise
            if late.is_set():
                raise self._too_late(what, timeout_s) from None
            raise HostError(
                f"{self.target.label}: the connection was lost during {what} "
                f"({error or type(error).__name__}); what runs there runs on: try again",
                code="lost",
            ) from None
        finally:
            timer.cancel()
        if late.is_set():
            raise self._too_late(what, timeout_s)

    def _too_late(self, what: str, timeout_s: float) -> HostError:
        return HostError(
            f"{self.target.label}: no end of {what} within {timeout_s:.0f} s; "
            "check the host and the network, then try again",
            code="timeout",
        )

    # -- the agent -------------------------------------------------------------------------------

    def _command_line(self, *words: str) -> str:
        return shlex.join([self.target.python, "-IS", self.agent_path, *words])

    def ship(self) -> str:
        """Put the agent onto the host unless this very version is there.

        Returns:
            Its path there.

        Raises:
            HostError: the spool can't be written.
        """
        if not self._has(self.agent_path, bundle().sha256):
            self._put(self.agent_path, bundle().content)
        return self.agent_path

    def has_file(self, sha256: str) -> bool:
        """Whether the host has a file for workloads, whole."""
        return self._has(self._file_path(sha256), sha256)

    def ship_file(self, sha256: str, content: bytes) -> None:
        """Put a file for workloads onto the host, by its SHA-256.

        Raises:
            HostError: the spool can't be written.
        """
        self._put(self._file_path(sha256), content)

    def _file_path(self, sha256: str) -> str:
        return f"{self.spool}/{limits.FILES}/{sha256}"

    def _has(self, path: str, sha256: str) -> bool:
        with self._within(CALL_TIMEOUT_S, f"looking for {path}") as transport:
            _, out, _ = self._exec(transport, shlex.join(["sha256sum", path]), b"")
        return out.decode("ascii", "replace").split()[:1] == [sha256]

    def _put(self, path: str, content: bytes) -> None:
        """Write a file by a temporary one: it is whole or absent."""
        limit_s = CALL_TIMEOUT_S + len(content) / SLOWEST_BYTES_PER_S
        with (
            self._within(limit_s, f"shipping {path}") as transport,
            contextlib.closing(self._sftp(transport)) as sftp,
        ):
            try:
                self._write(sftp, path, content)
            except OSError as error:
                if not transport.is_active():
                    raise
                raise HostError(
                    f"{self.target.label}: {self.spool} can't be written ({error}); on the host: "
                    + preparation.sudo("spool", user=self.target.username, spool=self.spool),
                    code="spool",
                ) from None

    def _sftp(self, transport: paramiko.Transport) -> paramiko.SFTPClient:
        sftp = transport.open_sftp_client()
        if sftp is None:
            raise HostError(f"{self.target.label}: its sshd has no SFTP; enable it", code="sftp")
        return sftp

    def _write(self, sftp: paramiko.SFTPClient, path: str, content: bytes) -> None:
        for folder in (self.spool, posixpath.dirname(path)):
            try:
                sftp.stat(folder)
            except FileNotFoundError:
                sftp.mkdir(folder, 0o755)
        temporary = f"{path}.{os.getpid()}.{threading.get_ident()}.tmp"
        sftp.putfo(io.BytesIO(content), temporary, confirm=True)
        sftp.posix_rename(temporary, path)

    # fmt: off
    @overload
    def call(self, verb: Literal["lease"], payload: Payload, timeout_s: float = ...) -> LeaseAnswer: ...
    @overload
    def call(self, verb: Literal["warm"], payload: Payload, timeout_s: float = ...) -> WarmAnswer: ...
    @overload
    def call(self, verb: Literal["quiet"], payload: Payload, timeout_s: float = ...) -> QuietAnswer: ...
    @overload
    def call(self, verb: Literal["start"], payload: Payload, timeout_s: float = ...) -> StartAnswer: ...
    @overload
    def call(self, verb: _Awaited, payload: Payload, timeout_s: float = ...) -> WaitAnswer: ...
    @overload
    def call(self, verb: Literal["status"], payload: Payload, timeout_s: float = ...) -> StatusAnswer: ...
    @overload
    def call(self, verb: Literal["list"], payload: Payload, timeout_s: float = ...) -> ListAnswer: ...
    @overload
    def call(self, verb: Literal["cleanup"], payload: Payload, timeout_s: float = ...) -> CleanupAnswer: ...
    @overload
    def call(self, verb: Literal["packages"], payload: Payload, timeout_s: float = ...) -> PackagesAnswer: ...
    @overload
    def call(self, verb: _Plain, payload: Payload, timeout_s: float = ...) -> Json: ...
    # fmt: on
    def call(self, verb: str, payload: Payload, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """One request to the agent. Every verb may be repeated.

        Args:
            verb: ``facts``, ``lease``, ….
            payload: JSON values; ``spool`` is added.
            timeout_s: deadline of the whole call, s.

        Returns:
            The agent's answer, checked.

        Raises:
            HostError: the agent's refusal with its code, or ``timeout``, ``lost``, ``protocol``.
        """
        request = json.dumps({"spool": self.spool, **payload}).encode()
        with self._within(timeout_s, f"{verb!r}") as transport:
            code, out, err = self._exec(transport, self._command_line(verb), request)
        if code == -1 and not out.strip():
            raise HostError(
                f"{self.target.label}: the connection was lost during {verb!r}; "
                "what runs there runs on: try again",
                code="lost",
            )
        return self._read_answer(verb, code, out, err)

    def _exec(
        self, transport: paramiko.Transport, command: str, request: bytes
    ) -> tuple[int, bytes, bytes]:
        errors = bytearray()
        with contextlib.closing(transport.open_session()) as channel:
            channel.exec_command(command)
            channel.sendall(request)
            channel.shutdown_write()
            answer = bytearray()
            while block := channel.recv(1 << 16):
                answer += block
            while block := channel.recv_stderr(1 << 16):
                errors += block
            return channel.recv_exit_status(), bytes(answer), bytes(errors)

    def _read_answer(self, verb: str, code: int, out: bytes, err: bytes) -> Json:
        lines = out.decode("utf-8", "replace").strip().splitlines()
        try:
            answer = json.loads(lines[-1]) if lines else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            printed = (err or out).decode("utf-8", "replace").strip().splitlines()
            raise HostError(
                f"{self.target.label}: {verb!r} ended with {code} and no answer "
                f"({printed[-1] if printed else 'no output'}); check {self.target.python} (3.9 or newer) and "
                f"{self.agent_path} on the host",
                code="protocol",
            )
        if not answer.get("ok"):
            action = answer.get("action")
            raise HostError(
                f"{self.target.label}: {answer.get('message')}" + (f"; {action}" if action else ""),
                code=str(answer.get("error", "protocol")),
                details=answer,
            )
        if why := fault(verb, answer):
            raise HostError(
                f"{self.target.label}: malformed answer to {verb!r} ({why}); check that nothing but "
                f"wattbench writes to {self.spool}",
                code="protocol",
            )
        return answer

    def wait(self, attempt_id: str, timeout_s: float) -> WaitAnswer:
        """Block until an attempt is over, over as many connections as it takes.

        Returns:
            The agent's answer: ``over`` and, if so, ``report``.

        Raises:
            HostError: no connection within ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            try:
                payload = {"id": attempt_id, "timeout_s": left}
                return self.call("wait", payload, left + CALL_TIMEOUT_S)
            except HostError as error:
                if error.code not in PASSING or time.monotonic() >= deadline:
                    raise
                log.warning("%s", error)
                self.connect(max(deadline - time.monotonic(), 1.0))

    def clock_offset_s(self) -> float:
        """How far the host's clock is ahead of ours, s."""
        return self.clock().ahead_s

    def clock(self, rounds: int = 9) -> ClockReading:
        """How far the host's clock is ahead of ours: from the round trip that was shortest."""
        best = (float("inf"), 0.0)
        with (
            self._within(CALL_TIMEOUT_S, "'clock'") as transport,
            contextlib.closing(transport.open_session()) as channel,
        ):
            channel.exec_command(self._command_line("clock"))
            lines = channel.makefile("r")
            for _ in range(rounds):
                asked, began = time.time(), time.monotonic()
                channel.sendall(b"{}\n")
                line = lines.readline()
                trip = time.monotonic() - began
                if not line:
                    raise HostError(
                        f"{self.target.label}: 'clock' gave no answer; ship the agent first",
                        code="protocol",
                    )
                best = min(best, (trip, float(json.loads(line)["unix_s"]) - (asked + trip / 2)))
        return ClockReading(best[1], best[0])

    # -- files -----------------------------------------------------------------------------------

    def fetch(self, remote_path: str, into: IO[bytes]) -> int:
        """Copy a file from the host; the deadline grows with its size.

        Returns:
            Its size in bytes.

        Raises:
            HostError: ``missing``, ``timeout``, ``lost``.
        """
        with self._within(CALL_TIMEOUT_S, f"looking at {remote_path}") as transport:
            sftp = self._sftp(transport)
            try:
                size = sftp.stat(remote_path).st_size or 0
            except OSError as error:
                if not transport.is_active():
                    raise
                raise HostError(
                    f"{self.target.label}: {remote_path}: {error}; look at it there", code="missing"
                ) from None
        limit_s = CALL_TIMEOUT_S + size / SLOWEST_BYTES_PER_S
        with self._within(limit_s, f"fetching {remote_path}"), contextlib.closing(sftp):
            return sftp.getfo(remote_path, into, max_concurrent_prefetch_requests=64)

    def fetch_bytes(self, remote_path: str) -> bytes:
        """A file of the host, see :meth:`fetch`."""
        buffer = io.BytesIO()
        self.fetch(remote_path, buffer)
        return buffer.getvalue()

    # -- forwarding ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def forward_socket(self, remote: str = "/var/run/docker.sock") -> Iterator[str]:
        """A local Unix socket whose connections end at one of the host's.

        Each is bridged by the agent's ``pipe``, so that sshd need not allow stream forwarding.

        Yields:
            The local path, for example for ``DockerClient(base_url=f"unix://{path}")``.
        """
        if self._client is None:
            self.connect()
        with tempfile.TemporaryDirectory(prefix="wattbench-") as folder:
            path = f"{folder}/socket"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(path)
                listener.listen(16)
                stop = threading.Event()
                pumps: list[SocketForward] = []
                acceptor = threading.Thread(
                    target=self._accept, args=(listener, remote, stop, pumps), daemon=True
                )
                acceptor.start()
                try:
                    yield path
                finally:
                    stop.set()
                    with contextlib.suppress(OSError):
                        listener.shutdown(socket.SHUT_RDWR)
                    acceptor.join(5)
                    for pump in pumps:
                        pump.close()

    def _accept(
        self,
        listener: socket.socket,
        remote: str,
        stop: threading.Event,
        pumps: list[SocketForward],
    ) -> None:
        while not stop.is_set():
            try:
                local, _ = listener.accept()
            except OSError:
                return
            try:
                with self._within(CALL_TIMEOUT_S, f"forwarding {remote}") as transport:
                    channel = transport.open_session()
                    channel.exec_command(self._command_line("pipe", remote))
            except HostError as error:
                log.warning("%s", error)
                local.close()
                continue
            for over in [pump for pump in pumps if pump.closed]:
                over.close()
                pumps.remove(over)
            pumps.append(SocketForward(local, channel))


def _reject_unknown() -> paramiko.MissingHostKeyPolicy:
    import paramiko

    class Reject(paramiko.MissingHostKeyPolicy):
        def missing_host_key(
            self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
        ) -> None:
            del client, hostname
            raise _UnknownHostKeyError(f"{key.get_name()} {fingerprint(key.asbytes())}")

    return Reject()


def _private_key(target: HostTarget) -> paramiko.PKey | None:
    """The key given as text.

    Raises:
        HostError: it is none.
    """
    import paramiko

    if target.private_key is None:
        return None
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with contextlib.suppress(paramiko.SSHException, ValueError):
            return kind.from_private_key(io.StringIO(target.private_key))
    raise HostError(
        f"{target.label}: the connection's private_key is not an unencrypted PEM key of type "
        "ed25519, ecdsa or rsa; put the key file's whole text there",
        code="auth",
    )


def _watch_link(sock: socket.socket) -> None:
    """Let the kernel notice a dead link: probes while idle, a limit for unacknowledged data."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3),
               ("TCP_USER_TIMEOUT", LINK_TIMEOUT_S * 1000))  # fmt: skip
    for name, value in options:
        if hasattr(socket, name):  # Linux has all four
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
