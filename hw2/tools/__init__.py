"""Measuring speed, executing the notebooks."""
