# vLLM with the plug-in that fetches adapters. BASE says which vLLM: an image that has the CUDA build (the default), or, with
# PACKAGES=inference-cpu, the target `packages` of trainer.Dockerfile, to which the CPU build is added. With CUDA it has what training
# needs as well: `trainer` is the same image under another name, and a node fetches gigabytes once.
ARG PYTHON=python:3.11-slim-bookworm
ARG BASE=vllm/vllm-openai:v0.32.0

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

FROM ${BASE}
USER 0
ARG PACKAGES=inference-cuda
# The CPU build's kernels need libnuma.
RUN [ "$PACKAGES" = inference-cuda ] \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*; }
RUN grep -q "^maft:" /etc/passwd || { echo "maft:x:65532:65532:maft:/tmp:/usr/sbin/nologin" >> /etc/passwd && echo "maft:x:65532:" >> /etc/group; }
COPY requirements/constraints.txt requirements/constraints-cuda.txt images/requirements/${PACKAGES}.txt /usr/share/maft/
RUN --mount=type=bind,from=tools,source=/tools,target=/tools \
    --mount=type=secret,id=registries --mount=type=secret,id=authorities \
    /tools/install "$PACKAGES"
COPY --from=maft /opt/maft /opt/maft
ENV PYTHONPATH=/opt/maft PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
ARG VERSION SOURCE
LABEL org.opencontainers.image.title="maft inference" org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.source="${SOURCE}" org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["python3"]
CMD ["-m", "maft.serve"]
