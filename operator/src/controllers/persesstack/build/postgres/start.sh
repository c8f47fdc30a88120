#!/bin/sh
# Starts PostgreSQL on the data volume; makes the database first when the volume is empty.
# Needs initdb and postgres (PATH, else the place of Debian's packages). Runs as any user.
set -eu
PATH="$PATH:/usr/lib/postgresql/17/bin"
PGDATA=/var/lib/perses/data
NEW=/var/lib/perses/data.new
CONFIG=/etc/perses/postgres/postgresql.conf
umask 077

# Held as long as anything of this pod lives: two pods can share the volume for a moment when one was deleted by force.
exec 9>/var/lib/perses/lock
flock --wait 60 9 || { echo "start.sh: another pod still works on this volume" >&2; exit 1; }

# As an SQL literal or identifier.
literal() { printf "'%s'" "$(sed "s/'/''/g" "/etc/perses/database/$1" | tr -d '\r\n')"; }
name() { printf '"%s"' "$(sed 's/"/""/g' "/etc/perses/database/$1" | tr -d '\r\n')"; }

# Statements, one a line, without a running server.
single() { postgres --single -D "$1" -c exit_on_error=on -c log_min_messages=error postgres >/dev/null; }

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	if [ -e "$PGDATA" ]; then
		echo "start.sh: $PGDATA exists but holds no database; remove it or restore a backup" >&2
		exit 1
	fi
	# Made aside and renamed when whole: a crash on the way leaves nothing half made.
	rm -rf "$NEW"
	initdb --pgdata="$NEW" --username=postgres --auth-local=trust --auth-host=scram-sha-256 \
		--encoding=UTF8 --locale=C.UTF-8 --data-checksums
	single "$NEW" <<SQL
CREATE ROLE $(name user) LOGIN CREATEROLE PASSWORD $(literal password)
CREATE DATABASE $(name dbname) OWNER $(name user)
SQL
	sync
	mv "$NEW" "$PGDATA"
fi

# A group-writable directory, as fsGroup makes it, is refused by PostgreSQL.
chmod 0700 "$PGDATA"
# Left by a pod that was killed: its process number means nothing here, and the lock above is ours.
rm -f "$PGDATA/postmaster.pid"
# The Secret is the truth: a changed password takes effect with the restart that it causes. Login roles take turns, and a
# volume that was restored may be older than the one in the Secret: then it is made, as a member of the owner of the tables.
owner="\"$(sed 's/"/""/g' /etc/perses/database/dbname | tr -d '\r\n')_owner\""
single "$PGDATA" <<SQL
DO \$\$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $(literal user)) THEN CREATE ROLE $(name user) CREATEROLE; IF EXISTS (SELECT FROM pg_roles WHERE rolname = $(literal dbname) || '_owner') THEN GRANT $owner TO $(name user); END IF; END IF; END \$\$
ALTER ROLE $(name user) LOGIN PASSWORD $(literal password)
SQL

# SIGTERM would wait for the clients to leave: ask for the fast shutdown instead.
postgres -D "$PGDATA" -c config_file="$CONFIG" &
pid=$!
trap 'kill -INT "$pid" 2>/dev/null || true' TERM INT
status=0
wait "$pid" || status=$?
while kill -0 "$pid" 2>/dev/null; do
	status=0
	wait "$pid" || status=$?
done
exit "$status"
