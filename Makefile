# Every target sets up what it needs, Debian packages included: a fresh Debian 12 or Ubuntu 24.04
# (root, or a user with sudo) needs nothing but make. What is there already is left alone.

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input
PYTEST := $(VENV)/bin/python -m pytest

# To build pyfuse3 and the passthrough extension, and to mount.
BUILD_PACKAGES := python3 python3-venv python3-dev gcc libc6-dev pkg-config libfuse3-dev fuse3
# What the tests drive the mount with.
TEST_PACKAGES := attr btrfs-progs busybox coreutils e2fsprogs findutils fio git procps rsync \
	sqlite3 stress-ng systemd tar util-linux xfsprogs
EXTENSION := $(wildcard mregfs/fuse/*.c mregfs/host/*.c)

.DEFAULT_GOAL := help
.PHONY: help demo test check lint bench far compare soak soak-tests attack crash dev man wheel any-wheel clean build-packages test-packages

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.demo ## mount a throw-away registry, train, commit, promote, roll back (30 s)
	@$(VENV)/bin/mregfs demo

test: $(VENV)/.dev test-packages ## every test, on real mounts, with passthrough and without
	$(PYTEST) -m "not soak" -n 2 --dist loadfile
	$(PYTEST) -m "bytes and not soak" -n 2 --dist loadfile --no-passthrough tests/mount

check: lint ## lint, and the tests that need no mount
	@directory=$$(.ci/fast-directory) && trap 'rm -rf "$$directory"' EXIT INT TERM && \
	$(PYTEST) -m "not fuse and not slow and not soak" -n 2 --dist worksteal \
		--ignore tests/mount --ignore tests/soak --hypothesis-profile fast \
		-o tmp_path_retention_policy=failed --basetemp "$$directory/tests"

lint: $(VENV)/.dev ## format, style, types, layers, dead code
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/vulture

bench: $(VENV)/.dev test-packages ## how fast it is, as ratios to the disk and to its peers
	@tests/bench/setup.sh $(VENV)/bin/python
	$(VENV)/bin/python -m tests.bench

far: $(VENV)/.dev test-packages ## how long requests wait that need no store, when it is far away
	$(VENV)/bin/python -m tests.bench.bench_event_loop --first

compare: $(VENV)/.dev test-packages ## next to another tree: OTHER=…/.venv/bin/python
	$(VENV)/bin/python -m tests.bench.bench_trees $(OTHER)
	$(VENV)/bin/python -m tests.bench.bench_trees $(OTHER) --as 64201
	$(VENV)/bin/python -m tests.bench.bench_trees $(OTHER) --what versions

MINUTES ?= 30
soak: $(VENV)/.dev test-packages ## kill daemons and clients under load for MINUTES=30, and count
	$(PYTEST) -q -m soak tests/soak --soak-minutes $(MINUTES)

soak-tests: $(VENV)/.dev test-packages ## the other tests that run for minutes
	$(PYTEST) -m soak -x --ignore tests/soak
	$(PYTEST) -m "not fuse and not slow" -n 2 --hypothesis-profile deep tests/model

STEPS ?= 20000
attack: $(VENV)/.dev test-packages ## three users against two mounts, for STEPS=20000 operations
	$(PYTEST) -s tests/mount/attack/test_two_mounts.py --attack-steps $(STEPS)
	$(PYTEST) -m soak -n 2 tests/mount/attack

IMAGES ?= 30
crash: $(VENV)/.dev test-packages ## power cuts on ext4, XFS and btrfs, IMAGES=30 disks of each
	$(PYTEST) -s tests/mount/attack/test_power_cuts.py --crash-images $(IMAGES)

SECONDS ?= 20
fuzz: $(VENV)/.fuzz ## any bytes for all decoders and header readers, SECONDS=20 for each
	$(VENV)/bin/python -m tests.fuzz $(SECONDS)

wheel: build-packages | $(VENV)/bin/python ## dist/*.whl: one for hosts like this, one that any other takes
	rm -rf build dist
	$(PIP) wheel --no-deps --wheel-dir dist .
	rm -rf build
	@$(MAKE) --no-print-directory any-wheel

any-wheel: ## the second of them: no C, for who only looks
	mkdir -p build/any
	cp -R LICENSE README.md mregfs build/any
	rm -f build/any/mregfs/*/*.so
	sed '/^\[\[tool.setuptools.ext-modules/,/^$$/d' pyproject.toml > build/any/pyproject.toml
	$(PIP) wheel --no-deps --wheel-dir dist build/any
	rm -rf build

man: $(VENV)/.demo ## dist/mregfs.1, the manual page of the verbs
	mkdir -p dist
	$(VENV)/bin/python .ci/man > dist/mregfs.1

dev: $(VENV)/.dev test-packages ## the environment of the tests, in .venv

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f mregfs/fuse/*.so mregfs/host/*.so
	find mregfs tests -name __pycache__ -type d -exec rm -rf {} +

build-packages:
	@.ci/debian-packages $(BUILD_PACKAGES)

test-packages:
	@.ci/debian-packages $(TEST_PACKAGES)

# The stamps are rebuilt when pyproject.toml or the C code changes; the packages are only
# ever added.
$(VENV)/.demo: pyproject.toml $(EXTENSION) | $(VENV)/bin/python
	@echo 'setting up $(VENV), about a minute'
	@$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(EXTENSION) | $(VENV)/bin/python
	@echo 'setting up $(VENV), about a minute'
	@$(PIP) install --editable '.[demo,dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.fuzz: $(VENV)/.dev
	@$(PIP) install 'atheris>=3'
	@touch $@

$(VENV)/bin/python: | build-packages
	@.ci/virtual-environment $(VENV) $(PYTHON)
