"""A small server that behaves as a test asks: slow, stalling, dying, lying, answering wrongly."""

from __future__ import annotations

#: Standard library only. Arguments: one JSON object of what it does other than usual.
SERVER = """\
import json, os, signal, socket, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

does = {"port": 8000, "ready_after_s": 0, "delay_s": 0, "label": "cat", "dies_after": None, "lies": False,
        "answer": None, "prints": "", "redirects": False, "spins_s": 0, "stalls_at": None, "stall_s": 2}
does.update(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
begin, asked, lock = time.monotonic(), [0], threading.Lock()
free = [0.0]  # nothing is answered before


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if time.monotonic() - begin < does["ready_after_s"]:
            return self.answer(503, {})
        if does["lies"]:
            server.socket.shutdown(socket.SHUT_RDWR)
            threading.Thread(target=server.shutdown).start()
            self.close_connection = True
        self.answer(200, {"ready": True})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with lock:
            asked[0] += 1
            if asked[0] == does["stalls_at"]:
                free[0] = time.monotonic() + does["stall_s"]
        if does["dies_after"] is not None and asked[0] > does["dies_after"]:
            print("MemoryError: no more", file=sys.stderr, flush=True)
            os._exit(3)
        if does["redirects"]:
            return self.answer(302, {}, Location="/elsewhere")
        until = time.monotonic() + does["spins_s"]
        while time.monotonic() < until:
            pass
        time.sleep(does["delay_s"] + max(free[0] - time.monotonic(), 0))
        self.answer(200, does["answer"] or {"label": does["label"]})

    def answer(self, status, document, **headers):
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # as process 1 it would be ignored
print(does["prints"], flush=True)
server = ThreadingHTTPServer(("", does["port"]), Handler)
server.daemon_threads = True
server.serve_forever()
time.sleep(600)
"""
