"""An SSH server of paramiko's on this machine, and the connection to it: what it is asked to run runs here."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko import common, sftp

from wattbench.worker.target import HostTarget


class Files(paramiko.SFTPServerInterface):
    """This machine's files."""

    def _answer(self, work: Any) -> Any:
        try:
            return work()
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def stat(self, path: str) -> Any:
        return self._answer(lambda: paramiko.SFTPAttributes.from_stat(Path(path).stat()))

    lstat = stat

    def open(self, path: str, flags: int, attr: Any) -> Any:
        def opened() -> paramiko.SFTPHandle:
            file = os.fdopen(os.open(path, flags, 0o644), "rb" if flags == os.O_RDONLY else "wb")
            handle = paramiko.SFTPHandle(flags)
            handle.readfile = handle.writefile = file  # type: ignore[attr-defined]
            handle.stat = lambda: self.stat(path)
            return handle

        return self._answer(opened)

    def mkdir(self, path: str, attr: Any) -> Any:
        def made() -> int:
            Path(path).mkdir()
            return sftp.SFTP_OK

        return self._answer(made)

    def posix_rename(self, oldpath: str, newpath: str) -> Any:
        return self._answer(lambda: Path(oldpath).replace(newpath) and sftp.SFTP_OK)


class Session(paramiko.ServerInterface):
    """One client's connection: a single key may log in and run commands."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        allowed = username == "bench" and key == self.server.client_key
        return common.AUTH_SUCCESSFUL if allowed else common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.server.commands.append(command.decode())
        if not self.server.mute:
            self.server.spawn(self._run, channel, command)
        return True

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        self.server.before_each()
        process = subprocess.Popen(
            command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.server.processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        into, out, err = process.stdin, process.stdout, process.stderr

        def carry_in() -> None:
            with contextlib.suppress(OSError, EOFError):
                while block := channel.recv(65536):
                    into.write(block)
                    into.flush()
            with contextlib.suppress(OSError):
                into.close()

        self.server.spawn(carry_in)
        with contextlib.suppress(OSError, EOFError):
            while block := os.read(out.fileno(), 65536):
                channel.sendall(block)
            channel.sendall_stderr(err.read())
            channel.send_exit_status(process.wait() & 255)
            channel.close()
        process.wait()
        for pipe in (out, err):
            pipe.close()


class Server:
    """An SSH server on a free port of this machine.

    Attributes:
        commands: what it was asked to run, in order.
        mute: it runs nothing and answers nothing.
        before_each: called before it runs what it was asked to.
    """

    def __init__(self, host_key: paramiko.PKey, client_key: paramiko.PKey) -> None:
        self.host_key, self.client_key = host_key, client_key
        self.transports: list[paramiko.Transport] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.threads: list[threading.Thread] = []
        self.commands: list[str] = []
        self.mute = False
        self.before_each: Callable[[], None] = lambda: None
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]

    def spawn(self, work: Any, *args: Any) -> None:
        """Work in a thread that ends with the server."""
        thread = threading.Thread(target=work, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def start(self) -> None:
        """Listen."""
        self.listener.listen()
        self.spawn(self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(sock)
            transport.add_server_key(self.host_key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
            self.transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(threading.Event(), Session(self))

    def drop(self) -> None:
        """Cut every connection; what runs on the host runs on."""
        for transport in self.transports:
            transport.close()

    def stop(self) -> None:
        """End it with all that it runs."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.drop()
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for thread in self.threads:
            thread.join(10)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server that runs, with keys of its own."""
    running = Server(new_key(), new_key())
    running.start()
    try:
        yield running
    finally:
        running.stop()


def new_key() -> paramiko.PKey:
    """A fresh key."""
    return paramiko.ECDSAKey.generate(bits=256)


def pem(key: paramiko.PKey) -> str:
    """A private key as text."""
    text = io.StringIO()
    key.write_private_key(text)
    return text.getvalue()


def public(key: paramiko.PKey) -> str:
    """A public key as in known_hosts."""
    return f"{key.get_name()} {key.get_base64()}"


def target_of(server: Server, spool: Path, name: str = "worker") -> HostTarget:
    """How to reach it."""
    return HostTarget(
        name=name, hostname="127.0.0.1", port=server.port, username="bench",
        private_key=pem(server.client_key), host_key=public(server.host_key),
        spool=str(spool), connect_timeout_s=20, python=sys.executable,
    )  # fmt: skip
