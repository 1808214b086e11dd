"""The torture run: the real program under every fault; providers count for themselves (docs/reliability.md)."""
