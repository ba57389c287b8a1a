"""Sweeps that foretell their expert-parallel points from one rank alone, and measure them after."""
