# syntax=docker/dockerfile:1
# The image of every pod of deploy/rayjob.yaml (head, workers, submitter): users build and push it.
#
#   docker build -t REGISTRY/petl-search:1 .
#
# torch's packages bring CUDA along; the NVIDIA driver is the node's own.

FROM python:3.11-slim-bookworm AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /opt/petl-search
RUN --mount=type=cache,target=/root/.cache/pip pip install uv==0.13.9
# What changes rarely first: the packages, resolved by the date in pyproject.toml, are a layer of their own.
COPY pyproject.toml README.md ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --no-dev --no-install-project --python /usr/local/bin/python3.11
COPY petl petl
COPY search search
COPY trainables trainables
COPY spaces spaces
COPY deploy/fetch_data.py deploy/start_or_resume.py deploy/
COPY launch.py ./
RUN --mount=type=cache,target=/root/.cache/uv uv sync --no-dev --python /usr/local/bin/python3.11

FROM python:3.11-slim-bookworm
# wget: what KubeRay's own probes of a pod call.
RUN apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home petl \
    && install -d -o petl -g petl /data /cache
# Read-only for the user the image runs as.
COPY --from=build /opt/petl-search /opt/petl-search
# KubeRay starts Ray in a login shell, which sets PATH anew: the commands have to be where that looks.
RUN ln -s /opt/petl-search/.venv/bin/ray /opt/petl-search/.venv/bin/petl-search /usr/local/bin/
ENV PATH=/opt/petl-search/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PETL_CACHE=/cache \
    RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_DISABLE_TELEMETRY=true \
    GIT_PYTHON_REFRESH=quiet \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /home/petl
USER 1000:1000
