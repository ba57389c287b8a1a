"""A process that never ends, with shared memory and a child like itself: what a deadline is for."""

import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory

CHILD = "child"

if __name__ == "__main__":
    if CHILD not in sys.argv:
        subprocess.Popen(
            [sys.executable, "-m", "tests.engines.vllm.sleepers", CHILD, *sys.argv[1:]]
        )
    segment = SharedMemory(f"{sys.argv[-1]}_{len(sys.argv)}", create=True, size=4096)
    time.sleep(1000)
