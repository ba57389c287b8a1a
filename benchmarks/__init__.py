"""Printed tables of speed; never run as tests."""
