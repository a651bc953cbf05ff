# make test    everything: the code's rules, all tests, those under the race detector, Linux guests in the lab
# make demo    one postcopy migration on this machine, with its report
# make check   the code's rules alone        make unit, make race   those passes of the tests alone
# make lab     Linux guests in the lab alone make fuzz              every fuzz target for FUZZTIME
# make build   bin/microvm, static           make setup             install what the tests need (Debian, as root)
# make install the program, its manual pages and completions, under PREFIX (/usr/local)
# make deb     the .deb alone, by nfpm
# make release what is published, in dist: archive, .deb, SBOM, checksums; of a commit without a tag, a snapshot
# make release-check   make deb in two clones, compared byte by byte

FUZZTIME ?= 10s
PREFIX ?= /usr/local
GORELEASER ?= github.com/goreleaser/goreleaser/v2@v2.15.1
NFPM ?= github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
export PATH := $(PATH):/usr/local/go/bin

# What tests need besides Go. Without one of these some tests are skipped, and say which.
PACKAGES := qemu-system-x86 gcc libc6-dev binutils linux-libc-dev acpica-tools iproute2 e2fsprogs openssl zsh fish mandoc man-db curl

.PHONY: all build test demo check unit race lab fuzz setup install deb release release-check clean

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

# Needs no Go: what is not in the program it prints itself.
install:
	@test -x bin/microvm || { echo "bin/microvm is not there: make build" >&2; exit 1; }
	install -D -m 0755 bin/microvm $(DESTDIR)$(PREFIX)/bin/microvm
	mkdir -p $(addprefix $(DESTDIR)$(PREFIX)/share/,man/man1 bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	bin/microvm man --dir $(DESTDIR)$(PREFIX)/share/man/man1
	bin/microvm completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/microvm
	bin/microvm completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_microvm
	bin/microvm completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/microvm.fish

deb:
	hack/release/deb go run $(NFPM)

release:
	go run $(GORELEASER) release --clean $(if $(shell git tag --points-at HEAD),--skip=publish,--snapshot)

release-check:
	hack/release/twice $(MAKE) deb

clean:
	rm -rf bin dist .cache
