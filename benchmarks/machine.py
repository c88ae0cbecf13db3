"""The machine that a figure was measured on."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import torch

import isingflow


def describe() -> dict:
    """Date, processor, cores, GPU and versions, for the head of a results file."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.date.today().isoformat(),
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "isingflow": isingflow.__version__,
    }
