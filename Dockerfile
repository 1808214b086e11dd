# Tocsin in one process. Alone it runs a Postgres and a Redis of its own and keeps everything in the volume /data; with
# DATABASE_URL and REDIS_URL it uses those. Settings are environment variables: docs/settings.md.
FROM python:3.12-slim-bookworm

# Our own Redis, for who gives none. The account has an entry in passwd, without which Postgres does not start.
RUN apt-get update \
 && apt-get install -y --no-install-recommends redis-server \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin tocsin \
 && mkdir /data \
 && chown tocsin /data

WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1

# What changes rarely comes first, so that an image of new code is made in a moment.
COPY requirements-uv.lock requirements.lock ./
RUN python -m venv /opt/uv \
 && /opt/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-uv.lock \
 && python -m venv --without-pip .venv \
 && VIRTUAL_ENV=.venv /opt/uv/bin/uv pip install --quiet --no-cache --compile-bytecode --require-hashes -r requirements.lock

COPY . .
RUN VIRTUAL_ENV=.venv /opt/uv/bin/uv pip install --quiet --no-cache --compile-bytecode --no-deps --no-build-isolation . \
 && rm -rf /opt/uv build *.egg-info

ENV TOCSIN_HTTP__HOST=0.0.0.0 TOCSIN_HTTP__PORT=8000 TOCSIN_DATA__DIR=/data TOCSIN_LOG__FORMAT=json
USER tocsin
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["sh", "-c", "exec python -c \"from urllib.request import urlopen; urlopen('http://127.0.0.1:$TOCSIN_HTTP__PORT/ready')\""]
CMD ["tocsin", "serve"]
