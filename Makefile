# The house keeping of weir.  Meson builds; this file names what people do.
#
# Every target sets up what it needs (Debian packages, .venv) and works from any directory:
# make -C path/to/weir demo.  PYTHON=... chooses the Python that .venv is made from.

ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
BIN := $(ROOT)/.venv/bin
DEMO_ARGS ?=
export PYTHON PREFIX DESTDIR WERROR

.PHONY: all help setup demo check sanitize prove fuzz soak bench docs install format clean
.DEFAULT_GOAL := all

all: setup ## build the library and make the package importable from .venv (default)
	@$(ROOT)/scripts/build dev

help: ## say what the targets are
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/make \1\t\2/p' $(ROOT)/Makefile | expand -t 16

setup: ## install what is missing to build; does nothing when nothing is
	@$(ROOT)/scripts/setup build

demo: all ## run the main example on real input, and watch it; DEMO_ARGS=--compare draws the comparison
	@case " $(DEMO_ARGS) " in *" --compare "*) $(ROOT)/scripts/setup plot;; esac
	@$(ROOT)/scripts/demo $(DEMO_ARGS)
	@[ -n "$(DEMO_ARGS)" ] || $(ROOT)/scripts/demo_run

check: ## run every check and test; STEPS="layers man" runs some
	@$(ROOT)/scripts/setup check
	@$(ROOT)/scripts/check $(STEPS)

sanitize: ## run the C tests and the Python tests under ASan+UBSan and under TSan
	@$(ROOT)/scripts/setup check sanitize
	@$(ROOT)/scripts/check asan tsan pyasan pytsan

prove: ## run the core under every schedule that ten minutes allow, and search the models
	@$(ROOT)/scripts/setup check prove
	@$(ROOT)/scripts/prove
	@$(ROOT)/scripts/check_models

fuzz: ## look for input and shared memory that breaks a reader, for ten minutes; MINUTES=60
	@$(ROOT)/scripts/setup check fuzz
	@$(ROOT)/scripts/fuzz --seconds $$(($(or $(MINUTES),10) * 60))

soak: all ## mix everything for half an hour, and print what became of each item; MINUTES=5
	@$(BIN)/python $(ROOT)/tests/soak/soak.py --minutes $(or $(MINUTES),30)

bench: ## measure beside the peers, write docs/benchmarks.md; BENCH="c_queue" runs some
	@$(ROOT)/scripts/setup plot bench
	@$(BIN)/python $(ROOT)/bench/run_all.py $(BENCH)

docs: ## render the manual pages to build/docs
	@$(ROOT)/scripts/setup check
	@$(ROOT)/scripts/docs

install: setup ## install the library, headers and manual pages; PREFIX=/usr/local DESTDIR=
	@$(ROOT)/scripts/build release
	@$(BIN)/meson install -C $(ROOT)/build-release --no-rebuild --quiet

format: ## rewrite C and Python in the project's format
	@$(ROOT)/scripts/setup check
	@$(ROOT)/scripts/format

clean: ## remove what was built, not .venv
	@rm -rf $(ROOT)/build $(ROOT)/build-asan $(ROOT)/build-tsan $(ROOT)/build-release \
		$(ROOT)/build-prove $(ROOT)/build-fuzz $(ROOT)/build-cov $(ROOT)/build-mutate $(ROOT)/build-bench \
		$(ROOT)/build-bare $(ROOT)/build-py?san $(ROOT)/python/weir/*.so $(ROOT)/out
