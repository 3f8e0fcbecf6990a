"""What a controller needs per measuring host: the time between windows, memory and CPU, for real.

``python tests/bench/bench_hosts.py [HOSTS] [BLOCKS]`` (default 2 and 4) starts an Airflow of its own (SQLite,
LocalExecutor, the demo's settings), an object store, and for each simulated host an sshd on a loopback port and
a spool; a run measures two images, each a program that sleeps, with the stand-in meter. All of it shares this
machine's cores, so that the figures are upper bounds. The time between two windows is that between the end of
one trial's command and the start of the next one's on the same host, by the host's clock, ``--rest`` included.
Long windows, in which most hosts wait, show the memory of a wait; short windows show that of the tasks between
them, and how many trials per hour this machine can do.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import yaml
from figures import Figure, show

from demo import airflow
from tests.support.local_server import wait_until_listening
from tests.support.s3_server import Server
from wattbench.airflow.watchdog import descendants
from wattbench.local import airflow_services, credentials
from wattbench.local.airflow_services import Layout
from wattbench.local.keys import KeyPair, key_pair
from wattbench.local.processes import services
from wattbench.local.state_folder import StateFolder
from wattbench.run.stored_run import Run as StoredRun
from wattbench.storage.object_store import Store

REPO = HERE.parents[1]
PROGRAM = """\
import sys, time
print("ready", flush=True)
time.sleep(float(sys.argv[1]))
print("slept 1 times")
"""
SSHD = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PidFile none
PasswordAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
UseDNS no
MaxSessions 20
MaxStartups 100
Subsystem sftp internal-sftp
"""
EXPERIMENT = "bench-hosts"
#: Between two looks at the memory of Airflow's processes, s.
LOOK_S = 2.0


@dataclass(frozen=True)
class SimulatedHost:
    """A login on this machine with a spool of its own."""

    name: str
    port: int
    spool: Path
    client_key: KeyPair
    host_key: KeyPair

    def connection(self) -> dict[str, object]:
        """Airflow's connection to it."""
        extra = {"private_key": self.client_key.private, "host_key": self.host_key.public}
        return {
            "conn_type": "ssh", "host": "127.0.0.1", "port": self.port, "login": getpass.getuser(),
            "extra": extra,
        }  # fmt: skip


