"""Servers that stand in for the providers and misbehave on request: one module a provider, found by its name."""
