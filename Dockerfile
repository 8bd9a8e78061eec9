# One image for the page and for every command. Build arguments:
#   MODEL                what is baked in: 'embedded' or a hub name such as clip-ViT-B-32; with
#                        -int8 behind it, in 8-bit numbers
#   MODEL_REVISION       commit of a hub model; empty: the one pinned for its name
#   PIP_EXTRA_INDEX_URL  a further index for pip, such as PyTorch's own of CPU wheels
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
ARG TORCH_VERSION=2.13.0
ARG PIP_EXTRA_INDEX_URL
ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /srv/lookalike
RUN python -m venv /opt/venv && pip install "torch==${TORCH_VERSION}"
# The dependencies alone, so that a change of the code does not install them again.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > /tmp/dependencies.txt \
    && pip install -r /tmp/dependencies.txt
COPY README.md setup.py MANIFEST.in ./
COPY alembic alembic
COPY sql sql
COPY ingest ingest
COPY lookalike lookalike
COPY app app
RUN pip install --no-deps . && rm -rf build

# The model is fetched by the code that will load it, at the commit that code pins.
FROM build AS model
ARG MODEL=embedded
ARG MODEL_REVISION
ENV HF_HOME=/opt/models \
    LOOKALIKE_CACHE_DIR=/opt/models/lookalike
# What makes 8-bit models stays in this stage: running one does not need it.
RUN mkdir -p /opt/models \
    && case "${MODEL}" in *-int8) pip install "nncf>=3.4,<4";; esac \
    && if [ "${MODEL%-int8}" = auto ]; then echo "Name a model: 'auto' is a choice for one machine." >&2; exit 1; fi \
    && python -c "import sys; from app.encoders.loading import choose_encoder; print(choose_encoder(sys.argv[1], revision=sys.argv[2] or None).note)" \
        "${MODEL}" "${MODEL_REVISION:-}"

FROM python:${PYTHON_VERSION}-slim
ARG MODEL=embedded
ARG MODEL_REVISION
RUN useradd --uid 10001 --user-group --no-log-init --create-home --home-dir /var/lib/lookalike lookalike \
    && install -d -o lookalike -g lookalike /var/lib/lookalike/index
COPY --from=build /opt/venv /opt/venv
COPY --from=model /opt/models /opt/models
ENV PATH=/opt/venv/bin:$PATH \
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
