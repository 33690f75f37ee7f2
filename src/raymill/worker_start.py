"""What every worker of a Ray instance of our own does first; see cluster/environment.py."""

import gc

# A worker imports thousands of modules before it does anything. With Python's default of 700 new
# objects the collector goes over all of them again and again, a sixth of the time that takes.
gc.set_threshold(50_000, 20, 50)
