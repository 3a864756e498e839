"""Matrices, frames and scalars in files."""
