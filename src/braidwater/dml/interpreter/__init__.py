"""Runs scripts."""
