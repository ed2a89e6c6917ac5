"""Machine code written by hand, apart from everything else."""
