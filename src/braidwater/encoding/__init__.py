"""Encoding: raw columns of a table to numbers, declared once, fitted in one aggregate, saved with the model."""
