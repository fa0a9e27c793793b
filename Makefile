# `make build` is all that a fresh clone needs; `make help` lists the rest.
#
# Variables: CUDA=1 fetches libtorch with NVIDIA's libraries, CUDA=0 does not even where a GPU is seen;
# TORCH_PYTHON=/path/python uses the torch 2.11 which that Python has; PYTHON=python3.12 names the Python for set-up.

PYTHON ?= python3
CARGO ?= $(shell command -v cargo || echo $(HOME)/.cargo/bin/cargo)
ROOT := $(CURDIR)
HRM := $(ROOT)/target/release/hrm

# Other programs use CUDA in the environment for a folder: only 0 and 1 mean anything here.
SETUP_FLAGS := $(if $(filter 0 1,$(CUDA)),--cuda $(CUDA))
export TORCH_PYTHON
# The set-up links that Python's torch into third_party/, where cargo looks for it; torch-sys must not look elsewhere.
unexport LIBTORCH_USE_PYTORCH

.DEFAULT_GOAL := build
.PHONY: help setup build test test-reliability interop-env test-interop demo demo-train fmt clippy doc clean distclean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(firstword $(MAKEFILE_LIST)) | awk -F':.*## ' '{printf "make %-16s %s\n", $$1, $$2}'

setup: ## Fetch libtorch 2.11 into third_party/ once, and check the compilers
	@command -v $(PYTHON) >/dev/null 2>&1 || \
	  { echo "setup: $(PYTHON) is not in PATH: install Python 3.8 or newer with pip, or name one: make $(or $(MAKECMDGOALS),build) PYTHON=/path/python3" >&2; exit 1; }
	@CARGO="$(shell command -v $(CARGO))" LIBTORCH_USE_PYTORCH="$(LIBTORCH_USE_PYTORCH)" $(PYTHON) scripts/setup_libtorch.py $(SETUP_FLAGS)

build: setup ## Build target/release/hrm
	@$(CARGO) build --release --bin hrm
	@echo "built $(HRM)"

test: setup ## All tests that need nothing beyond the set-up
	$(CARGO) test --release

test-reliability: build ## A sample of kills, failing disks and a hostile hub, some ten minutes (docs/RELIABILITY.md)
	scripts/reliability/kills.py --hrm $(HRM) --count 120 --output target/reliability
	scripts/reliability/disk.py --hrm $(HRM) --count 120 --output target/reliability
	scripts/reliability/hub.py --hrm $(HRM) --count 45 --output target/reliability

interop-env: ## Install Python's torch and more into .interop/ (3.5 GB), once
	@$(PYTHON) scripts/setup_interop.py

test-interop: build interop-env ## The checks beside Python's torch
	HRM_BIN=$(HRM) .interop/bin/python -m pytest -q tests/interop

demo: build ## Trained checkpoints solve real puzzles while you watch, in a minute on a CPU
	@HRM_BIN=$(HRM) bash scripts/demo.sh

demo-train: build ## From puzzles to a small trained model and a picture, in a few minutes
	@HRM_BIN=$(HRM) bash scripts/demo_train.sh

fmt: ## Check the formatting
	$(CARGO) fmt --check

clippy: setup ## Lints; a warning is an error
	$(CARGO) clippy --release --all-targets -- -D warnings
	$(CARGO) clippy --manifest-path fuzz/Cargo.toml --bins --target-dir target/fuzz -- -D warnings

doc: setup ## The library's documentation
	$(CARGO) doc --release --no-deps --open

clean: ## Remove what was built, keep libtorch
	$(CARGO) clean
	rm -rf demo

distclean: clean ## Remove libtorch and the interop environment too
	rm -rf third_party .interop
