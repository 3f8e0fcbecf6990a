"""Figures and file names that the agent and the controller must agree on. Imports nothing.

The controller imports this module; hosts get it inside the agent. What stands here stands nowhere else.
"""

#: Version of the spool's documents and of the attempt report.
SCHEMA = 1
DEFAULT_SPOOL = "/var/spool/wattbench"
#: Folder of the spool with the files that workloads need, each named by its SHA-256.
FILES = "files"

# ---------------------------------------------------------------------------------- an attempt's time

#: From the end of an attempt's timeout until its report: stopping, inspecting and removing, s.
SETTLE_S = 120.0
#: The lease outlives the attempt's deadline by this much, so that its owner collects first, s.
LEASE_MARGIN_S = 300.0
#: How long a meter may take to end by itself after its workload, s (plus a sampling interval).
GRACE_S = 10.0
#: How long a meter may take to start its workload, s.
METER_START_S = 30.0
#: How long an unreachable Docker daemon is waited for; a restarting one answers after some 12 s.
DOCKER_PATIENCE_S = 40.0
#: How long the supervisor waits for a ``wait`` to arrive before it opens the window, s.
LEAD_S = 3.0
#: The same where the controller runs on this host: it waits once all of the trial's tasks wait, s.
CONTROLLER_LEAD_S = 30.0
#: How long such a controller is waited for until it is at rest, s.
CONTROLLER_REST_S = 15.0
#: It is at rest if it uses less than this share of one core for this time, s.
CONTROLLER_REST_SHARE, CONTROLLER_LOOK_S = 0.2, 1.0
#: How long an attempt that only holds may take until it accepts the request to end, s.
FINISH_S = 30.0

#: How long a server may take to end when it is asked to, s.
SERVER_STOP_S = 10
#: How long after a failed request a server's end may show, s.
SERVER_END_S = 1.0
#: How long the load generator may take to end when its server is gone, s.
LOAD_STOP_S = 10.0
#: How long a server waits for the first connection of a load on another machine, s.
LOAD_CONNECT_S = 30.0
#: How long a load generator tries to reach the other machine: its window opens meanwhile, s.
LOAD_REACH_S = 120.0
#: Connections of a load that are passed on to the server at any time.
LOAD_CONNECTIONS = 1024

# ------------------------------------------------------------------------------------------- sampling

#: Default time between two samples of a meter, ms.
INTERVAL_MS = 200
#: A machine draws less than this through one counter: the bound behind the sampling period, W.
MAX_ZONE_W = 500.0
#: How long GPUs are sampled before and after the window: their counters move every 100 ms.
GPU_MARGIN_S = 0.25

#: Sampling intervals for which the host waits, inside a meter that wraps the workload, before and after
#: the window: two whole intervals there give the power outside, and so the window's share of the
#: intervals at its edges.
EDGE_INTERVALS = 3
#: The longest such wait, s: enough for a sampling interval of 5 s.
EDGE_WAIT_S = 15.0

# ---------------------------------------------------------------------------------------------- clocks

#: Offset between the host's clock and the controller's above which a host gets a soft problem, s.
CLOCK_LIMIT_S = 0.05
#: A change of wall clock against monotonic clock above this is a step, not slewing, s.
CLOCK_STEP_S = 0.1

# -------------------------------------------------------------------------------------- a host's state

#: Free space that the spool needs before a trial: raw logs of one attempt and room to work, bytes.
MIN_FREE_BYTES = 1 << 30
#: Set aside so that the report can be written on a disk that became full, bytes.
RESERVE_BYTES = 1 << 20
#: The load above which an idle host is called busy, %.
BUSY_PCT = 10.0

# ------------------------------------------------------------------------------ what a workload may do

#: Kept of each of the workload's output streams; the rest is counted and dropped, bytes.
OUTPUT_BYTES = 4 << 20
#: The longest line of stdout that can be an event, bytes.
LINE_BYTES = 256 << 10
#: Processes and threads that a container may have.
CONTAINER_PIDS = 4096
#: Kept by Docker of a container's output.
CONTAINER_LOG_SIZE = "8m"

# ------------------------------------------------------------------------------------------- documents

#: The largest document that is read: anything larger is corrupt, bytes.
DOCUMENT_BYTES = 16 << 20
#: The largest raw file of a meter that is kept, bytes.
METER_FILE_BYTES = 1 << 30
#: The deepest nesting of a JSON document or event; no document of ours has more than a dozen levels.
DEPTH = 64

#: Files of an attempt that the store keeps beside the meters' own.
OUTPUT_FILES = (
    "workload.jsonl", "stdout.log", "stderr.log", "meter.log", "output.log", "server.log",
)  # fmt: skip
#: One line per request to a server; the store keeps it too, and it may be as large as a meter's file.
REQUESTS_FILE = "requests.csv"
#: Files of an attempt that the report lists besides, and that stay on the host.
STATE_FILES = ("command.json", "spec.json", "supervisor.log")
