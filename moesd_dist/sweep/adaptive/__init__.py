"""Sweeps that choose their next points from what was measured."""
