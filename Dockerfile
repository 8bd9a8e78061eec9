# One image for the page, the HTTP API, the worker and every command. Build arguments:
#   PYTHON_VERSION   3.11 or newer
#   MODEL            what is baked in: 'embedded' or a hub name such as clip-ViT-B-32; with -int8
#                    behind it, in 8-bit numbers
#   MODEL_REVISION   commit of a hub model; empty: the one pinned for its name
#   TORCH_INDEX_URL  the package index that torch comes from; empty: that of pip, whose torch brings
#                    gigabytes of libraries for GPUs
#   EXTRAS           extras of pyproject.toml, separated by commas: 'ray' for a Ray cluster
ARG PYTHON_VERSION=3.11

# The dependencies alone: what else changes in pyproject.toml, such as the version, does not
# install them again.
FROM python:${PYTHON_VERSION}-slim AS requirements
ARG EXTRAS=
COPY pyproject.toml ./
RUN python -c "import os, tomllib; read = tomllib.load(open('pyproject.toml', 'rb')); \
print(*read['project']['dependencies'], sep='\n'); \
[print(*read['project']['optional-dependencies'][extra], sep='\n') \
for extra in os.environ['EXTRAS'].split(',') if extra]" > /requirements.txt

FROM python:${PYTHON_VERSION}-slim AS dependencies
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/lookalike/bin:/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
# From its own index alone and by itself: an index that does not answer ends the build, where a
# further one would be passed over. What torch depends on comes with the rest.
RUN python -m venv /opt/venv \
    && pip install --no-deps ${TORCH_INDEX_URL:+--index-url "${TORCH_INDEX_URL}"} "torch==${TORCH_VERSION}"
COPY --from=requirements /requirements.txt /requirements.txt
# The project is found beside the dependencies: a change of the code does not copy them.
RUN pip install -r /requirements.txt \
    && python -c "import site; open(site.getsitepackages()[0] + '/lookalike.pth', 'w').write('/opt/lookalike\n')"

FROM dependencies AS project
RUN pip install "setuptools>=77"
WORKDIR /src
COPY pyproject.toml README.md setup.py MANIFEST.in ./
COPY alembic alembic
COPY sql sql
COPY ingest ingest
COPY lookalike lookalike
COPY app app
# Readable by every user, whatever umask the files were checked out with.
RUN pip install --no-deps --no-build-isolation --target /opt/lookalike . \
    && chmod -R a+rX /opt/lookalike

# The model is fetched by the code that will load it, at the commit that code pins.
FROM project AS model
ARG MODEL=embedded
ARG MODEL_REVISION
ENV HF_HOME=/opt/models \
    LOOKALIKE_CACHE_DIR=/opt/models/lookalike
# What makes 8-bit models stays in this stage: running one does not need it.
RUN mkdir -p /opt/models \
    && case "${MODEL}" in *-int8) pip install "nncf>=3.4,<4";; esac \
    && if ! lookalike model fetch "${MODEL}" ${MODEL_REVISION:+--revision "${MODEL_REVISION}"}; then \
        echo "The image needs a model, and ${MODEL} could not be had. Build where its hub can be" \
            "reached, or with LOOKALIKE_MODEL=embedded, which needs no download." >&2; \
        exit 1; \
    fi \
    && chmod -R a+rX /opt/models

# Not a copy of the dependencies, gigabytes, but their stage with more on top.
FROM dependencies
RUN useradd --uid 10001 --user-group --no-log-init --create-home --home-dir /var/lib/lookalike lookalike \
    && install -d -o lookalike -g lookalike /var/lib/lookalike/index /var/lib/lookalike/downloads
COPY --from=model /opt/models /opt/models
COPY --from=project /opt/lookalike /opt/lookalike
ARG MODEL=embedded
ARG MODEL_REVISION
ENV PATH=/opt/lookalike/bin:/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/opt/models \
    HF_HUB_OFFLINE=1 \
    STREAMLIT_BROWSER_SERVER_ADDRESS=localhost \
    LOOKALIKE_HOME=/var/lib/lookalike \
    LOOKALIKE_CACHE_DIR=/opt/models/lookalike \
    LOOKALIKE_MODEL=${MODEL} \
    LOOKALIKE_MODEL_REVISION=${MODEL_REVISION}
WORKDIR /var/lib/lookalike
USER 10001:10001
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
ENTRYPOINT ["lookalike"]
CMD ["page", "--host", "0.0.0.0"]
