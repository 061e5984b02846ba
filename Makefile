# Everything a contributor runs. Needs Python 3.10 or later and nothing else:
# the environment is made in .venv, and made again when the versions in it change.

PYTHON ?= python3
# Arguments passed on to pytest: make test PYTEST_ARGS="-k arena -x"; "-n 0" runs it in one process.
PYTEST_ARGS ?=

VENV := .venv
INSTALLED := $(VENV)/.installed
FRAMEWORKS := $(VENV)/.frameworks
BENCH := $(VENV)/.bench
PEERS := .venv-peers
PYTEST := $(VENV)/bin/python -m pytest -n logical --maxprocesses 8 --dist worksteal

.PHONY: demo test ecosystem check bench bench-peers fuzz soak clean

demo: $(INSTALLED)
	$(VENV)/bin/penstock iterate examples/photos --workers 2 --batch-size 8 --size 224 --on-error skip

test: $(INSTALLED)
	$(PYTEST) $(PYTEST_ARGS)

# The loader inside Lightning, Accelerate, Transformers and others: half a gigabyte to install.
ecosystem: $(FRAMEWORKS)
	$(PYTEST) tests/ecosystem $(PYTEST_ARGS)

check: $(INSTALLED)
	scripts/check

# Compares 5,000 loaders, others each time, with torch's; half an hour on two cores.
fuzz: $(INSTALLED)
	PENSTOCK_FUZZ_CASES=$${PENSTOCK_FUZZ_CASES:-5000} \
	PENSTOCK_FUZZ_SEED=$${PENSTOCK_FUZZ_SEED:-$$(date +%s)} \
		$(PYTEST) tests/fuzz -o session_timeout=7200 $(PYTEST_ARGS)

# Random loaders whose workers are killed and stopped, for SECONDS, at a SEED: nothing may be lost,
# come twice, or be left behind. A failure prints how to run its scenario alone.
SECONDS ?= 120
SEED ?= 1
soak: $(INSTALLED)
	$(VENV)/bin/python -m tests.soak --seconds $(SECONDS) --seed $(SEED)

# Every row of the table; an hour on two cores, and with QUICK=1 under three minutes. IMAGES=DIR takes
# photographs of your own, BENCH_ARGS="--only 5 6" some rows. Writes to benchmarks/results.
bench: $(BENCH)
	$(VENV)/bin/python -m benchmarks.run --write \
		$(if $(QUICK),--quick) $(if $(IMAGES),--images "$(IMAGES)") $(BENCH_ARGS)

# The stamp is written last: an installation that was interrupted is done again. The constraints
# are given twice because pip builds in an environment of its own, which only the variable reaches.
INSTALL = PIP_CONSTRAINT=constraints.txt $(VENV)/bin/python -m pip install \
	--quiet --quiet --disable-pip-version-check -c constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): a few minutes the first time."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev]'
	@touch $@

$(FRAMEWORKS): $(INSTALLED)
	$(INSTALL) -e '.[ecosystem]'
	@touch $@

$(BENCH): $(INSTALLED)
	$(INSTALL) -e '.[bench]'
	@touch $@

# Beside other loaders, in an environment of their own: gigabytes to install. SPDL decodes pictures
# with FFmpeg's libraries (Debian: apt-get install ffmpeg).
bench-peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m benchmarks.run_peers --write \
		$(if $(QUICK),--quick) $(if $(IMAGES),--images "$(IMAGES)") $(BENCH_ARGS)

# These libraries do not agree with constraints.txt on NumPy and others: torch alone is taken from there.
$(PEERS)/.installed: benchmarks/requirements.txt constraints.txt pyproject.toml
	@echo "Installing into $(PEERS): some minutes the first time."
	$(PYTHON) -m venv $(PEERS)
	grep '^torch==' constraints.txt > $(PEERS)/torch.txt
	PIP_CONSTRAINT=$(PEERS)/torch.txt $(PEERS)/bin/python -m pip install \
		--quiet --quiet --disable-pip-version-check \
		-c $(PEERS)/torch.txt -r benchmarks/requirements.txt -e '.[jpeg]'
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks examples -type d -name __pycache__ -prune -exec rm -rf {} +
