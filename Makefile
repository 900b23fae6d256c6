# The two commands of the README, and what a developer needs besides.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CHAT ?= 1
PURELIB := import sysconfig; print(sysconfig.get_path('purelib'))
SHIPPED := src/tallyformer/inference/native/shipped

.PHONY: install quickstart test test-versions lint docs web web-schema web-tools wheel clean test-exports test-ray \
	clients fuzz images image-lock image-train test-deployment test-kubernetes

install: $(VENV)/.installed

quickstart: $(VENV)/.installed
	$(BIN)/tallyformer run --recipe recipes/quickstart.yaml
	@if [ "$(CHAT)" != 0 ] && [ -t 0 ] && [ -t 1 ]; then \
		$(BIN)/tallyformer chat --model runs/quickstart/model; \
	else \
		echo "Chat with it: $(BIN)/tallyformer chat --model runs/quickstart/model"; \
	fi

test: $(VENV)/.installed-dev web-tools
	$(MAKE) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

# The chat page, from web/ to where the package ships it.
web: web/node_modules/.installed
	cd web && npm run build

# Types of the API's requests, after the server's schemas changed.
web-schema: $(VENV)/.installed-dev web/node_modules/.installed
	mkdir -p build
	$(BIN)/python scripts/page_schema.py > build/openapi.json
	cd web && npm run schema -- ../build/openapi.json

# What the page's tests need. Without Node.js they are skipped, but not in CI.
web-tools:
	@if command -v npm >/dev/null; then $(MAKE) web/node_modules/.installed; \
	elif [ -n "$${CI:-}" ]; then echo "error: CI needs Node.js 20.19 or newer" >&2; exit 1; \
	else echo "No Node.js: the page's tests are skipped"; fi

web/node_modules/.installed: web/package.json web/package-lock.json
	cd web && npm ci --no-audit --no-fund
	touch $@

# Slow; once before a release. TEST_VERSIONS="--keep torch lowest" narrows it.
test-versions: $(VENV)/.installed-dev
	$(BIN)/python scripts/test_versions.py $(TEST_VERSIONS)

# Slow: llama-cpp-python is compiled first, which takes 10 minutes or more. The tests of llama.cpp
# are skipped where it is missing, so `make test` does not run them.
test-exports: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --constraint requirements.lock llama-cpp-python
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/export/test_gguf.py tests/docs/test_exports.py -rs

# Slow: Ray is installed first, and a cluster of two replicas started. `make test` skips these.
test-ray: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint requirements.lock "ray[serve]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/serving -rs

# Slow: many random requests to the server, whole and streamed.
fuzz: $(VENV)/.installed-dev
	TALLYFORMER_FUZZ=2000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/server/test_fuzz.py \
		tests/server/test_described.py

# Slow: clients that people use, as their makers ship them, against the server.
clients: $(VENV)/.installed-dev build/clients/.installed tests/clients/node_modules/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/clients -rs

build/clients/.installed: tests/clients/requirements.txt
	$(BIN)/python -m venv --clear --without-pip build/clients
	$(BIN)/python -c "$(PURELIB)" > $$(build/clients/bin/python -c "$(PURELIB)")/project.pth
	build/clients/bin/python -m pip install --quiet --requirement $<
	touch $@

tests/clients/node_modules/.installed: tests/clients/package.json tests/clients/package-lock.json
	cd tests/clients && npm ci --no-audit --no-fund
	touch $@

# The images of compose.yaml.
images:
	docker compose build

# The packages of the API's image with the hashes of all their files, for every processor; after
# requirements.lock or the dependencies in pyproject.toml were changed.
image-lock: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra serve --extra scale --constraint requirements.lock \
		--universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
		--custom-compile-command "make image-lock" --quiet --output-file deploy/api.lock

# The image of compose.train.yaml, with torch: 10 times as large.
image-train:
	docker compose -f compose.train.yaml build train

# Needs `make images` before, and a Docker engine: the real compose files are brought up. Training in
# a container is tried where `make image-train` has been.
test-deployment: $(VENV)/.installed-dev
	TALLYFORMER_DEPLOYMENT=1 $(BIN)/python -m pytest -rs tests/deploy/test_compose.py \
		tests/deploy/test_replicas.py tests/deploy/test_examples.py tests/deploy/test_training.py

# The manifests against Kubernetes' schemas, also by kubeconform where it is on the path
# (go install github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0), and alerts and dashboard in a real
# Prometheus, which Debian's package `prometheus` brings. What is missing is skipped by `make test`.
test-kubernetes: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet kubernetes-validate
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/deploy/test_kubernetes.py \
		tests/deploy/test_monitoring.py -rs

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tallyformer.cli.docs --check

# A wheel with the native library for this kind of machine, in dist/.
wheel: $(VENV)/.installed-dev
	rm -rf build $(SHIPPED)
	$(BIN)/python -m tallyformer.inference.native.build $(SHIPPED)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	rm -rf build $(SHIPPED)

docs: $(VENV)/.installed-dev
	$(BIN)/python -m tallyformer.cli.docs

$(VENV)/.installed: requirements.lock pyproject.toml scripts/install.sh
	PYTHON="$(PYTHON)" sh scripts/install.sh $(VENV)
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --group dev
	touch $@

clean:
	rm -rf $(VENV) build src/*.egg-info
