# Two commands set everything up on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := 2.13.0
CPU_INDEX := https://download.pytorch.org/whl/cpu
WORKERS ?= 2
# Compiling what is imported takes half the time of compiling all that is installed; it is kept for the next command.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check -q install --no-compile
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types unit families format wheel docs pictures clean digits reference reference-gemma reference-data

# Threads that wait do not spin: between two products of matrices they would use as much CPU as the work.
demo: $(VENV)/.installed
	OMP_WAIT_POLICY=PASSIVE $(BIN)/shoal demo --out shoal-demo

# A SpeechLLM trained from nothing but synthetic digits, on two CPU cores, and how it does on a voice it has never heard.
digits: $(VENV)/.installed
	$(BIN)/python recipes/data/make.py digits --out data/digits --clips 1200 --seed 0
	$(BIN)/shoal train recipes/digits.yaml --out models/digits --device $(DEVICE) --precision $(PRECISION)
	$(BIN)/shoal evaluate models/digits --data data/digits/manifest.jsonl --where split=test-voice --out models/digits-scores

# The reference model and its sibling with Gemma: meant for one GPU (DEVICE=cuda PRECISION=bf16). TESTS are manifests whose
# test rows must not be trained on.
DEVICE ?= cpu
PRECISION ?= no
TESTS ?= $(wildcard ../shared/speech/*/manifest.jsonl)
EXCLUDE := $(foreach each,$(TESTS),--exclude $(each))

reference reference-gemma: reference-data
	$(BIN)/shoal train recipes/$@.yaml --out models/$@ --device $(DEVICE) --precision $(PRECISION)

reference-data: $(VENV)/.installed
	$(BIN)/python recipes/data/make.py digits --out data/digits --clips 1200 --seed 0
	$(BIN)/python recipes/data/make.py sentences --out data/sentences --clips 30000 $(EXCLUDE)
	$(BIN)/python recipes/data/make.py asterisk --out data/asterisk $(EXCLUDE)
	$(BIN)/python recipes/data/make.py speechocean --out data/speechocean $(EXCLUDE)

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --cache-dir .ruff_cache/imports

types: $(VENV)/.dev
	$(BIN)/mypy

# One thread a worker: two workers with two threads each would fight over two cores.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --workers $(WORKERS)

# What the contract tests show of every class, written to src/shoal/models/families/verified.json and docs/families.md.
families: $(VENV)/.dev
	rm -f src/shoal/models/families/verified.json
	SHOAL_WRITE_FAMILIES=1 SHOAL_FULL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --workers $(WORKERS) \
	  tests/models/families tests/measurement/test_architectures.py tests/pruning/test_speech_llm_checkpoints.py \
	  tests/healing/test_heal_families.py \
	  --deselect tests/models/families/test_table.py
	$(BIN)/python docs/write_families.py

# The documentation as a site, in site/. Stops at a link that leads nowhere; needs no network once its tools are there.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The pictures of the README, from the report of the demo. Needs Chromium.
pictures: demo $(VENV)/.docs
	$(BIN)/python docs/make_pictures.py shoal-demo/report.html

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

# The CPU build of torch is a quarter of the CUDA build: from the user's own pip configuration if it has one, else from
# PyTorch's index, else (macOS, where every build is a CPU build) whatever is there.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "torch==$(TORCH)+cpu" 2>/dev/null \
	  || $(INSTALL) "torch==$(TORCH)+cpu" --extra-index-url $(CPU_INDEX) 2>/dev/null \
	  || $(INSTALL) "torch==$(TORCH)"
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml
	$(INSTALL) -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.docs: $(VENV)/.installed
	$(INSTALL) -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) dist build site shoal-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
