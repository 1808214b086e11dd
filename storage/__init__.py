"""Redis for what is in motion, Postgres for what happened. Nothing outside imports redis, peewee or psycopg2."""
