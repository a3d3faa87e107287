"""Sweeps: many runs of one file, in processes of this machine or on a cluster."""
