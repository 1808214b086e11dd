"""The schema, one step a file, applied in the order of their names by storage/migrate.py."""
