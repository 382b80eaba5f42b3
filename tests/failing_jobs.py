"""``train.py`` with jobs that do nothing but fail: ``python -m tests.failing_jobs '{"<seed>": "<error>"}' ...``.

It starts without torch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import train

ERRORS = {
    "user": lambda: ValueError("expected another seed"),
    "full disk": lambda: OSError(28, "No space left on device"),
    "bug": lambda: RuntimeError("a bug"),
}


def main() -> None:
    """Run the command line."""
    failures = json.loads(sys.argv[1])

    def job(config: Any) -> None:
        # Processes that a distributed job starts must not show tracebacks.
        print(f"job {config.seed}" + " with HYDRA_FULL_ERROR" * ("HYDRA_FULL_ERROR" in os.environ), flush=True)
        failure = failures.get(str(config.seed))
        if failure == "signal":
            signal.raise_signal(signal.SIGINT)
        elif failure is not None:
            raise ERRORS[failure]()

    train.train = job  # type: ignore[assignment]
    os.environ["HYDRA_MAIN_MODULE"] = "__main__"  # so that Hydra looks for configs/ beside train.py
    sys.argv = ["train.py", *sys.argv[2:]]
    train.main()


if __name__ == "__main__":
    main()
