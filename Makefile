# make test    everything: the code's rules, all tests, those under the race detector, Linux guests in the lab
# make demo    one postcopy migration on this machine, with its report
# make check   the code's rules alone        make unit, make race   those passes of the tests alone
# make lab     Linux guests in the lab alone make fuzz              every fuzz target for FUZZTIME
# make build   bin/microvm, static           make setup             install what the tests need (Debian, as root)

FUZZTIME ?= 10s
export PATH := $(PATH):/usr/local/go/bin

# What tests need besides Go. Without one of these some tests are skipped, and say which.
PACKAGES := qemu-system-x86 gcc libc6-dev binutils linux-libc-dev acpica-tools iproute2 e2fsprogs openssl zsh fish mandoc man-db

.PHONY: all build test demo check unit race lab fuzz setup clean

all: build

build:
	CGO_ENABLED=0 go build -trimpath -o bin/microvm ./cmd/microvm

test: setup
	go run ./hack/test

check unit race: setup
	go run ./hack/test --only $@

lab: setup
	go run ./hack/test --only lab

demo:
	go run ./cmd/microvm demo

fuzz:
	go run ./hack/test --fuzz $(FUZZTIME)

# Touches nothing where everything is there. Elsewhere than on Debian as root it says what is missing and goes on.
setup:
	@command -v go > /dev/null || { echo "Go is not here: https://go.dev/dl, version $$(sed -n 's/^go //p' go.mod) or newer" >&2; exit 1; }
	@command -v dpkg-query > /dev/null || { echo "setup: not Debian; the tests want what these packages hold: $(PACKAGES)" >&2; exit 0; }; \
	missing=; for p in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$p 2> /dev/null | grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	apt-cache show linux-image-cloud-amd64 > /dev/null 2>&1 || lists=stale; \
	[ -n "$$missing$$lists" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then \
		echo "setup: package lists$${missing:+, then:$$missing}"; \
		apt-get -qq update; \
		[ -z "$$missing" ] || DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y $$missing; \
	else \
		echo "setup: some tests will be skipped; to run all: sudo apt-get update; sudo apt-get install$$missing" >&2; \
	fi

clean:
	rm -rf bin dist .cache
