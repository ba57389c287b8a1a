"""A sweep on Ray: the only library package that imports it. Actors measure, the driver alone writes."""
