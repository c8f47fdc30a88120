#!/bin/sh
# One of the three Redis, or the sentinel beside it: sh redis.sh server|sentinel|ready|leave [options of redis-server]
# Needs redis-server and redis-cli in the PATH, and the pod's name in POD_NAME. Reads its own folder and writes to /data
# only. Runs as any user.
set -eu
umask 077
here=$(dirname "$0")
what=$1
shift
REDISCLI_AUTH=$(cat "$here/password")
export REDISCLI_AUTH

own='' id='' others='' known=''
while read -r host number; do
	case $host in
		"$POD_NAME".*) own=$host id=$number ;;
		*)
			others="$others $host"
			known="${known}sentinel known-sentinel perses $host 26379 $number
"
			;;
	esac
	: "${first:=$host}"
done <"$here/pods"
: "${own:?redis.sh: POD_NAME is none of the pods}"

# A host that is away must not hold up the questions to the others.
ask() {
	to=$1 at=$2
	shift 2
	timeout 2 redis-cli -h "$to" -p "$at" --user peer --no-auth-warning --raw "$@" 2>/dev/null
}

# Who leads, by the first of these sentinels that answers; tried so many times.
leader() {
	tries=$1
	shift
	while [ "$tries" -gt 0 ]; do
		for host in "$@"; do
			found=$(ask "$host" 26379 sentinel get-master-addr-by-name perses | head -n 1)
			case " $own$others " in *" ${found:-nobody} "*) echo "$found" && return ;; esac
		done
		tries=$((tries - 1))
		[ "$tries" -eq 0 ] || sleep 1
	done
	return 1
}

case $what in
server)
	# The own sentinel last: it may have begun just now, and knows no more than the others told it.
	leads=$(leader 15 $others "$own") || leads=$first
	{
		cat "$here/redis.conf"
		echo "aclfile $here/users.acl"
		echo "replica-announce-ip $own"
		[ "$leads" = "$own" ] || echo "replicaof $leads 6379"
	} >/data/redis.conf
	exec redis-server /data/redis.conf "$@"
	;;
sentinel)
	conf=/data/sentinel.conf
	# What is there is from before a restart of this container: for whom it has voted must not be forgotten.
	if [ ! -s "$conf" ]; then
		# When no other knows, all begin: with the first pod, and each so.
		leads=$(leader 3 $others) || leads=$first
		{
			sed "s/ LEADER / $leads /" "$here/sentinel.conf"
			echo "sentinel myid $id"
			echo "sentinel announce-ip $own"
			for host in $others $own; do
				# Known before they were met: who leads can be away from the beginning.
				[ "$host" = "$leads" ] || echo "sentinel known-replica perses $host 6379"
			done
			printf %s "$known"
		} >"$conf.new"
		mv "$conf.new" "$conf"
	fi
	exec redis-server "$conf" --sentinel "$@"
	;;
ready)
	# A replica is ready when it has all: then the next pod may be replaced. The pod's name is known without DNS.
	case $(ask "$POD_NAME" 6379 info replication) in
	*role:master* | *master_link_status:up*) ;;
	*) exit 1 ;;
	esac
	;;
leave)
	# The one that leads hands over before it ends, so that what is cached stays. The own sentinel may have ended by now.
	[ "$(leader 1 $others)" = "$own" ] || exit 0
	for host in $others; do
		[ "$(ask "$host" 26379 sentinel failover perses)" != OK ] || break
	done
	tries=10
	while [ "$tries" -gt 0 ] && leads=$(leader 1 $others) && [ "$leads" = "$own" ]; do
		tries=$((tries - 1))
		sleep 1
	done
	# From now on it refuses to write, which sends the servers to the new one; the sentinels would wait a while with that.
	[ "${leads:-$own}" = "$own" ] || ask "$POD_NAME" 6379 replicaof "$leads" 6379 >/dev/null || true
	;;
esac
