"""Experts shared out over ranks: where they lie, what the busiest rank does, and what links cost."""
