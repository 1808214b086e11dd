"""One file a provider, one contract (`contract.py`); nothing here knows Redis, Postgres or HTTP routes."""
