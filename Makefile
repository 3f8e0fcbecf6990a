# wattbench: every target does its own set-up. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
UV := .venv/bin/uv
PYTEST := .venv/bin/pytest -q -rfE
STARTED := $(shell date +%s)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Hundreds of Python processes start here: without kept bytecode each one compiles its libraries anew.
unexport PYTHONDONTWRITEBYTECODE

DEPLOY := python3 -m deploy

.PHONY: help setup lock sbom audit-deps demo test test-fast test-docker faults lint format explore fuzz bench images docs secrets up backup restore pin clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14

setup: .venv/.ready  ## .venv with all that the analysis, lint and the fast tests need

.venv/.ready: requirements.txt requirements-torch.txt pyproject.toml demo/venv.sh
	@demo/venv.sh
	@touch $@

# UPGRADE=--upgrade renews all pins, UPGRADE='-P NAME' one.
lock:            ## the locks from pyproject.toml, with hashes; keeps pins
	@deploy/lock.sh $(UPGRADE)

sbom: setup      ## bills of materials (CycloneDX) of checkout and controller, var/sbom/, and docs/licences.md
	@$(PY) -m deploy sbom

audit-deps: setup ## known vulnerabilities of the locked packages; says when there is no data
	@$(PY) -m deploy audit-deps

lint: setup      ## format, lint, types and which package may import which
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@PYTHONPATH=plugins .venv/bin/lint-imports --no-logo --no-cache

format: setup
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

test-fast: setup ## tests that need neither Docker nor minutes
	@$(PYTEST) -n 3 --dist loadfile -m "not docker and not slow and not browser"

demo: setup      ## everything on this machine: two virtual hosts, Airflow, a real run, its report
	@$(PY) -m demo run --since $(STARTED)

test: test-fast  ## all tests: the fast tier, then those on the virtual hosts and with a browser
	@command -v chromium >/dev/null || \
	  $(PY) -c "from demo.packages import require; require({'chromium': 'chromium'}, print)" || \
	  echo "test: no chromium: what needs a browser will be skipped"
	@$(PYTEST) -n 2 -m "slow and not docker"
	@$(PY) -m demo up
	@$(PYTEST) -m "(docker or browser) and not faults"

test-docker: setup ## the tests on the virtual hosts alone
	@$(PY) -m demo up
	@$(PYTEST) -m "docker and not faults"

faults: setup    ## every fault in every phase of a run, docs/reliability.md; goes on where it stopped; FAULTS=… a part
	@$(PY) -m demo up
	@$(PY) -m tests.faults --only "$(FAULTS)" $(if $(AGAIN),--again) --minutes $(or $(MINUTES),150)

images: setup    ## builds and pushes a set of images: SET=twins|paper|demo|examples REGISTRY=HOST:PORT
	@$(PY) -m demo images $(SET) $(if $(REGISTRY),--registry $(REGISTRY))

secrets:         ## a deployment's .env with fresh secrets; never overwrites one
	@$(DEPLOY) secrets

up:              ## a deployment (docker-compose.airflow.yml): build, start, wait until healthy
	@$(DEPLOY) up

backup:          ## its database and object store into a new folder: make backup TO=…
	@$(DEPLOY) backup "$(or $(TO),$(error backup: name a new folder: make backup TO=…))"

restore:         ## such a folder into a deployment that holds nothing yet: make restore FROM=…
	@$(DEPLOY) restore "$(or $(FROM),$(error restore: name a backup: make restore FROM=…))"

pin: setup       ## the digests that image tags have now into the compose file
	@$(PY) -m deploy pin

explore: setup   ## the property tests on fresh examples; those of the other targets are always the same
	@$(PYTEST) -n 2 -m hypothesis --hypothesis-profile=explore

fuzz: setup      ## damaged input for every parser, 20 s each; FUZZ_S=… for longer
	@$(PY) -m tests.fuzz --seconds $(or $(FUZZ_S),20)

bench: setup     ## what it costs and how right it is, in three sizes each: docs/performance.md (minutes)
	@$(PY) tests/bench/all.py $(BENCH)

docs: setup      ## the pages of docs/ as a site, var/docs/index.html; a broken link is an error
	@.venv/bin/mkdocs build --strict
	@echo "docs: var/docs/index.html"

clean:           ## removes what carries this checkout's label, stops its processes, removes var/
	@if [ -e var ] || [ -x .venv/bin/python ]; then \
	  { [ -e .venv/.ready ] || demo/venv.sh; } && $(PY) -m demo down --remove; \
	else \
	  echo "clean: nothing to do: this checkout has neither var/ nor .venv"; \
	fi
