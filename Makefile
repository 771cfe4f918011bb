# vmd: build, install, test. Every target works from a clean clone; Go and, as
# root on Debian, apt-get are the only things that use the network.

PREFIX     ?= /usr/local
SBINDIR    ?= $(PREFIX)/sbin
BINDIR     ?= $(PREFIX)/bin
MANDIR     ?= $(PREFIX)/share/man
LIBDIR     ?= $(PREFIX)/lib
DOCDIR     ?= $(PREFIX)/share/doc/vmd
SYSCONFDIR ?= /etc
DESTDIR    ?=

# Where the programs are built.
OUT        ?= bin

GO         ?= go
GOFLAGS_   = -trimpath -ldflags='-s -w -buildid='
FUZZTIME   ?= 1m

# What the tests use. The lab needs the first two lines.
PACKAGES = qemu-system-x86 seabios linux-image-cloud-amd64 busybox-static \
	e2fsprogs kmod iproute2 systemd \
	qemu-utils snmpd snmp snmptrapd nftables cpio mandoc grub-common grub-pc-bin \
	$(OTHERS)

# Somebody else's software, to be booted (e2e/boot_test.go), and to boot it from
# the network with (e2e/netboot_test.go).
OTHERS = xorriso ipxe ipxe-qemu dnsmasq-base memtest86+ gnumach-image-1-486 xen-hypervisor-4.17-amd64 \
	debian-installer-12-netboot-amd64

# PACKAGE:PROGRAM of packages that start services and want much else: only
# unpacked. 24 MB to download.
UNPACKED = prometheus:promtool prometheus-snmp-exporter:prometheus-snmp-exporter
UNPACKED_DIR = $(CURDIR)/.cache/unpacked
export PATH := $(PATH):$(UNPACKED_DIR)/usr/bin

# Packages that keep a processor busy for long; they run alone, at the end.
LAST = ./e2e

export CGO_ENABLED = 0

all:
	$(GO) build $(GOFLAGS_) -o $(OUT)/vmd ./vmd
	$(GO) build $(GOFLAGS_) -o $(OUT)/vmctl ./vmctl

# The programs' places are written into the service files.
PLACES = sed -e 's|@SBINDIR@|$(SBINDIR)|g' -e 's|@BINDIR@|$(BINDIR)|g' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g'

# Root need not have Go: then what somebody else has built is installed.
built:
	@test -x $(OUT)/vmd -a -x $(OUT)/vmctl || { \
		echo "there is no $(GO) here and nothing in $(OUT): run make as a user who has Go, then this" >&2; exit 1; }

