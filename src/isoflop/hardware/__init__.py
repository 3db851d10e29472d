"""What the machine at hand can do: cores that may be used, and which precision is faster.

Torch is imported only where something is measured.
"""

from isoflop.hardware.cores import UsableCores, machine, usable_cores
from isoflop.hardware.precision import choose_precision, measure_speeds, use_threads
