# The commands of this repository. `make` lists them; README.md tells what they are for.
#
# `make test` and `make demo` need nothing but Rust on a fresh Debian 12: they install what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PREFIX  ?= /usr/local
DESTDIR ?=
MINUTES ?= 10
PARTS   ?=

# Where a unit belongs depends on who installs it: a person (/usr/local) or a package (/usr).
UNITDIR ?= $(if $(filter /usr,$(PREFIX)),/lib/systemd/system,/etc/systemd/system)
# Programs that are built already, to be installed as they are; without, they are built.
BINARIES ?=
BUILT := $(or $(BINARIES),$(or $(CARGO_TARGET_DIR),target)/release)

##@ Try it
.PHONY: demo demo-down
demo: ## Start three hosts on this machine with a replicated volume mounted
	@deploy/setup demo
	@deploy/demo/up

demo-down: ## Stop the demo and remove all that it left
	@deploy/demo/down

##@ Work on it
.PHONY: setup test test-guest lint bench soak fuzz
setup: ## Install what tests and lint need: Debian packages, and tools under target/tools
	@deploy/setup test lint

test: ## Run every test; the last line is the count
	@deploy/setup test
	@tests/run

lint: ## Formatting, clippy, licenses and sources of dependencies, shell scripts, API docs
	@deploy/setup lint
	@tests/lint

bench: ## Measure, about 30 minutes: a table on the screen, JSON in target/bench (PARTS="fio idle")
	@deploy/setup bench
	@benches/run $(PARTS)

test-guest: ## Try what only other kernels have (NBD), in an emulated machine, about 5 minutes
	@deploy/setup guest
	@tests/guest/run

soak: ## Run the simulator on new seeds for MINUTES=10
	@MINUTES=$(MINUTES) tests/soak

fuzz: ## Run every fuzz target for MINUTES=10, one after the other
	@deploy/setup test fuzz
	@MINUTES=$(MINUTES) tests/fuzz/run

##@ Install it
.PHONY: install
install: ## Build and install binaries, unit and completions (PREFIX=/usr/local, DESTDIR=)
	$(if $(BINARIES),,cargo build --release)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(UNITDIR)
	install -m 755 $(BUILT)/mountctl $(DESTDIR)$(PREFIX)/bin/mountctl
	install -m 755 $(BUILT)/mountd $(DESTDIR)$(PREFIX)/sbin/mountd
# mount(8) looks for its helpers in /sbin, wherever we ourselves are.
	install -d $(DESTDIR)/sbin
	ln -sfn $(PREFIX)/bin/mountctl $(DESTDIR)/sbin/mount.mooring
	sed 's,@SBINDIR@,$(PREFIX)/sbin,g' deploy/mountd.service >$(DESTDIR)$(UNITDIR)/mountd.service
	chmod 644 $(DESTDIR)$(UNITDIR)/mountd.service
# A configuration that is there already is its owner's.
	install -d $(DESTDIR)/etc/mooring
	[ -e $(DESTDIR)/etc/mooring/mountd.toml ] || install -m 644 deploy/mountd.toml $(DESTDIR)/etc/mooring/mountd.toml
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	  $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(BUILT)/mountctl completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/mountctl
	$(BUILT)/mountctl completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_mountctl
	$(BUILT)/mountctl completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/mountctl.fish
	cd $(DESTDIR)$(PREFIX)/share && chmod 644 bash-completion/completions/mountctl \
	  zsh/site-functions/_mountctl fish/vendor_completions.d/mountctl.fish

##@ Other
.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
