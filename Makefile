# SPDX-License-Identifier: MIT
# Thin: everything real is in meson.build, lab/ and tests/.
BUILD ?= build
PREFIX ?= /usr/local
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: all deps demo check check-long bench-connect bench-dispatch install clean

all: deps
	@[ -f $(BUILD)/build.ninja ] || meson setup --prefix=$(PREFIX) $(BUILD) >/dev/null
	@ninja -C $(BUILD)

deps:
	@$(SUDO) tools/deps

demo: all
	@$(SUDO) env BUILD=$(abspath $(BUILD)) BREAK=$(BREAK) /usr/bin/python3 lab/demo.py

check: all
	@$(SUDO) env BUILD=$(abspath $(BUILD)) tests/run

check-long: all
	@$(SUDO) env BUILD=$(abspath $(BUILD)) tests/run --long

bench-connect: all
	@$(SUDO) $(BUILD)/bench/connect/bench-connect $(ROUNDS)

bench-dispatch: all
	@$(SUDO) $(BUILD)/bench/dispatch/bench-dispatch $(ROUNDS)

install: all
	@$(SUDO) meson install -C $(BUILD)

clean:
	rm -rf $(BUILD) build-san build-fuzz
