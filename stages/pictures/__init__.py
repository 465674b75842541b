"""Drawings and plots: one palette, one way to set a label."""