install: $(if $(shell command -v $(GO) 2>/dev/null),all,built)
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(DOCDIR) \
		$(DESTDIR)$(MANDIR)/man5 $(DESTDIR)$(MANDIR)/man8 \
		$(DESTDIR)$(LIBDIR)/systemd/system $(DESTDIR)$(LIBDIR)/sysusers.d $(DESTDIR)$(SYSCONFDIR)/rc.d
	install -m 755 $(OUT)/vmd $(DESTDIR)$(SBINDIR)/vmd
	install -m 755 $(OUT)/vmctl $(DESTDIR)$(BINDIR)/vmctl
	for page in vmd/vmd.8 vmd/vm.conf.5 vmctl/vmctl.8; do \
		if [ -e $$page ]; then install -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/ || exit 1; fi; \
	done
	install -m 644 etc/vm.conf $(DESTDIR)$(DOCDIR)/vm.conf
	install -m 644 etc/nftables/vmd.nft $(DESTDIR)$(DOCDIR)/vmd.nft
	install -d $(DESTDIR)$(DOCDIR)/monitoring
	install -m 644 etc/monitoring/* $(DESTDIR)$(DOCDIR)/monitoring/
	test -e $(DESTDIR)$(SYSCONFDIR)/vm.conf || install -m 644 etc/vm.conf $(DESTDIR)$(SYSCONFDIR)/vm.conf
	for unit in vmd.service vmd-guests.service; do \
		$(PLACES) etc/systemd/$$unit >$(OUT)/$$unit && \
		install -m 644 $(OUT)/$$unit $(DESTDIR)$(LIBDIR)/systemd/system/$$unit || exit 1; \
	done
	$(PLACES) rc.d/vmd >$(OUT)/vmd.rc
	install -m 755 $(OUT)/vmd.rc $(DESTDIR)$(SYSCONFDIR)/rc.d/vmd
	install -m 644 etc/sysusers.d/vmd.conf $(DESTDIR)$(LIBDIR)/sysusers.d/vmd.conf
	if [ -z "$(DESTDIR)" ]; then sh etc/users.sh etc/sysusers.d/vmd.conf; fi

# What install has put there, but not what is somebody's own: a vm.conf that was
# changed, what VMs keep in /var/lib/vmd, the users, their subordinate ids.
uninstall:
	@if [ -z "$(DESTDIR)" ] && $(SYSCONFDIR)/rc.d/vmd check >/dev/null 2>&1; then \
		echo "vmd runs: systemctl disable --now vmd, or $(SYSCONFDIR)/rc.d/vmd stop, first" >&2; exit 1; fi
	rm -f $(DESTDIR)$(SBINDIR)/vmd $(DESTDIR)$(BINDIR)/vmctl \
		$(DESTDIR)$(MANDIR)/man8/vmd.8 $(DESTDIR)$(MANDIR)/man8/vmctl.8 $(DESTDIR)$(MANDIR)/man5/vm.conf.5 \
		$(DESTDIR)$(LIBDIR)/systemd/system/vmd.service $(DESTDIR)$(LIBDIR)/systemd/system/vmd-guests.service \
		$(DESTDIR)$(LIBDIR)/sysusers.d/vmd.conf $(DESTDIR)$(SYSCONFDIR)/rc.d/vmd
	rm -rf $(DESTDIR)$(DOCDIR)
	@conf=$(DESTDIR)$(SYSCONFDIR)/vm.conf; \
	if cmp -s etc/vm.conf $$conf; then rm -f $$conf; elif [ -e $$conf ]; then echo "left: $$conf"; fi; \
	for left in $(DESTDIR)/var/lib/vmd $(DESTDIR)/run/vmd; do [ ! -e $$left ] || echo "left: $$left"; done; \
	if [ -z "$(DESTDIR)" ]; then echo "left: users _vmd and _agentx, group vmd, /etc/subuid and /etc/subgid"; fi

# Debian's packages, if any is missing and we may install it; what a release
# does not have is left out. A host that has none of them runs what it can, and
# VMD_TEST_REQUIRE says whether that is enough.
packages: installed unpacked

installed:
	@missing=; for p in $(PACKAGES); do \
		dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then echo "not installed:$$missing"; exit 0; fi; \
	echo "installing$$missing"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq || exit 1; \
	found=; for p in $$missing; do \
		if apt-cache show $$p >/dev/null 2>&1; then found="$$found $$p"; else echo "no package $$p"; fi; \
	done; \
	if [ -n "$$found" ]; then apt-get install -y -qq --no-install-recommends $$found >/dev/null; fi

unpacked: installed
	@for p in $(UNPACKED); do \
		name=$${p%:*}; \
		if command -v $${p#*:} >/dev/null || ! command -v apt-get >/dev/null; then continue; fi; \
		echo "unpacking $$name"; \
		rm -rf $(UNPACKED_DIR)/deb; mkdir -p $(UNPACKED_DIR)/deb || exit 1; \
		(cd $(UNPACKED_DIR)/deb && apt-get download -qq -o APT::Sandbox::User=root $$name >/dev/null && \
			dpkg-deb -x *.deb ..) || echo "no package $$name"; \
		rm -rf $(UNPACKED_DIR)/deb; \
	done

vet:
	@$(GO) vet ./...

# Everything this machine can run; the last lines say which tiers that was.
test: packages vet
	@all=$$($(GO) list ./... | grep -v '/e2e$$') && \
	$(GO) run ./e2e/tally -count=1 -timeout=30m -- $$all -- $(LAST)

# T0 to T2: seconds.
test-fast:
	@all=$$($(GO) list ./... | grep -v '/e2e$$') && $(GO) run ./e2e/tally -short -- $$all

# Every fuzz target for FUZZTIME.
fuzz:
	@for pkg in $$(grep -rl '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$pkg || exit 1; \
		done; \
	done

# The main job, shown: on this machine's own KVM, or in the emulated machine.
demo: packages all
	@$(GO) run ./e2e/demo

# Boot time, exits and memory against QEMU, in one run in virtual time; then the
# time of a walk of the MIB.
bench: packages all
	@status=0; $(GO) run ./e2e/bench || status=1; \
	echo; echo "== SNMP: snmpbulkwalk through snmpd; the last line is a subagent in C (libsnmp-dev)"; \
	$(GO) test ./vmd/subagent -run '^$$' -bench Walk -benchtime 3x | grep ^Benchmark || status=1; \
	$(GO) test ./e2e/small -run '^$$' -bench 1000 | grep ^Benchmark || status=1; \
	exit $$status

clean:
	rm -rf bin .cache

.PHONY: all built install uninstall packages installed unpacked vet test test-fast fuzz demo bench clean
