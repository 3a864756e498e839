"""Frames as matrices of numbers: recoding, binning, one-hot, imputation, learnt once and applied to other rows."""
