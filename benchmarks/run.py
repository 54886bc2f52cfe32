"""Runs every `bench_*.py` of this folder, one after the other, and keeps what they print in `benchmarks/report.md`.

`make bench`, or `python benchmarks/run.py loop store` for some. Each takes its ratios to a baseline of the same run.
What is no matter of speed has commands of its own: `error_rates.py`, `drift.py`, `stories.py`, `bounds.py`.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent


def main() -> None:
    """Run those named, or all; the exit status is that of the first that failed."""
    wanted = sys.argv[1:]
    files = sorted(FOLDER.glob("bench_*.py"))
    chosen = [file for file in files if not wanted or file.stem.removeprefix("bench_") in wanted]
    if not chosen:
        names = ", ".join(file.stem.removeprefix("bench_") for file in files)
        sys.exit(f"no benchmark is named {' '.join(wanted)}; there are {names}")
    with_broker(chosen, wanted)


def with_broker(chosen: list[Path], wanted: list[str]) -> None:
    """Run them against one broker: the one named in the environment, else one of this run."""
    from headrace.infra.local_broker import ensure_broker, running, stop_local_broker

    home = Path(".headrace").absolute()
    had = running(home) is not None or bool(os.environ.get("KAFKA_BOOTSTRAP_SERVERS"))
    os.environ["KAFKA_BOOTSTRAP_SERVERS"] = ensure_broker(home)
    parts, status = [], 0
    try:
        for file in chosen:
            print(f"\n{file.name}", flush=True)
            done = subprocess.run([sys.executable, str(file)], stdout=subprocess.PIPE, text=True, check=False)
            print(done.stdout, flush=True)
            status = status or done.returncode
            parts.append(f"## {file.stem}\n\n```\n{done.stdout.strip()}\n```\n")
    finally:
        if not had:
            stop_local_broker(home)
    if not wanted:
        told = f"Python {platform.python_version()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"
        (FOLDER / "report.md").write_text(f"# Benchmarks\n\n{told}.\n\n" + "\n".join(parts))
    sys.exit(status)


if __name__ == "__main__":
    main()
