# Everything that is done with this project. `make` alone lists the targets.
#
# Environments (.venv*) and objects (build/) are rebuilt when what they are made of is newer.

PYTHON ?= python3
CC = gcc
CLANG ?= clang
JOBS ?= $(shell nproc 2> /dev/null || echo 1)

# WALENGINE_SCALE multiplies every count of the randomised suites, C and Python.
QUICK_SCALE ?= 0.1
SOAK_SCALE ?= 20
FUZZ_SECONDS ?= 60
# For make bench-core: --dir DIRECTORY, --json FILE, --rounds N, --only TEXT.
BENCH_ARGUMENTS ?=
# A C suite that hangs is ended there; pytest has a limit for each test (pyproject.toml).
SUITE_SECONDS_MAX ?= 300

# One more than processors, because tests wait a lot; 0 runs them in one process.
PYTEST_WORKERS ?= $(shell expr $(JOBS) + 1)
PYTEST = .venv-test/bin/python -m pytest --numprocesses=$(PYTEST_WORKERS) --dist=worksteal

CORE := $(sort $(wildcard csrc/*.c))
HEADERS := $(sort $(wildcard csrc/*.h))
C_TESTS := $(sort $(wildcard tests/c/test_*.c))
C_SUPPORT := $(filter-out $(C_TESTS),$(sort $(wildcard tests/c/*.c)))
FUZZERS := $(sort $(wildcard tests/fuzz/fuzz_*.c))
C_FILES := $(sort $(CORE) $(HEADERS) $(wildcard tests/c/*.[ch] tests/fuzz/*.[ch] bench/*.[ch]))
PACKAGE := $(sort $(wildcard walengine/*.py* walengine/*/*.py walengine/*/*/*.py))
PYTHON_FILES := setup.py walengine tests bench examples

SUITES := $(patsubst tests/c/test_%.c,%,$(C_TESTS))
# The suites that `make tsan` runs: those with threads.
TSAN_SUITES ?= $(filter crc32c poll threads followers lifecycle reader requests request_faults ring ring_threads bench,$(SUITES))

WARNINGS := -Wall -Wextra -Wconversion -Werror
C_FLAGS := -std=gnu11 -g -fno-wrapv -DWALENGINE_MUTANTS $(WARNINGS) -pthread -Icsrc -Itests/c
SANITIZE_c := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
SANITIZE_tsan := -O1 -fsanitize=thread

# Counts that suites print; conftest.py makes a table of them at the end of the output.
COUNTS := build/reliability.jsonl

.DEFAULT_GOAL := help
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- use -----------------------------------------------------------------------------------------

.PHONY: demo
demo: .venv/installed ## Install into .venv and watch a log survive SIGKILL (about 15 s)
	.venv/bin/walengine demo

.PHONY: demo-buffer
demo-buffer: .venv/installed ## Move a file through a queue into SQLite while both ends are killed (10 s)
	.venv/bin/walengine buffer demo

.venv/installed: pyproject.toml setup.py $(CORE) $(HEADERS) $(PACKAGE)
	$(call make-environment,.venv)
	@rm -rf build/lib* build/bdist*  # or setuptools packs modules that are gone
	.venv/bin/python -m pip install --quiet '.[liburing]'
	@touch $@

# A fresh venv may bring a pip that knows no --group.
define make-environment
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
endef

# ---- test ----------------------------------------------------------------------------------------

.PHONY: test
test: ## Run every test: the C suites under sanitizers, then pytest
	@rm -f $(COUNTS)
	@$(MAKE) --no-print-directory -j$(JOBS) build-c .venv-test/core
	@$(MAKE) --no-print-directory test-c
	$(PYTEST)

.PHONY: test-quick
test-quick: ## Run the tests that are not slow, with small counts (under 2 minutes)
	WALENGINE_SCALE=$(QUICK_SCALE) $(MAKE) --no-print-directory test

.PHONY: soak
soak: ## Run every test with counts raised by SOAK_SCALE
	@rm -f $(COUNTS)
	@$(MAKE) --no-print-directory -j$(JOBS) build-c .venv-test/core
	@WALENGINE_SCALE=$(SOAK_SCALE) $(MAKE) --no-print-directory SUITE_SECONDS_MAX=7200 test-c
	WALENGINE_SCALE=$(SOAK_SCALE) $(PYTEST) --timeout=7200

