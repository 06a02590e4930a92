# `make help` lists what there is. Everything but `clean` may be run on a fresh clone.
SHELL := /bin/bash
PY := .venv/bin/python
# The real things share one machine's ports, sounds and cores: two workers are enough.
WORKERS ?= 2

.PHONY: help setup demo demo-check check test test-quick nightly bench corpus texts-contract diagrams clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install what is missing (root, Debian), once
	@scripts/setup.sh test

demo: ## a PBX, a public network, contactd and three calls; Ctrl-C ends it
	@scripts/setup.sh serve
	@$(PY) -m contactd demo

demo-check: ## the same, checked, and ends by itself
	@scripts/setup.sh serve
	@$(PY) -m contactd demo --check

check: ## format, lint, types, layers (seconds)
	@.venv/bin/ruff format --check -q . && .venv/bin/ruff check -q .
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --no-cache >build/imports.log || { cat build/imports.log; exit 1; }
	@.venv/bin/hadolint Dockerfile docker/asterisk.Dockerfile
	@bash -n scripts/*.sh .ci/run

test: setup check ## everything, with the real Asterisk, Chromium, PostgreSQL and Redis
	@scripts/test.sh $(WORKERS)

test-quick: ## without the real Asterisk and the browser
	@$(PY) -m pytest -q -n $(WORKERS) tests/unit tests/wire tests/stories

nightly: setup ## 100,000 random histories of clocks; the chaos test with more calls and more seeds
	@CONTACTD_HISTORIES=100000 $(PY) -m pytest -q -n $(WORKERS) --dist loadfile --timeout 14400 \
		tests/unit/test_clock_histories.py tests/unit/test_stored_clocks.py
	@CONTACTD_CHAOS_CALLS=1000 CONTACTD_CHAOS_SEEDS=5 $(PY) -m pytest -q tests/real/test_nothing_is_lost.py
	@CONTACTD_CONTRACT_EXAMPLES=300 $(PY) -m pytest -q tests/wire/test_api_contract.py
	@CONTACTD_CRASH_SEEDS=20000 $(PY) -m pytest -q --timeout 3600 tests/stories/test_crashes_relay.py tests/stories/test_crashes_notifiers.py

bench: setup ## figures against the bare thing; ONLY=name runs one
	@$(PY) -m bench $(if $(ONLY),--only $(ONLY))

corpus: setup ## real mails of DIR over SMTP against what is known of them
	@$(PY) -m bench.corpus $(DIR)

texts-contract: setup ## the gateway to Twilio against the OpenAPI document in DIR
	@$(PY) -m bench.texts_contract $(DIR)

diagrams: ## draw docs/ from the state tables
	@$(PY) scripts/diagrams.py

clean: ## what the build made (the caches of Asterisk and the prompts stay)
	@rm -rf build .venv node_modules contactd/web/static/vendor .mypy_cache .ruff_cache .hypothesis
