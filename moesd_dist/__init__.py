"""Speculative decoding on Mixture-of-Experts models: measured, explained, predicted."""
