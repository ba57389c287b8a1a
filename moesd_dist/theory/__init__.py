"""The laws of speculative decoding on Mixture-of-Experts models, as functions of numbers."""
