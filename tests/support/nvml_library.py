"""A library with NVML's interface: two GPUs of known numbers, which a file changes while it runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
typedef void *dev;
/* A line "NAME VALUE" of the file $NVML_STATE, else the default. */
static unsigned set_value(const char *name, unsigned value) {
  char key[64]; unsigned found; const char *path = getenv("NVML_STATE");
  FILE *file = path ? fopen(path, "r") : 0;
  while (file && fscanf(file, "%63s %u", key, &found) == 2) if (!strcmp(key, name)) value = found;
  if (file) fclose(file);
  return value;
}
/* A value of one GPU: its name ends with the UUID's letter. */
static unsigned of_gpu(dev d, const char *name, unsigned value) {
  char key[64]; snprintf(key, sizeof key, "%s_%c", name, d == (dev)1 ? 'a' : 'b');
  return set_value(key, value);
}
static unsigned long long now_ms(void) {
  struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000ULL + t.tv_nsec / 1000000;
}
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, dev *d) { *d = (dev)(unsigned long)(i + 1); return 0; }
int nvmlDeviceGetUUID(dev d, char *s, unsigned n) { strncpy(s, d == (dev)1 ? "GPU-a" : "GPU-b", n); return 0; }
int nvmlDeviceGetName(dev d, char *s, unsigned n) { strncpy(s, "Test GPU", n); return 0; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "999.1", n); return 0; }
int nvmlDeviceGetTotalEnergyConsumption(dev d, unsigned long long *e) {
  *e = 5000000000ULL + now_ms() * 61500 / 1000; return 0; }
int nvmlDeviceGetPowerUsage(dev d, unsigned *p) {
  *p = 61500 + now_ms() / 10 % (1 + set_value("ripple_mw", 0)); return 0; }
int nvmlDeviceGetUtilizationRates(dev d, unsigned *u) { u[0] = of_gpu(d, "usage", 97); u[1] = 11; return 0; }
int nvmlDeviceGetTemperature(dev d, int sensor, unsigned *t) { if (sensor) return 2; *t = 55; return 0; }
int nvmlDeviceGetClockInfo(dev d, int kind, unsigned *c) { if (kind != 1) return 2; *c = 1410; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(dev d, unsigned long long *r) { return 3; }
int nvmlDeviceGetMemoryInfo(dev d, unsigned long long *m) { m[0] = 80ULL << 30; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(dev d, unsigned *n, void *p) {
  unsigned room = *n, pid = set_value("pid", 0);
  if (d == (dev)2) { *n = set_value("processes_b", 3); return *n ? 7 : 0; }
  *n = pid ? 1 : 0;
  if (pid && room == 0) return 7;
  if (pid) *(unsigned *)p = pid;
  return 0; }
int nvmlDeviceGetPowerManagementLimit(dev d, unsigned *p) { *p = set_value("limit_mw", 400000); return 0; }
int nvmlDeviceGetPowerManagementDefaultLimit(dev d, unsigned *p) { *p = 700000; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(dev d, unsigned *p) { *p = set_value("limit_mw", 400000); return 0; }
int nvmlDeviceGetApplicationsClock(dev d, int kind, unsigned *c) { *c = kind == 1 ? 1980 : 2619; return 0; }
int nvmlDeviceGetMaxClockInfo(dev d, int kind, unsigned *c) { *c = 1980; return 0; }
int nvmlDeviceGetPersistenceMode(dev d, unsigned *m) { *m = 1; return 0; }
int nvmlDeviceGetComputeMode(dev d, unsigned *m) { *m = 3; return 0; }
int nvmlDeviceGetEccMode(dev d, unsigned *now, unsigned *next) { *now = set_value("ecc", 1); *next = 0; return 0; }
int nvmlDeviceGetMigMode(dev d, unsigned *now, unsigned *next) { return 3; }
int nvmlDeviceGetVbiosVersion(dev d, char *s, unsigned n) { strncpy(s, "96.00.99.00.01", n); return 0; }
"""


def build(folder: Path) -> Path:
    """The library, compiled; its state file is named by the variable ``NVML_STATE``.

    Lines of the file: ``pid`` (the process on GPU-a), ``processes_b`` (their number on GPU-b, 3), ``usage_a``, ``usage_b`` (97 %),
    ``limit_mw``, ``ecc``, and ``ripple_mw`` on the power. Both counters rise by 61.5 W of the monotonic clock, from 5 MJ at its zero.
    Throttle reasons, instant power and MIG are not supported, as on an older driver.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = folder / "nvml.c", folder / "libnvidia-ml.so"
    source.write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", library, source], check=True)
    return library
