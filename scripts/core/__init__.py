"""Code that all stages share. It is imported before torch, because OpenMP reads its settings when torch is loaded.

With OMP_WAIT_POLICY=passive, OpenMP's threads sleep while they wait for one another instead of spinning. Spinning threads
take the cores from other processes, and from this project's own worker processes.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
