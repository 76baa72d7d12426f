# The trainer without vLLM, for CPUs and small nodes: docker build --file images/trainer.Dockerfile .
# With CUDA `trainer` is inference.Dockerfile's image.
# Its target `packages` is all but this project's own source: the CPU build of the inference image is made on it, to share it.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS tools
RUN python3 -m venv --without-pip /tools
COPY images/install images/requirements/tools.txt /tools/
RUN --mount=type=secret,id=registries --mount=type=secret,id=authorities /tools/install tools
ENV PATH=$PATH:/tools/bin

FROM tools AS maft
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY crds crds
COPY operator operator
COPY images/maft images/maft
COPY client client
RUN /tools/bin/python -m hatchling build --target wheel --directory /wheel \
    && uv pip install --quiet --python "$(command -v python3)" --target /opt/maft --no-deps --no-cache --compile-bytecode /wheel/*.whl

FROM ${PYTHON} AS packages
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN echo "maft:x:65532:65532:maft:/tmp:/usr/sbin/nologin" >> /etc/passwd && echo "maft:x:65532:" >> /etc/group
COPY requirements/constraints.txt images/requirements/trainer.txt /usr/share/maft/
RUN --mount=type=bind,from=tools,source=/tools,target=/tools \
    --mount=type=secret,id=registries --mount=type=secret,id=authorities \
    /tools/install trainer

FROM packages
COPY --from=maft /opt/maft /opt/maft
ENV PYTHONPATH=/opt/maft PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
ARG VERSION SOURCE
LABEL org.opencontainers.image.title="maft trainer" org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.source="${SOURCE}" org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["python3"]
