"""Tocsin tells people things, on the channel that reaches them, and stops when they have read it."""
