#!/bin/sh
# As root: gives the folders to the user postgres and becomes that user. Then makes the cluster, if
# there is none, with a server that nobody reaches by TCP, and becomes the server.
set -eu

if [ "$(id -u)" = 0 ] && [ "$1" = postgres ]; then
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
        export POSTGRES_PASSWORD
        unset POSTGRES_PASSWORD_FILE
    fi
    mkdir -p "$PGDATA" "$PGHOST"
    chmod 700 "$PGDATA"
    chown -R postgres:postgres /var/lib/postgresql "$PGHOST"
    exec setpriv --reuid=postgres --regid=postgres --init-groups sh "$0" "$@"
fi

if [ ! -e "$PGDATA/PG_VERSION" ]; then
    first=$(mktemp)
    printf '%s\n' "${POSTGRES_PASSWORD:?a new cluster needs a password}" >"$first"
    # Several options in one variable.
    # shellcheck disable=SC2086
    initdb --username="$POSTGRES_USER" --pwfile="$first" ${POSTGRES_INITDB_ARGS:-}
    rm "$first"
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --silent -o "-c listen_addresses='' -k $PGHOST" start
    psql --quiet --username "$POSTGRES_USER" --dbname postgres \
        --command "CREATE DATABASE \"$POSTGRES_DB\""
    pg_ctl --wait --silent stop
fi
exec "$@" -c listen_addresses='*' -k "$PGHOST"
