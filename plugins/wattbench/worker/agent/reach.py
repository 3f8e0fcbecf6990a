"""The verbs ``listen`` and ``reach``: whether a port of this host can be reached from another one."""

from __future__ import annotations

import hmac
import socket
import time

from wattbench.worker.agent.base import AgentError, number
from wattbench.worker.agent.relay import GREETING, KEPT, listening

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wattbench.worker.agent.base import Json
    from wattbench.worker.agent.spool import Spool

#: Between two tries to connect, s.
_AGAIN_S = 0.1


def verb_listen(_spool: Spool, payload: Json) -> Json:
    """Listen on ``address`` and ``port`` until someone shows the token; answers ``peer``, its address."""
    address, port, token, timeout_s = _asked(payload)
    try:
        listener = listening(address, port)
    except OSError as error:
        raise AgentError(
            "port-closed", "%s port %d can't be opened: %s" % (address, port, error.strerror or error),
            "end what listens there, or name another workload.load.from.port, or this host's own address "
            "(hosts.NAME.address)",
        ) from None  # fmt: skip
    deadline_s = time.monotonic() + timeout_s
    with listener:
        while time.monotonic() < deadline_s:
            listener.settimeout(max(deadline_s - time.monotonic(), 0.001))
            try:
                sock, peer = listener.accept()
                with sock:
                    sock.settimeout(1.0)
                    wanted = GREETING + token.encode() + b"\n"
                    if hmac.compare_digest(_read(sock, len(wanted)), wanted):
                        sock.sendall(KEPT)
                        return {"peer": peer[0]}
            except OSError:  # nothing came in time, or what came has gone
                continue
    raise AgentError(
        "port-unreached", "nothing reached %s port %d within %g s" % (address, port, timeout_s),
        "open the port for the load host in the firewall",
    )  # fmt: skip


def verb_reach(_spool: Spool, payload: Json) -> Json:
    """Connect to ``address`` and ``port`` of another host, and show the token; answers ``trip_s``."""
    address, port, token, timeout_s = _asked(payload)
    deadline_s = time.monotonic() + timeout_s
    why = "it does not answer"
    while time.monotonic() < deadline_s:
        began_s = time.monotonic()
        try:
            left_s = max(deadline_s - began_s, 0.001)
            with socket.create_connection((address, port), left_s) as sock:
                sock.settimeout(left_s)
                sock.sendall(GREETING + token.encode() + b"\n")
                if _read(sock, len(KEPT)) == KEPT:
                    return {"trip_s": time.monotonic() - began_s}
                why = "another program answers there"
        except OSError as error:
            why = error.strerror or str(error)
        time.sleep(_AGAIN_S)
    raise AgentError(
        "port-unreached", "%s port %d can't be reached from here: %s" % (address, port, why),
        "open the port for this host in the firewall, or name the address at which it reaches the measured "
        "host (hosts.NAME.address)",
    )  # fmt: skip


def _asked(payload: Json) -> tuple[str, int, str, float]:
    address, port, token = (payload.get(key) for key in ("address", "port", "token"))
    known = isinstance(address, str) and isinstance(port, int) and isinstance(token, str)
    if not known:
        raise AgentError("bad-request", "listen, reach: address, port and token")
    return str(address), int(str(port)), str(token), number(payload, "timeout_s", 10.0)


def _read(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if no more come."""
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            break
        data += part
    return data
