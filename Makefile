# Two commands set everything up on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
TORCH := 2.13.0
CPU_INDEX := https://download.pytorch.org/whl/cpu
WORKERS ?= 2

.PHONY: demo test lint types unit families format wheel clean

demo: $(VENV)/.installed
	$(BIN)/shoal demo --out shoal-demo

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# One thread a worker: two workers with two threads each would fight over two cores.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

# What the contract tests show of every class, written to src/shoal/models/families/verified.json and docs/families.md.
families: $(VENV)/.dev
	rm -f src/shoal/models/families/verified.json
	SHOAL_WRITE_FAMILIES=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadscope \
	  tests/models/families tests/measure/test_architectures.py tests/prune/test_speech_llm_checkpoints.py \
	  --deselect tests/models/families/test_table.py
	$(BIN)/python docs/write_families.py

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

# The CPU build of torch is a quarter of the CUDA build: from the user's own pip configuration if it has one, else from
# PyTorch's index, else (macOS, where every build is a CPU build) whatever is there.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install "torch==$(TORCH)+cpu" 2>/dev/null \
	  || $(PIP) install "torch==$(TORCH)+cpu" --extra-index-url $(CPU_INDEX) 2>/dev/null \
	  || $(PIP) install "torch==$(TORCH)"
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) dist build shoal-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
