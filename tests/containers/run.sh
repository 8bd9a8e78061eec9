#!/bin/bash
# docs/containers.md on a real engine: from a clone, checked out for its owner alone, to a restore.
# Needs the client of Docker with Compose 2, and an engine: the one that the client finds, or Podman,
# which is started here where none answers, or with ENGINE=podman. TORCH_INDEX_URL names the index of
# torch where PyTorch's own cannot be reached; MONITORING=0 leaves Prometheus and Grafana out; BUILD=0
# takes the image lookalike:test as it is and leaves out what builds: a refused model, an upgrade.
# Everything is in a project and a folder of its own and is removed at the end, but for the images.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
repository=$(git -C "$here" rev-parse --show-toplevel)
work=$(mktemp -d)
export COMPOSE_PROJECT_NAME=lookalike-test LOOKALIKE_TAG=test COMPOSE_ANSI=never
export LOOKALIKE_PORT=${LOOKALIKE_PORT:-18501} API_PORT=${API_PORT:-18502}
export PROMETHEUS_PORT=${PROMETHEUS_PORT:-19090} GRAFANA_PORT=${GRAFANA_PORT:-13000}
passed=0

compose() {
    # Podman 4.3 answers with 0 whatever a container that is to be removed ended with.
    if [ -n "${podman:-}" ] && [ "${1:-} ${2:-}" = "run --rm" ]; then shift 2; set -- run "$@"; fi
    docker compose "$@" </dev/null
}
step() { printf '\n== %s (%s s)\n' "$*" "$SECONDS"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
holds() { # holds WHAT COMMAND...
    local what=$1; shift
    "$@" || fail "$what"
    passed=$((passed + 1)); echo "ok: $what"
}
refused() { # refused WHAT PATTERN COMMAND...: it ends with an error that says PATTERN
    local what=$1 pattern=$2; shift 2
    if "$@" >"$work/told" 2>&1; then cat "$work/told"; fail "$what: it succeeded"; fi
    grep -q -- "$pattern" "$work/told" || { cat "$work/told"; fail "$what: no word of '$pattern'"; }
    if grep -q Traceback "$work/told"; then cat "$work/told"; fail "$what: a traceback"; fi
    passed=$((passed + 1)); echo "ok: $what"
}
waited() { # waited SECONDS COMMAND...: whether it succeeds in time
    local until=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do [ "$SECONDS" -lt "$until" ] || return 1; sleep 1; done
}
contents() {
    compose exec -T db psql -U lookalike -Atc "SELECT count(*), md5(string_agg(sku, ',' ORDER BY sku)) FROM product"
}
page() { curl -sSf --max-time 60 "http://127.0.0.1:$LOOKALIKE_PORT/_stcore/health"; }
api() { curl -sSf --max-time 60 "http://127.0.0.1:$API_PORT/healthz"; }
answers() { # answers NAME: asks page or API all the time, and notes when it answered or did not
    while sleep 0.1; do
        if "$1" >/dev/null 2>&1; then date +%s.%N; else echo silent; fi
    done >"$work/answers-$1"
}
ask() { answers page & polls=$!; answers api & polls="$polls $!"; }
asked() { # asked NAME: the longest time between two answers since `ask`, of page and of API
    sleep 1
    kill $polls; wait $polls 2>/dev/null || true; polls=
    for each in page api; do
        awk -v name="$each" '/silent/ { silent++; next } last && $1 - last > gap { gap = $1 - last } { last = $1; n++ }
            END { printf "%s: %d answers, %d requests without one, at most %.1f s between two\n", name, n, silent, gap }' \
            "$work/answers-$each"
    done
}
silent() { grep -c silent "$work/answers-page" "$work/answers-api" | grep -v ":0$"; }
dangling() { docker images --quiet --filter dangling=true | sort; }
ids() { compose ps --quiet page api worker db | sort; }
cleanup() {
    # The jobs of this shell alone: the polls of an upgrade.
    [ -z "${polls:-}" ] || kill $polls 2>/dev/null || true
    compose --profile monitoring down --volumes >/dev/null 2>&1 || true
    [ -z "${podman:-}" ] || kill $podman 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

# Podman's answers to Docker's client. Its own limits are above what a process that may not raise any
# can set, and crun takes no cgroups of both versions at once. Its health checks are timers of
# systemd; without systemd they are asked for here, and containers that ended are cleaned up, which
# fails over their timers.
start_podman() {
    export DOCKER_HOST=unix://$work/podman.sock DOCKER_BUILDKIT=0 CONTAINERS_CONF=$work/containers.conf
    {
        printf '[containers]\ndefault_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]\n'
        [ ! -d /sys/fs/cgroup/unified ] || printf '[engine]\nruntime = "runc"\n'
    } >"$CONTAINERS_CONF"
    if [ ! -d /run/systemd/system ]; then
        export DISABLE_HC_SYSTEMD=true
        local own=label=com.docker.compose.project=$COMPOSE_PROJECT_NAME
        while sleep 3; do
            for each in $(podman ps --quiet --filter "$own"); do podman healthcheck run "$each" || true; done
            for each in $(podman ps --all --quiet --filter "$own" --filter status=stopped); do
                podman container cleanup "$each" || true
            done
        done >/dev/null 2>&1 &
        podman=$!
    fi
    podman system service --time=0 "$DOCKER_HOST" >"$work/podman.log" 2>&1 &
    podman="${podman:-} $!"
    waited 30 docker info || { cat "$work/podman.log"; fail "Podman does not answer"; }
}

if [ "${ENGINE:-}" = podman ] || { ! docker info >/dev/null 2>&1 && command -v podman >/dev/null; }; then
    start_podman
fi
docker info >/dev/null 2>&1 || fail "neither Docker nor Podman answers; name an engine in DOCKER_HOST"
docker compose version >/dev/null 2>&1 || fail "Docker has no Compose 2"

step "a clone that only its owner may read"
(umask 077 && git clone --quiet "$repository" "$work/clone")
if ! git -C "$repository" diff --quiet HEAD; then
    git -C "$repository" diff HEAD --binary | git -C "$work/clone" apply
fi
cd "$work/clone"
mkdir "$work/catalogue" && chmod 755 "$work" "$work/catalogue"
export CATALOGUE=$work/catalogue

step "the image"
"$here/base_images.sh"
deploy/containers.sh secrets
if [ "${BUILD:-1}" != 0 ]; then
    refused "a model that cannot be had ends the build with advice" "LOOKALIKE_MODEL=embedded" \
        env LOOKALIKE_MODEL=nobody/no-such-model docker compose --progress plain build roles
    compose --progress plain build roles
fi
nameless=$(dangling) # one of an earlier test has lost its name now

step "up"
compose up --detach
holds "page and API answer" eval 'waited 120 page && waited 120 api'
holds "the page has metrics before its first visitor" compose exec -T worker python -c \
    "import urllib.request as u; assert b'lookalike_searches_running' in u.urlopen('http://page:9465/metrics').read()"
before=$(ids)
compose up --detach
holds "a second up recreates nothing" test "$before" = "$(ids)"
holds "no image without a name is left" test "$nameless" = "$(dangling)"
for each in $(compose ps --all --quiet); do
    for secret in secrets/*_password; do
        docker inspect "$each" | grep -qF -- "$(cat "$secret")" && fail "docker inspect shows $secret"
    done
done

step "a load"
docker run --rm --no-healthcheck --user 0 --entrypoint python --volume "$CATALOGUE:/out" lookalike:test -c \
    "from pathlib import Path; from ingest.demo import draw_catalogue; draw_catalogue(Path('/out'), products=320)"
chmod -R a+rX "$CATALOGUE"
holds "a load runs no other service but the database" compose run --rm ingest
holds "check passes right after a load" compose exec -T worker lookalike check
holds "the worker builds the index" waited 120 eval \
    'compose exec -T worker lookalike index status | grep -q published'
compose exec -T worker lookalike status
photo=$(cd "$CATALOGUE" && find queries* -name '*.*g' | head -1)
holds "a photo is found" compose run --rm ingest search "/catalogue/$photo" --k 3
key=$(compose exec -T api lookalike key create --scope search)
holds "the API finds it too" eval 'curl -sSf -H "Authorization: Bearer $key" \
    -F "file=@$CATALOGUE/$photo" "http://127.0.0.1:$API_PORT/v1/search/photo" | grep -q DEMO-'
printf 'sku,price\nA,NaN\n' >"$CATALOGUE/bad.csv"; chmod a+r "$CATALOGUE/bad.csv"
refused "a source that is refused as a whole is an error" "Every row was refused" \
    compose run --rm ingest ingest /catalogue/bad.csv
compose run --rm --no-TTY ingest ingest /catalogue/bad.csv --rejects - >"$work/rejects.csv" 2>/dev/null || true
holds "refused rows come out of a container" grep -q "^2,A,," "$work/rejects.csv"
stored=$(contents)

step "a crash of the database"
kill -9 "$(docker inspect --format '{{.State.Pid}}' "$(compose ps --quiet db)")"
holds "it is up again by itself" waited 60 compose exec -T worker lookalike status
holds "with what was stored" test "$stored" = "$(contents)"

step "backups"
refused "a backup folder that is missing is named" "backups" compose run --rm backup
install -d backups
refused "one that cannot be written to is an error with advice" "the user 10001 write to /backups" \
    compose run --rm backup
chown 10001:10001 backups
holds "a backup" compose run --rm backup

step "passwords"
for role in server migrator admin; do
    deploy/containers.sh password $role
    holds "a new password of $role leaves everything running" eval 'waited 60 page && waited 60 api'
    holds "and is used" compose run --rm --no-deps roles
done
holds "the migrator's too" compose run --rm --no-deps migrate

if [ "${BUILD:-1}" != 0 ]; then
    step "an upgrade"
    echo "# changed" >>app/__init__.py
    docker image inspect --format '{{json .RootFS.Layers}}' lookalike:test | tr , '\n' >"$work/layers"
    old=$(ids)
    ask
    deploy/containers.sh upgrade
    asked
    holds "page, API and worker were replaced, the database not" test \
        "$(comm -12 <(echo "$old") <(ids))" = "$(compose ps --quiet db)"
    docker image inspect --format '{{json .RootFS.Layers}}' lookalike:test | tr , '\n' >"$work/layers-after"
    changed=$(comm -13 <(sort "$work/layers") <(sort "$work/layers-after") | wc -l)
    holds "a change of the code does not copy the dependencies ($changed layers changed)" test "$changed" -le 2
    deploy/containers.sh rollback
    holds "a rollback brings the image before back" eval \
        '[ "$(docker inspect --format "{{.Image}}" "$(compose ps --quiet page)")" = "$(docker image inspect --format "{{.Id}}" lookalike:test)" ] && ! docker run --rm --no-healthcheck --entrypoint grep lookalike:test -q changed /opt/lookalike/app/__init__.py'
    running=$(ids)
    echo 'raise SystemExit("no migration today")' >>app/operations/migrate.py
    refused "an upgrade whose migration fails replaces nothing" "The database was not migrated" \
        deploy/containers.sh upgrade
    holds "the version before goes on" eval '[ "$running" = "$(ids)" ] && page'
    git checkout --quiet app
    running=$(compose ps --quiet api worker | sort)
    echo 'raise SystemExit("no page today")' >>app/ui/server.py
    refused "a page that does not start is named with its log" "no page today" \
        env START_SECONDS=60 deploy/containers.sh upgrade
    holds "as the service that it is" grep -q "The service page does not start" "$work/told"
    holds "API and worker go on with the version before" test "$running" = "$(compose ps --quiet api worker | sort)"
    git checkout --quiet app
    deploy/containers.sh rollback
    holds "a rollback brings the page back" page

    step "behind a proxy"
    export COMPOSE_FILE=docker-compose.yml:deploy/proxy/compose.yml
    chmod -R a+rX deploy
    compose up --detach
    holds "page and API answer behind it" eval 'waited 120 page && waited 120 api'
    ask
    # To the version whose page does not start, and back.
    refused "a page that does not start leaves the one before" "no page today" \
        env START_SECONDS=60 deploy/containers.sh rollback
    old=$(ids)
    deploy/containers.sh rollback
    asked
    holds "page, API and worker were replaced here too" test \
        "$(comm -12 <(echo "$old") <(ids))" = "$(compose ps --quiet db)"
    holds "and every request was answered" eval '! silent'
    unset COMPOSE_FILE
    compose up --detach --remove-orphans
    holds "page and API answer without it" eval 'waited 120 page && waited 120 api'
    holds "no image lost its name by all of this" test "$nameless" = "$(dangling)"
fi

if [ "${MONITORING:-1}" != 0 ]; then
    step "monitoring"
    deploy/containers.sh metrics-key
    chmod -R a+rX deploy
    compose --profile monitoring up --detach --no-deps prometheus
    holds "Prometheus reads worker, page and API" waited 120 eval \
        '[ "$(curl -sSf "http://127.0.0.1:$PROMETHEUS_PORT/api/v1/query?query=sum(up)" | grep -o "\"3\"")" = "\"3\"" ]'
    holds "and accepts its configuration and alerts" compose exec -T prometheus \
        promtool check config /etc/prometheus/prometheus.yml
    holds "every query of the dashboard is answered" compose exec -T worker python -c "$(cat "$here/ask_prometheus.py")" \
        "$(cat deploy/monitoring/grafana/dashboards/lookalike.json)"
    docker pull --quiet "$(compose --profile monitoring config --images | grep grafana)" &&
        compose --profile monitoring up --detach grafana &&
        holds "Grafana answers" waited 120 curl -sSf "http://127.0.0.1:$GRAFANA_PORT/api/health"
fi

step "everything gone, and a restore"
compose --profile monitoring down --volumes
BACKUP=$(ls backups); export BACKUP
holds "a restore" compose run --rm restore
compose up --detach
holds "all products are back" test "$stored" = "$(contents)"
holds "and are found" waited 120 compose run --rm ingest search "/catalogue/$photo" --k 3

echo
echo "$passed passed, 0 failed"
