# `make help` lists the targets. Everything runs in .venv, which `make setup` builds.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup ingest demo test check bench docs report

PYTHON ?= python3
VENV := .venv
AXES := $(VENV)/bin/axes
INSTALLED := $(VENV)/.installed

# make ingest: the model, its prompt sets, and where and how it runs.
MODEL ?=
PROMPTS ?= demo_safety
ROOT ?= lake
SOURCE ?=
DEVICE ?=
DTYPE ?=
# make bench: one benchmark instead of all.
ONLY ?=

DEMO_MODELS := smollm2-135m gemma3-270m qwen2.5-coder-0.5b
DEMO_QUERIES := $(sort $(wildcard docs/queries/*.sql))
DEMO_AXIS := universal/demo/18/demo_safety/lambda-held_out

help: ## List the targets.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## Build .venv with the package and what its tests need.

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --editable ".[dev]"
	touch $@

ingest: $(INSTALLED) ## Run a model: make ingest MODEL=qwen2.5-7b [PROMPTS= ROOT= SOURCE= DEVICE= DTYPE=]
	@test -n "$(MODEL)" || { echo "which model? make ingest MODEL=qwen2.5-7b" >&2; exit 2; }
	$(AXES) ingest activations $(MODEL) $(foreach set,$(PROMPTS),--prompts $(set)) --root $(ROOT) \
	  $(if $(SOURCE),--source $(SOURCE)) $(if $(DEVICE),--device $(DEVICE)) $(if $(DTYPE),--dtype $(DTYPE))

demo: $(INSTALLED) ## The main job on three real models: ingest, fit, align, evaluate, ask.
	for model in $(DEMO_MODELS); do \
	  $(AXES) ingest activations $$model --prompts demo_safety --prompts demo_alignment --root $(ROOT) >&2 && \
	  $(AXES) ingest traces $$model --prompts demo_safety --limit 48 --max-new-tokens 24 --root $(ROOT) >&2 || exit; \
	done
	$(AXES) study --group demo --prompts demo_safety --align demo_alignment --report $(ROOT)/out/report.md --root $(ROOT)
	@for query in $(DEMO_QUERIES); do \
	  echo; cat $$query; echo "$$ $(AXES) sql -f $$query --root $(ROOT)"; \
	  $(AXES) sql -f $$query --root $(ROOT) || exit; \
	done
	@echo; echo "Written, to use elsewhere:"
	@for format in safetensors json gguf; do \
	  $(AXES) export $(DEMO_AXIS) --to $$format -o $(ROOT)/out/universal.$$format --root $(ROOT) || exit; \
	done
	@echo $(ROOT)/out/report.md

test: $(INSTALLED) ## The whole test suite.
	$(VENV)/bin/python -m pytest

check: $(INSTALLED) ## What CI runs before the tests: format, lint, types, SQL.
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/sqlfluff lint --disable-progress-bar sql docs/queries

bench: $(INSTALLED) ## Measure: make bench [ONLY=ingest]; results in benchmarks/results.
	$(VENV)/bin/python -m benchmarks.run $(ONLY)

docs: $(INSTALLED) ## Write docs/tables.md and docs/cli.md again.
	$(VENV)/bin/python -m docs.generate

report: $(INSTALLED) ## The last study of the warehouse as Markdown.
	$(AXES) report --root $(ROOT) -o $(ROOT)/out/report.md
