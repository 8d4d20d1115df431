# Needs python3 (3.10 or newer, with venv), make and a package index; everything else goes into .venv.
PYTHON ?= python3
NB ?= 02_linear_attention
PROFILE ?= auto
DATA ?=
OLDEST ?= python3.10
NEWEST ?= python3.13
TORCH ?= 2.11
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup run test fast test-oldest test-newest test-torch sync readme bench gpu-todo wheel minutes site browser publish clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## ?/  make \1\t/' | expand -t 18

# The stamp is written last, so an interrupted installation is begun again.
$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; name one with make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[notebooks,dev]'
	touch $(INSTALLED)

setup: $(INSTALLED)  ## make .venv and install (torch is several GB; once)

run: $(INSTALLED)  ## execute a notebook: NB=02_linear_attention|01_vit|…|all  PROFILE=smoke|quick|paper  DATA=name or folder
	$(BIN)/python .ci/notebooks.py run $(NB) --profile $(PROFILE) $(if $(DATA),--data $(DATA))

fast: $(INSTALLED)  ## ruff and the unit tests alone
	$(BIN)/ruff check
	$(BIN)/python -m pytest -q tests

test: fast  ## everything: ruff, unit tests, every notebook executed
	VIX_PROFILE=smoke TQDM_DISABLE=1 $(BIN)/python -m pytest -q -x --nbval-lax --nbval-current-env \
		--nbval-cell-timeout 900 notebooks

test-oldest:  ## unit tests with the lowest supported versions, in build/oldest: OLDEST=python3.10
	$(OLDEST) .ci/versions.py oldest

test-torch:  ## unit tests with a torch of your choice, in build/VERSION: TORCH=2.11
	$(PYTHON) .ci/versions.py $(TORCH)

test-newest:  ## unit tests with the newest versions, in build/newest: NEWEST=python3.13
	$(NEWEST) .ci/versions.py newest

sync: $(INSTALLED)  ## after editing notebooks/*.py: regenerate and execute the .ipynb (NB=name or all)
	$(BIN)/python .ci/notebooks.py sync $(NB)

bench: $(INSTALLED)  ## measure speed and memory into data/benchmarks: QUICK=1  PEERS=1 installs other packages  DEVICE=cpu|cuda
	$(if $(PEERS),$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[peers]')
	for part in peers scaling roofline; do \
		$(BIN)/python -m benchmarks.$$part $(if $(QUICK),--quick) $(if $(DEVICE),--device $(DEVICE)) || exit; done

readme: $(INSTALLED)  ## fill README's tables from data/results and data/benchmarks
	$(BIN)/python .ci/readme.py

gpu-todo: $(INSTALLED)  ## what a borrowed GPU should run next, in blocks under ten minutes  DATA=name or folder
	$(BIN)/python -m vixlib.reproduce --todo $(if $(DATA),--data $(DATA))

# Built from scratch each time, because setuptools would keep records that are gone in build/lib.
wheel: $(INSTALLED)  ## build/wheel/vixlib-….whl, the file to upload to Kaggle as a data set
	rm -rf build/lib build/bdist.* build/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index \
		--wheel-dir build/wheel .
	@ls build/wheel/*.whl

minutes: $(INSTALLED)  ## run, and keep how long the notebooks take here, into data/minutes.json: NB=all PROFILE=smoke
	$(BIN)/python .ci/notebooks.py run $(NB) --minutes --profile $(PROFILE) $(if $(DATA),--data $(DATA))

site: $(INSTALLED)  ## the series as web pages: build/site/index.html, links and pictures checked
	$(BIN)/python .ci/pages.py

browser: $(INSTALLED)  ## notebook NB in JupyterLab, driven in Debian's Chromium; screenshots in build/screens
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lab]'
	$(BIN)/python .ci/browser.py $(NB)

publish:  ## write the repository's address everywhere: REPO=owner/name
	$(PYTHON) .ci/publish.py $(REPO)

clean:  ## remove what was built (not .venv, not data)
	rm -rf build .pytest_cache .ruff_cache
