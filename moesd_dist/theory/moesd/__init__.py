"""The paper's model (MoESD, arXiv 2505.19645): ten parameters, their bounds, the fit, the choice of points."""
