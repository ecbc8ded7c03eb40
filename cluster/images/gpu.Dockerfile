# Squadron on machines with NVIDIA's cards, with vLLM. From the root of a checkout:
#   docker build -f cluster/images/gpu.Dockerfile -t REGISTRY/squadron/gpu:0.1.0 .
# Every package is a file whose hash is written down; CUDA comes with torch, and the machine brings the driver.
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY constraints/gpu.txt constraints/gpu-hashes.txt constraints/cpu.txt constraints/
# No package comes from anywhere but from this folder, once it is filled. What is no wheel yet becomes one here; certifi
# and what builds Squadron's own wheel are those of the other file.
RUN pip wheel --quiet --no-deps --require-hashes --wheel-dir /wheels -r constraints/gpu-hashes.txt
RUN pip wheel --quiet --no-deps --wheel-dir /wheels -c constraints/cpu.txt certifi hatchling packaging pathspec pluggy \
    tomlkit trove-classifiers
COPY pyproject.toml README.md LICENSE ./
COPY lib lib
COPY jobs jobs
COPY configs configs
RUN PIP_CONSTRAINT=constraints/cpu.txt pip wheel --quiet --no-deps --no-index --find-links /wheels --wheel-dir /wheels .
# With the extras gpu and s3 together pip would ask for Flower too, which vLLM does not go with.
RUN python -m venv /opt/squadron \
    && /opt/squadron/bin/pip install --quiet --no-index --find-links /wheels -c constraints/gpu.txt 'squadron[gpu]' s3fs \
    && /opt/squadron/bin/python -m compileall -q /opt/squadron/lib

FROM ${BASE}
# bash and wget are for KubeRay, which starts Ray by the one and asks after it by the other; the libraries are MuJoCo's,
# which draws without a display by them; the compiler is for Triton, which makes kernels when they are first needed.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash g++ gcc libc6-dev libegl1 libgl1 libosmesa6 wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home --shell /bin/bash squadron \
    && echo 'export PATH=/opt/squadron/bin:$PATH' > /etc/profile.d/squadron.sh
COPY --from=build /opt/squadron /opt/squadron
ENV PATH=/opt/squadron/bin:$PATH \
    HOME=/home/squadron \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 1000:1000
WORKDIR /home/squadron
CMD ["squadron", "doctor"]
