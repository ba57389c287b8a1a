"""From axes to finished points: the grid, the pairing, the statistics, and where it all runs."""
