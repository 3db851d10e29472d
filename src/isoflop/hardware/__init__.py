"""What the machine at hand can do: cores and memory that may be used, which precision is faster.

Torch is imported only where something is measured.
"""

from isoflop.hardware.cores import UsableCores, machine, usable_cores
from isoflop.hardware.memory import free_memory
from isoflop.hardware.precision import choose_precision, measure_speeds, use_threads
