"""How Postgres would answer each statement of the program where there are millions of rows."""