# The package is installed as editable, so that only C needs a rebuild.
.venv-test/environment: pyproject.toml
	$(call make-environment,.venv-test)
	.venv-test/bin/python -m pip install --quiet --group test
	@touch $@

.venv-test/core: .venv-test/environment setup.py walengine/_cffi_build.py $(CORE) $(HEADERS)
	.venv-test/bin/python -m pip install --quiet --no-build-isolation --editable '.[liburing]'
	@touch $@

.PHONY: test-deps
test-deps: ## Install the Debian packages that the whole test suite needs (root)
	@test "$$(id -u)" = 0 || { echo "make test-deps runs apt-get and has to be root" >&2; exit 1; }
	@command -v apt-get > /dev/null || { echo "make test-deps knows apt-get only" >&2; exit 1; }
	apt-get update -qq
	clang=$$(apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$$/\1/p') && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
	    -o DPkg::Lock::Timeout=300 --no-install-recommends \
	    gcc make clang libclang-rt-$$clang-dev \
	    e2fsprogs xfsprogs btrfs-progs mount strace fuse3 libfuse3-3 \
	    postgresql util-linux

# ---- the C suites --------------------------------------------------------------------------------

.PHONY: build-c
build-c: $(SUITES:%=build/c/test_%) ## Build the C suites

.PHONY: test-c
test-c: build-c ## Run the C suites under ASan and UBSan
	@$(run-suites) $(SUITES:%=run-c/%)

.PHONY: tsan
tsan: $(TSAN_SUITES:%=build/tsan/test_%) ## Run the threaded C suites under ThreadSanitizer
	@$(run-suites) $(TSAN_SUITES:%=run-tsan/%)

# JOBS suites at a time, each one's output in one piece; a failed suite does not stop the others.
run-suites = $(MAKE) --no-print-directory --keep-going --output-sync=target -j$(JOBS)

run-c/% run-tsan/%: run = build/$(patsubst run-%/,%,$(dir $@))/test_$(notdir $@)
run-c/%:
	@echo "== $*"
	@$(run-one)
run-tsan/%:
	@echo "== $* (ThreadSanitizer)"
	@$(run-one)
run-one = WALENGINE_COUNTS=$(CURDIR)/$(COUNTS) timeout --foreground $(SUITE_SECONDS_MAX) $(run)

# objects-of(directory, sources)
objects-of = $(patsubst %.c,build/$(1)/%.o,$(2))

build/c/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC $@"
	@$(CC) $(C_FLAGS) $(SANITIZE_c) -MMD -c $< -o $@

build/tsan/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC $@"
	@$(CC) $(C_FLAGS) $(SANITIZE_tsan) -MMD -c $< -o $@

build/c/test_%: build/c/tests/c/test_%.o build/c/libwalengine.a
	@echo "  LD $@"
	@$(CC) $(SANITIZE_c) -pthread $^ -lm -o $@

build/tsan/test_%: build/tsan/tests/c/test_%.o build/tsan/libwalengine.a
	@echo "  LD $@"
	@$(CC) $(SANITIZE_tsan) -pthread $^ -lm -o $@

# The core and what suites share. As an archive: a suite links what it uses, and links fast.
build/c/libwalengine.a: $(call objects-of,c,$(C_SUPPORT) $(CORE))
build/tsan/libwalengine.a: $(call objects-of,tsan,$(C_SUPPORT) $(CORE))
build/%/libwalengine.a:
	@rm -f $@
	@$(AR) rcs $@ $^

-include $(shell find build -name '*.d' 2> /dev/null)

.PHONY: reliability
reliability: ## Write the counts of the last make test into docs/RELIABILITY.md
	.venv-test/bin/python tests/reliability_table.py

# ---- other programs ------------------------------------------------------------------------------

# Not part of `make test`: the first build compiles some 340 crates, which takes minutes.
INTEROP := build/interop/debug/opendata-interop

.PHONY: interop
interop: .venv-test/core ## Check that OpenData's crate and this package read each other; needs cargo
	@command -v cargo > /dev/null || { echo "interop: skipped, there is no cargo"; exit 0; }; \
	set -e; cargo build --quiet --manifest-path tests/interop/opendata/Cargo.toml \
	    --target-dir build/interop; \
	WALENGINE_OPENDATA=$(CURDIR)/$(INTEROP) .venv-test/bin/python -m pytest \
	    tests/interop/check_opendata.py

# ---- fuzzing -------------------------------------------------------------------------------------

# What libFuzzer finds worth keeping goes to build/fuzz/<name>/corpus; it is checked in by hand.
.PHONY: fuzz
fuzz: ## Run each fuzzer for FUZZ_SECONDS (60) from its corpus; needs clang
	@command -v $(CLANG) > /dev/null || { \
	    echo "fuzz: skipped, there is no $(CLANG) (make test-deps installs it)"; exit 0; }; \
	set -e; for source in $(FUZZERS); do \
	    name=$$(basename $$source .c); name=$${name#fuzz_}; \
	    echo "== fuzz $$name"; \
	    mkdir -p build/fuzz/$$name/corpus tests/fuzz/corpus/$$name; \
	    $(CLANG) -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined \
	        -fno-sanitize-recover=all -pthread -Icsrc -Itests/c \
	        $$source $(CORE) -o build/fuzz/$$name/fuzz; \
	    build/fuzz/$$name/fuzz -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
	        -artifact_prefix=build/fuzz/$$name/ \
	        build/fuzz/$$name/corpus tests/fuzz/corpus/$$name; \
	done

.PHONY: fuzz-buffer
fuzz-buffer: .venv-test/core ## Fuzz the decoders of batches and manifests for FUZZ_SECONDS; atheris
	.venv-test/bin/python -m pip install --quiet --group fuzz
	.venv-test/bin/python tests/fuzz/fuzz_buffer.py build/fuzz/buffer/corpus \
	    -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=build/fuzz/buffer/

# ---- style ---------------------------------------------------------------------------------------

.PHONY: lint
lint: .venv-lint/environment $(call objects-of,lint,$(CORE)) ## Check style, types and warnings
	.venv-lint/bin/ruff check $(PYTHON_FILES)
	.venv-lint/bin/ruff format --check $(PYTHON_FILES)
	.venv-lint/bin/mypy --strict walengine
	@echo .venv-lint/bin/clang-format --dry-run -Werror
	@.venv-lint/bin/clang-format --dry-run -Werror $(C_FILES)
	.venv-lint/bin/codespell csrc walengine tests bench examples docs *.md Makefile

.PHONY: fmt
fmt: .venv-lint/environment ## Format Python and C
	.venv-lint/bin/ruff check --fix-only $(PYTHON_FILES)
	.venv-lint/bin/ruff format $(PYTHON_FILES)
	@.venv-lint/bin/clang-format -i $(C_FILES)

.venv-lint/environment: pyproject.toml
	$(call make-environment,.venv-lint)
	.venv-lint/bin/python -m pip install --quiet --group lint
	@touch $@

# As packaged (no mutants, -O2), which warns of more than -O1 does.
build/lint/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC $@"
	@$(CC) -std=gnu11 -O2 $(WARNINGS) -pthread -Icsrc -MMD -c $< -o $@

# ---- measure -------------------------------------------------------------------------------------

.PHONY: bench-core
bench-core: .venv-test/core build/bench/limit ## Measure the log beside the plain C loop of the same I/O
	.venv-test/bin/python bench/core.py $(BENCH_ARGUMENTS)

# For make bench-buffer: --dir DIRECTORY, --json FILE, --rounds N, --only GROUP, --store.
.PHONY: bench-buffer
bench-buffer: .venv-test/core ## Measure the buffer from produce() to the consumer (8 minutes)
	.venv-test/bin/python bench/buffer_path.py $(BENCH_ARGUMENTS)

# With --store the results are kept in bench/results; see bench/README.md for the rest.
COMPARE = .venv-bench/bin/python bench/compare.py

.PHONY: bench
bench: .venv-bench/core build/bench/limit ## Compare the log with its peers (about 10 minutes)
	$(COMPARE) compare $(BENCH_ARGUMENTS)

.PHONY: bench-quick
bench-quick: .venv-bench/core build/bench/limit ## The essential rows of make bench (2 minutes)
	$(COMPARE) quick $(BENCH_ARGUMENTS)

.PHONY: bench-large
bench-large: .venv-bench/core build/bench/limit ## Open and grow a log of 10 GB (30 GB free)
	$(COMPARE) large $(BENCH_ARGUMENTS)

.PHONY: bench-proof
bench-proof: .venv-bench/core ## Count every contender's syncs under strace, and the disk's flushes
	.venv-bench/bin/python bench/proof.py $(BENCH_ARGUMENTS)

.PHONY: bench-report
bench-report: .venv-bench/environment ## Draw the stored results and write them into bench/README.md
	.venv-bench/bin/python bench/plots.py
	@test ! -f bench/results/buffer.json || \
	    .venv-bench/bin/python bench/buffer_plots.py bench/results/buffer.json
	.venv-bench/bin/python bench/readme.py

# A step that fails is seen, and does not keep the others from running.
.PHONY: bench-results
bench-results: ## Run every comparison on a quiet machine, store it, write bench/README.md
	-$(MAKE) --no-print-directory bench-proof BENCH_ARGUMENTS="$(BENCH_ARGUMENTS) --store"
	-$(MAKE) --no-print-directory bench BENCH_ARGUMENTS="$(BENCH_ARGUMENTS) --store"
	-$(MAKE) --no-print-directory bench-peers-rust BENCH_ARGUMENTS="$(BENCH_ARGUMENTS) --store"
	-$(MAKE) --no-print-directory bench-peers-go BENCH_ARGUMENTS="$(BENCH_ARGUMENTS) --store"
	-$(MAKE) --no-print-directory bench-large BENCH_ARGUMENTS="$(BENCH_ARGUMENTS) --store"
	$(MAKE) --no-print-directory bench-report

.PHONY: bench-peers-rust
bench-peers-rust: .venv-bench/core build/bench/limit ## Compare the log with Rust's; needs cargo
	@command -v cargo > /dev/null || { echo "bench-peers-rust: skipped, there is no cargo"; exit 0; }; \
	cargo build --release --locked --manifest-path bench/peers/rust/Cargo.toml \
	    --target-dir build/bench/peers/rust && \
	$(COMPARE) rust $(BENCH_ARGUMENTS)

.PHONY: bench-peers-go
bench-peers-go: .venv-bench/core build/bench/limit ## Compare the log with Go's; needs go
	@command -v go > /dev/null || { echo "bench-peers-go: skipped, there is no go"; exit 0; }; \
	mkdir -p build/bench/peers/go && \
	go build -C bench/peers/go -mod=readonly -o $(CURDIR)/build/bench/peers/go/peers . && \
	$(COMPARE) go $(BENCH_ARGUMENTS)

.venv-bench/environment: pyproject.toml
	$(call make-environment,.venv-bench)
	.venv-bench/bin/python -m pip install --quiet --group bench
	@touch $@

.venv-bench/core: .venv-bench/environment setup.py walengine/_cffi_build.py $(CORE) $(HEADERS)
	.venv-bench/bin/python -m pip install --quiet --no-build-isolation --editable '.[liburing]'
	@touch $@

build/bench/limit: bench/limit.c csrc/crc32c.c $(HEADERS) Makefile
	@mkdir -p $(@D)
	@echo "  CC $@"
	@$(CC) -std=gnu11 -O2 $(WARNINGS) -pthread -Icsrc bench/limit.c csrc/crc32c.c -o $@

# Needs chromium (apt-get install chromium), which no test does; look at what it drew.
.PHONY: screenshots
screenshots: .venv-test/core ## Draw the pictures in docs/img anew, from what commands print here
	.venv-test/bin/python bench/screenshots.py

# ---- package -------------------------------------------------------------------------------------

.PHONY: sdist
sdist: .venv-test/environment ## Build the source archive into dist/
	.venv-test/bin/python -m build --sdist --outdir dist

.PHONY: wheel
wheel: .venv-test/environment ## Build the wheel, from the source archive, into dist/
	.venv-test/bin/python -m build --outdir dist

.PHONY: clean
clean: ## Remove everything that can be made again
	rm -rf build dist *.egg-info .venv .venv-test .venv-lint .venv-bench
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f walengine/_core.c walengine/_core*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
