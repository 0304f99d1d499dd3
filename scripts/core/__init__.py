"""What all stages share. Imported before torch, so that OpenMP reads its settings from here.

With OMP_WAIT_POLICY=passive, OpenMP's threads sleep while they wait for one another instead of spinning. Spinning threads
take the cores from other processes, and from this project's own worker processes.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
