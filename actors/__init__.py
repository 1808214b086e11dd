"""What keeps things moving: one actor a file, called by Dramatiq, guaranteed by the time index in Redis."""
