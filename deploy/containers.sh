#!/bin/sh
# What takes more than one command of Compose. Run `deploy/containers.sh help`.
# COMPOSE and ENGINE name other programs than `docker compose` and `docker`; START_SECONDS is how
# long a replaced service may take until its health check passes.
set -eu
cd "$(dirname "$0")/.."

COMPOSE=${COMPOSE:-docker compose}
ENGINE=${ENGINE:-docker}
SECRETS=${SECRETS:-secrets}
IMAGE=lookalike:${LOOKALIKE_TAG:-local}
PREVIOUS=lookalike:${LOOKALIKE_TAG:-local}-previous
SERVING="page api worker"
START_SECONDS=${START_SECONDS:-180}

compose() { $COMPOSE "$@" </dev/null; }

help() {
    cat <<'TEXT'
secrets            make the password files that are missing
password NAME      change the password of admin, migrator or server, and use it
metrics-key        make the key with which Prometheus reads the metrics of the HTTP API
upgrade            build the image, migrate, replace page, API and worker
rollback           replace them by the image before the last upgrade
TEXT
}

# The folder keeps other users of this machine out; in the containers, their users read the files.
write_secret() {
    (umask 077 && mkdir -p "$SECRETS")
    chmod 700 "$SECRETS"
    # In place: a running container sees the file that it was started with.
    cat >"$SECRETS/$1"
    chmod 644 "$SECRETS/$1"
}

random() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }

secrets() {
    for name in postgres_password migrator_password server_password grafana_password; do
        [ -s "$SECRETS/$name" ] || random | write_secret "$name"
    done
    echo "The passwords are in $SECRETS."
}

password() {
    case "${1:-}" in
    admin)
        random | write_secret postgres_password
        # By the socket of the container, which asks for no password.
        $COMPOSE exec -T db psql --quiet --username lookalike --dbname lookalike \
            --set ON_ERROR_STOP=1 <<'SQL'
\set new `cat /run/secrets/postgres_password`
ALTER ROLE lookalike PASSWORD :'new';
SQL
        ;;
    migrator | server)
        random | write_secret "$1_password"
        compose run --rm --no-deps roles
        [ "$1" = migrator ] || compose restart $SERVING
        ;;
    *)
        echo "Name a password: admin, migrator or server." >&2
        exit 2
        ;;
    esac
    echo "The password was changed; it is in $SECRETS."
}

metrics_key() {
    key=$(compose exec -T api lookalike key create --scope admin --name prometheus)
    printf '%s\n' "$key" | write_secret api_metrics_key
    echo "The key is in $SECRETS; \`lookalike key revoke\` ends earlier ones."
}

image_id() { $ENGINE image inspect --format '{{.Id}}' "$1" 2>/dev/null || true; }

# An image that no tag names any more; one that a container runs stays.
forget() {
    if [ "$($ENGINE image inspect --format '{{len .RepoTags}}' "$1" 2>/dev/null)" = 0 ]; then
        $ENGINE image rm "$1" >/dev/null 2>&1 || true
    fi
}

# Compose without a limit waits for ever for a container that ends and starts again and again.
started() {
    service=$1
    shift
    compose up --detach --no-deps --wait --wait-timeout "$START_SECONDS" "$@" "$service" || return 1
    for each in $(compose ps --all --quiet "$service"); do
        [ "$($ENGINE inspect --format '{{.State.Health.Status}}' "$each")" = healthy ] || return 1
    done
}

explain() {
    echo "The service $service does not start. The last lines of its log:" >&2
    for each in "$@"; do
        $ENGINE logs --tail 20 "$each" >&2 || true
    done
}

# Page and API publish no port by themselves where a proxy does (deploy/proxy/compose.yml).
behind_proxy() {
    [ "$1" != worker ] && compose config --services | grep -qx proxy
}

# Beside the old container, which serves until the new one does, and goes on if that does not start.
start_beside() {
    service=$1
    old=$(compose ps --quiet "$service")
    if ! started "$service" --no-recreate --scale "$service=$(($(echo "$old" | wc -l) + 1))"; then
        new=$(compose ps --all --quiet "$service" | grep -vxF "$old" || true)
        explain $new
        $ENGINE rm --force $new >/dev/null 2>&1 || true
        return 1
    fi
    # The proxy asks each second which containers there are.
    sleep 2
    $ENGINE stop $old >/dev/null
    $ENGINE rm $old >/dev/null
}

# One after the other: each is silent while it starts by itself, and not while the others stop and
# start beside it. Those behind one that does not start stay as they are.
replace() {
    for service in $SERVING; do
        if [ -n "$(compose ps --quiet "$service")" ] && behind_proxy "$service"; then
            start_beside "$service" || return 1
        elif ! started "$service"; then
            explain $(compose ps --all --quiet "$service")
            return 1
        fi
    done
}

upgrade() {
    before=$(image_id "$IMAGE")
    earlier=$(image_id "$PREVIOUS")
    compose build roles
    # The running version serves meanwhile. If this fails, it goes on, and is the image again.
    if ! { compose run --rm --no-deps roles && compose run --rm --no-deps migrate; }; then
        failed=$(image_id "$IMAGE")
        [ -z "$before" ] || $ENGINE tag "$before" "$IMAGE"
        forget "$failed"
        echo "The database was not migrated; the version before goes on." >&2
        exit 1
    fi
    if [ -n "$before" ] && [ "$before" != "$(image_id "$IMAGE")" ]; then
        $ENGINE tag "$before" "$PREVIOUS"
    fi
    # These ended long ago, and keep the image that they were started from.
    compose rm --force roles migrate
    forget "$earlier"
    replace || {
        echo "The new version does not start. \`deploy/containers.sh rollback\` goes back." >&2
        exit 1
    }
}

rollback() {
    before=$(image_id "$PREVIOUS")
    [ -n "$before" ] || {
        echo "There is no image $PREVIOUS: nothing was upgraded here." >&2
        exit 1
    }
    after=$(image_id "$IMAGE")
    $ENGINE tag "$before" "$IMAGE"
    [ -z "$after" ] || $ENGINE tag "$after" "$PREVIOUS"
    replace || {
        echo "The version before does not start. \`deploy/containers.sh rollback\` goes forward again." >&2
        exit 1
    }
}

case "${1:-help}" in
secrets) secrets ;;
password) password "${2:-}" ;;
metrics-key) metrics_key ;;
upgrade) upgrade ;;
rollback) rollback ;;
help) help ;;
*)
    help >&2
    exit 2
    ;;
esac
