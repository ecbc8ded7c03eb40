# Squadron on machines without cards. From the root of a checkout:
#   docker build -f cluster/images/cpu.Dockerfile -t REGISTRY/squadron/cpu:0.1.0 .
# Every package but torch is a file whose hash is written down; give BASE by its digest to have the rest pinned too.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY constraints/cpu.txt constraints/cpu-hashes.txt constraints/
# No package comes from anywhere but from this folder, once it is filled. What is no wheel yet becomes one here.
RUN pip wheel --quiet --no-deps --require-hashes --wheel-dir /wheels -r constraints/cpu-hashes.txt
RUN pip wheel --quiet --no-deps --wheel-dir /wheels --index-url https://download.pytorch.org/whl/cpu \
    -c constraints/cpu.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY lib lib
COPY jobs jobs
COPY configs configs
RUN PIP_CONSTRAINT=constraints/cpu.txt pip wheel --quiet --no-deps --no-index --find-links /wheels --wheel-dir /wheels .
RUN python -m venv /opt/squadron \
    && /opt/squadron/bin/pip install --quiet --no-index --find-links /wheels -c constraints/cpu.txt 'squadron[s3]' \
    && /opt/squadron/bin/python -m compileall -q /opt/squadron/lib

FROM ${BASE}
# bash and wget are for KubeRay, which starts Ray by the one and asks after it by the other; the libraries are MuJoCo's,
# which draws without a display by them.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash libegl1 libgl1 libosmesa6 wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /bin/bash squadron \
    && echo 'export PATH=/opt/squadron/bin:$PATH' > /etc/profile.d/squadron.sh
COPY --from=build /opt/squadron /opt/squadron
ENV PATH=/opt/squadron/bin:$PATH \
    HOME=/home/squadron \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /home/squadron
CMD ["squadron", "doctor"]
