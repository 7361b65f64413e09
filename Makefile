# Two commands do everything: `make demo` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make TORCH_INDEX=https://download.pytorch.org/whl/cpu` takes torch from that index; unset: pip's own.
TORCH_INDEX ?=
TORCH := $(shell sed -n 's/^torch==/torch==/p' constraints.txt)
PYTEST_WORKERS ?= 2
export ORT_DISABLE_TELEMETRY = 1
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: setup demo test lint types contracts clean

setup: $(VENV)/.ready

# torch goes first and pinned: a later, looser requirement would fetch a build of several GB.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools -c constraints.txt
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/edgestill demo --out out/demo

test: setup lint types contracts
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal

lint: setup
	$(BIN)/ruff check .

# mypy refuses a folder whose name is no identifier, so the package is linked under its own name.
types: setup
	mkdir -p .types && ln -sfn "$(CURDIR)" .types/edgestill
	MYPYPATH=.types $(BIN)/mypy -p edgestill.models -p edgestill.runtime -p edgestill.quantize -p edgestill.cli

contracts: setup
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .types out build *.egg-info
