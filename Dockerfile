# One image for every process of Promptmill; docker-compose.yml says which command each service runs.
# Another base (a mirror, a newer Python): --build-arg PYTHON_IMAGE=… It must be glibc: the wheels are for that.
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    VIRTUAL_ENV=/opt/venv
RUN python -m pip install --no-cache-dir uv==0.13.9
WORKDIR /source
# What others wrote changes less often than what we write, so it is a layer of its own.
COPY requirements.lock ./
RUN uv venv /opt/venv \
    && uv pip install --require-hashes --only-binary :all: -r requirements.lock
COPY . .
# The build backend comes with a hash too, out of the development lock.
RUN uv build --wheel --out-dir /wheel --build-constraints requirements-dev.lock --require-hashes \
    && uv pip install --no-deps /wheel/*.whl

FROM ${PYTHON_IMAGE}
# Few heaps for many threads: see producers/stack.py.
ENV PATH=/opt/venv/bin:$PATH \
    PROMPTMILL_HOME=/data \
    MALLOC_ARENA_MAX=2 \
    PYTHONUNBUFFERED=1
RUN groupadd --gid 10001 promptmill \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin promptmill \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /data
USER 10001:10001
CMD ["promptmill", "--help"]