@contextmanager
def simulated_hosts(folder: Path, count: int, place: StateFolder) -> Iterator[list[SimulatedHost]]:
    """Hosts that accept logins until the block ends."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it shuts its unprivileged half in
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or "sshd"
    hosts: list[SimulatedHost] = []
    with ExitStack() as stack:
        for number in range(1, count + 1):
            name = f"sim-{number:03d}"
            home = folder / name
            (home / "spool").mkdir(parents=True)
            port = place.free_port(name)
            host = SimulatedHost(
                name, port, home / "spool", key_pair(home / "client"), key_pair(home / "host")
            )
            (home / "sshd.conf").write_text(SSHD.format(port=port, folder=home))
            sshd = stack.enter_context(
                subprocess.Popen(
                    [program, "-D", "-f", str(home / "sshd.conf")],
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
            stack.callback(sshd.kill)
            wait_until_listening(port, sshd)
            hosts.append(host)
        yield hosts


def write_config(
    folder: Path, hosts: Sequence[SimulatedHost], blocks: int, window_s: float, rest_s: float
) -> None:
    """hosts.yaml, the experiment and its program."""
    meter = {"kind": "modelled", "command": str(REPO / "images/worker-host/energibridge")}
    (folder / "experiments").mkdir(parents=True)
    (folder / "hosts.yaml").write_text(
        yaml.safe_dump(
            {
                "store": {"conn_id": "wattbench_store", "bucket": "wattbench", "prefix": "bench"},
                "hosts": {
                    host.name: {
                        "ssh_conn_id": host.name.replace("-", "_"), "spool": str(host.spool),
                        "meter": meter,
                    }
                    for host in hosts
                },
            }
        )
    )  # fmt: skip
    (folder / "experiments" / "program.py").write_text(PROGRAM)
    (folder / "experiments" / f"{EXPERIMENT}.yaml").write_text(
        yaml.safe_dump(
            {
                "hosts": [host.name for host in hosts],
                "workload": {
                    "command": ["python3", "/bench/program.py", str(window_s)],
                    "files": {"/bench/program.py": "program.py"},
                    "unit": {"name": "sleep", "pattern": r"slept (\d+)"},
                    "ready": {"pattern": "ready"},
                },
                "images": {"one": {"runtime": "process"}, "two": {"runtime": "process"}},
                "reference": "one",
                "protocol": {
                    "blocks": blocks, "attempts": 1, "warm_up": {"seconds": 0}, "timeout_s": 600,
                    "rest": {"min_s": rest_s, "max_s": rest_s, "until_quiet": False},
                    "idle_baseline": None,
                },
            }
        )
    )  # fmt: skip


class Memory:
    """Looks at the memory of Airflow's processes now and then: PSS, in which shared pages are shared out."""

    def __init__(self, place: StateFolder) -> None:
        self.place = place
        self.seen: list[float] = []
        self._over = threading.Event()

    def now_mib(self) -> float:
        """Of all Airflow's processes together."""
        total = 0
        for service in services(self.place):
            if (leader := service.pid()) is not None:
                for pid in (leader, *descendants(leader)):
                    total += _pss_kib(pid)
        return total / 1024

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look until the block ends."""

        def look() -> None:
            while not self._over.wait(LOOK_S):
                self.seen.append(self.now_mib())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


def _pss_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def _cpu_s(place: StateFolder) -> float:
    """CPU time of Airflow's processes, with children that have ended."""
    ticks = 0
    for service in services(place):
        if (leader := service.pid()) is not None:
            for pid in (leader, *descendants(leader)):
                try:
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def windows(run: StoredRun, host: str) -> list[tuple[float, float]]:
    """Start and end of all windows of a host, in order."""
    found = []
    for listed in run.store.list(f"runs/{run.run_id}/hosts/{host}/trials/"):
        if listed.key.endswith("/attempt.json"):
            command = run.store.get_json(listed.key)["command"]
            found.append((command["started"]["unix_s"], command["ended"]["unix_s"]))
    return sorted(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("hosts", type=int, nargs="?", default=2)
    parser.add_argument("blocks", type=int, nargs="?", default=4)
    parser.add_argument("--window", type=float, default=5.0, help="length of a window, s")
    parser.add_argument("--rest", type=float, default=1.0, help="between windows at least, s")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    args = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("ended from outside")
    )  # leaves nothing running
    folder = Path(tempfile.mkdtemp(prefix="wattbench-bench-"))
    place = StateFolder(folder / "var")
    with ExitStack() as stack:
        if args.keep:
            print(f"logs: {folder}")
        else:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        store = Server(folder / "store")
        store.start()
        stack.callback(store.stop)
        hosts = stack.enter_context(simulated_hosts(folder / "hosts", args.hosts, place))
        write_config(folder / "config", hosts, args.blocks, args.window, args.rest)
        known: dict[str, object] = {h.name.replace("-", "_"): h.connection() for h in hosts}
        known["wattbench_store"] = {
            "conn_type": "aws", "login": store.target.access_key, "password": store.target.secret_key,
            "extra": {"endpoint_url": store.target.endpoint_url, "addressing_style": "path"},
        }  # fmt: skip
        (place.folder() / "connections.json").write_text(json.dumps(known))
        secrets = credentials.ensure(place)
        sources = {"PYTHONPATH": f"{REPO}:{REPO / 'plugins'}"}
        layout = Layout(
            home=folder / "airflow", dags=REPO / "dags", plugins=REPO / "plugins",
            config=folder / "config", environment=airflow_services.PROMPT | sources,
        )  # fmt: skip
        described = airflow_services.describe(place, secrets, layout)
        stack.callback(lambda: [service.stop() for service in services(place)])
        airflow_services.ensure(place, described, secrets)
        airflow_services.wait_until_ready(place, described, within_s=300)
        client = airflow.connect(described)
        client.wait_for_dag(EXPERIMENT, within_s=300)
        memory, before_s, began = Memory(place), _cpu_s(place), time.monotonic()
        idle_mib = memory.now_mib()
        run = client.trigger(EXPERIMENT, {})
        with memory.watched():
            while not (run := client.run(run)).over:
                time.sleep(1)
        took_s, cpu_s = time.monotonic() - began, _cpu_s(place) - before_s
        target = store.target
        target = type(target)(
            target.endpoint_url, target.access_key, target.secret_key, target.bucket, "bench"
        )
        stored = StoredRun.load(Store(target), run.run_id)
        spans = {host.name: windows(stored, host.name) for host in hosts}
    trials = sum(map(len, spans.values()))
    planned = len(hosts) * args.blocks * 2
    if trials != planned:  # red for trials that Airflow itself disturbed on this machine is well
        sys.exit(f"the run ended as {run.state}, {trials} of {planned} trials were executed")
    gaps = sorted(b[0] - a[1] for found in spans.values() for a, b in pairwise(found))
    measuring_s = max(s[-1][1] for s in spans.values()) - min(s[0][0] for s in spans.values())
    median_mib = statistics.median(memory.seen) - idle_mib
    size = f"{len(hosts)} hosts, {args.blocks * 2} trials of {args.window:g} s each"
    for what, value, unit, limit in (
        (
            f"gap between windows, rest of {args.rest:g} s included",
            statistics.median(gaps),
            "s",
            3.0 if args.window >= 5 else None,
        ),
        ("the same, 90 % are below", gaps[int(0.9 * (len(gaps) - 1))], "s", None),
        # Where windows are short, hosts seldom wait, or never: no limit is meant.
        (
            "memory of Airflow per host, beyond idle",
            median_mib / len(hosts),
            "MiB",
            20.0 if args.window >= 30 else None,
        ),
        ("memory of Airflow, idle", idle_mib, "MiB", None),
        ("CPU of Airflow per trial", cpu_s / trials, "s", None),
        ("trials per hour", 3600 * trials / measuring_s, "/h", None),
    ):
        show(Figure(what, size, value, unit, limit=limit))
    print(
        f"  run {took_s:.0f} s, peak {max(memory.seen):.0f} MiB, "
        f"load of this machine {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
