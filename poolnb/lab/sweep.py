"""The door to sweeps: what a script imports. The room behind it is `poolnb.lab.sweeps`."""

from poolnb.lab.sweeps.sweep import Report, Sweep, read_sweep, sweep

__all__ = ["Report", "Sweep", "read_sweep", "sweep"]
