"""Runs plans: compiled programs, scans on threads, streamed matrices, the pool of matrices with a bound on memory."""
