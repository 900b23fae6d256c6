# The API, as its own user, with one model inside. The context is the repository:
#
#     docker build -f deploy/api.Dockerfile -t tallyformer-api .
#
# PYTHON_IMAGE  the base; give name@sha256:DIGEST to pin it to the byte
# EXTRAS        of the package; "serve" holds no torch, a GPU needs "serve,train"
# MODEL         folder of the model that goes into the image, below the context
# PIP_INDEX_URL, PIP_EXTRA_INDEX_URL  another package index
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY pyproject.toml setup.py README.md LICENSE requirements.lock deploy/api.lock ./
COPY src src
# First the native library, which becomes part of the wheel; then an environment without pip, without
# the packages' own tests and what only a debugger reads. hf_xet makes large downloads faster; the
# server without torch downloads nothing.
RUN PYTHONPATH=src python -m tallyformer.inference.native.build \
      src/tallyformer/inference/native/shipped
ARG EXTRAS=serve,scale
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_CACHE_DIR=/pip-cache
RUN --mount=type=cache,target=/pip-cache \
    pip wheel --no-deps --wheel-dir dist . \
 && python -m venv --without-pip /opt/tallyformer \
 && pip --python /opt/tallyformer/bin/python install --no-deps --require-hashes -r api.lock \
 && pip --python /opt/tallyformer/bin/python install --constraint requirements.lock \
      "$(echo dist/*.whl)[${EXTRAS}]" \
 && case "${EXTRAS}" in *train* | *hub*) ;; *) \
      pip --python /opt/tallyformer/bin/python uninstall --yes hf_xet ;; esac \
 && find /opt/tallyformer -type d -name tests -prune -exec rm -r {} + \
 && find /opt/tallyformer -name '*.so' -not -path '*.libs/*' -exec strip --strip-debug {} + \
 && /opt/tallyformer/bin/python -c 'import numpy, tokenizers, uvloop, tallyformer.server.run'

# The base without what a server never reads: pip, caches, manuals, translations. In layers on top of
# the base they would only be hidden, hence the copy (docs/decisions/0014).
FROM ${PYTHON_IMAGE} AS root
RUN groupadd --gid 10001 tallyformer \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin tallyformer \
 && mkdir /data \
 && chown 10001:10001 /data \
 && rm -r $(python -c 'import ensurepip, os, pip; \
      print(*ensurepip.__path__, os.path.dirname(*pip.__path__) + "/*")') \
 && rm -rf /usr/bin/pip* /usr/local/bin/pip* /usr/share/python-wheels /root/.cache \
      /var/cache/* /var/lib/apt/lists/* /var/log/* \
      /usr/share/info /usr/share/locale /usr/share/man \
 && find /usr/share/doc -type f ! -name copyright -delete \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +

FROM scratch
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.base.name=${PYTHON_IMAGE}
COPY --from=root / /
COPY --from=build /opt/tallyformer /opt/tallyformer
ARG MODEL=deploy/model
COPY --chown=10001:10001 ${MODEL} /model
ENV PATH=/opt/tallyformer/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    TALLYFORMER_MODEL=sft=/model \
    TALLYFORMER_HOST=0.0.0.0 \
    TALLYFORMER_PORT=8000
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["tallyformer"]
CMD ["serve"]
