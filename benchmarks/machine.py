"""What the figures were measured on."""

import os
import platform
from pathlib import Path

import ordinaut


def _first(path: str, key: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def describe() -> dict[str, str]:
    """Processor, cores, memory, system, Python and Ordinaut, and how busy the machine was at the start."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "system": platform.platform(terse=True),
        "Python": platform.python_version(),
        "Ordinaut": ordinaut.__version__,
        "load before": f"{os.getloadavg()[0]:.2f}",
    }
