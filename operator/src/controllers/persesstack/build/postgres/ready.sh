#!/bin/sh
# Whether PostgreSQL accepts connections (not while it starts, recovers or stops).
PATH="$PATH:/usr/lib/postgresql/17/bin"
exec pg_isready --quiet --host=127.0.0.1 --port=5432 --timeout=3
