"""Batched speculative decoding on any Hugging Face model, with every phase and every expert in sight."""
