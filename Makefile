# attentiond: `make demo`, `make run` and `make test` do their own set-up; everything
# else expects the packages of config/setup.sh to be there. `make help` lists the
# targets.
#
# Nothing here is built for the machine it is built on: lib/kernels/kernels.c is
# compiled once per instruction set and the choice falls at run time.

VERSION := $(shell sed -n 's/^\#define ATTN_VERSION_STRING "\(.*\)"/\1/p' lib/attention.h)
SOVERSION := 0

SANITIZER ?=
ifeq ($(SANITIZER),)
BUILD ?= build
else
# the first word alone: a comma in a folder's name is a trap for linker flags
comma := ,
BUILD ?= build-$(firstword $(subst $(comma), ,$(SANITIZER)))
SANITIZE := -fsanitize=$(SANITIZER) -fno-sanitize-recover=all -fno-omit-frame-pointer
endif

PREFIX ?= /usr/local
PYTHON ?= /usr/bin/python3
PKG_CONFIG ?= pkg-config
ARCH := $(shell $(CC) -dumpmachine 2>/dev/null | cut -d- -f1)

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
WERROR ?= -Werror
OPTIMIZE ?= -O2 -g
CPPFLAGS += -D_GNU_SOURCE -Ilib -Iserver
# No relaxation of floating point: what is one rounding is written as such (lib/kernels/lanes.h).
# GCC needs no -ffp-contract=off beside -std=c11, clang does.
CFLAGS += -std=c11 -ffp-contract=off $(OPTIMIZE) $(WARNINGS) $(WERROR) -fPIC -fvisibility=hidden \
          -fstack-protector-strong $(SANITIZE) -MMD -MP
LDFLAGS += $(SANITIZE) -Wl,-z,relro,-z,now

BLAS_CFLAGS = $(shell $(PKG_CONFIG) --cflags openblas)
BLAS_LIBS = $(shell $(PKG_CONFIG) --libs openblas)
LIB_LIBS = $(BLAS_LIBS) -lm
SERVER_LIBS = $(shell $(PKG_CONFIG) --libs libmicrohttpd jansson sqlite3) -pthread
CHECK_LIBS = $(shell $(PKG_CONFIG) --libs check)

# ---- libattention ----
# kernels.c is written once, in plain C over vectors of a width that the
# compiler flags decide; each variant is another object.
KERNEL_VARIANTS := portable
ifneq ($(filter x86_64 amd64,$(ARCH)),)
KERNEL_VARIANTS += avx2 avx512
endif
ifneq ($(filter aarch64,$(ARCH)),)
KERNEL_VARIANTS += neon
endif
KERNEL_FLAGS_neon := -DATTN_KERNEL_LANES=4 -DATTN_KERNEL_NEON
KERNEL_FLAGS_portable := -DATTN_KERNEL_LANES=4
KERNEL_FLAGS_avx2 := -DATTN_KERNEL_LANES=8 -mavx2 -mfma -mf16c
KERNEL_FLAGS_avx512 := -DATTN_KERNEL_LANES=16 -mavx2 -mfma -mf16c -mavx512f -mavx512vl -mavx512dq -mavx512bw

# unrolled loops full of checks take a sanitizer's build a minute per variant
KERNEL_OPTIMIZE := $(if $(SANITIZER),-O1,-O3)

LIB_SOURCES := $(filter-out lib/kernels/kernels.c,$(wildcard lib/*.c lib/*/*.c))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/%.o) $(KERNEL_VARIANTS:%=$(BUILD)/lib/kernels/kernels_%.o)

# ---- attentiond ----
SERVER_SOURCES := $(filter-out server/main.c,$(wildcard server/*.c server/*/*.c))
SERVER_OBJECTS := $(SERVER_SOURCES:%.c=$(BUILD)/%.o)

# ---- tests ----
# tests/unit/lib sees the library alone, tests/unit/server also the server.
UNIT_SOURCES := $(wildcard tests/unit/*/test_*.c tests/unit/*/*/test_*.c)
UNIT_TESTS := $(UNIT_SOURCES:%.c=$(BUILD)/%)

.PHONY: all
all: $(BUILD)/attentiond $(BUILD)/libattention.a $(BUILD)/libattention.so

.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

$(BUILD)/lib/%.o: lib/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(BLAS_CFLAGS) $(CFLAGS) -c -o $@ $<

$(KERNEL_VARIANTS:%=$(BUILD)/lib/kernels/kernels_%.o): $(BUILD)/lib/kernels/kernels_%.o: lib/kernels/kernels.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(KERNEL_OPTIMIZE) $(KERNEL_FLAGS_$*) -DATTN_KERNEL_NAME=$* -c -o $@ $<

# its loops become vector code, which gcc does at -O3 alone
$(BUILD)/server/codec/number_print.o: CFLAGS += $(if $(SANITIZER),,-O3)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/libattention.a: $(LIB_OBJECTS)
	rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/libattention.so: $(LIB_OBJECTS)
	$(CC) $(LDFLAGS) -shared -Wl,-soname,libattention.so.$(SOVERSION) -o $@ $^ $(LIB_LIBS)

$(BUILD)/attentiond: $(BUILD)/server/main.o $(SERVER_OBJECTS) $(BUILD)/libattention.a
	$(CC) $(LDFLAGS) -o $@ $^ $(SERVER_LIBS) $(LIB_LIBS)

# These alone are linked with the oracle.
$(BUILD)/tests/unit/lib/%.o: CPPFLAGS += -Itests/unit/lib

$(BUILD)/tests/unit/lib/%: $(BUILD)/tests/unit/lib/%.o $(BUILD)/tests/unit/lib/oracle.o $(BUILD)/libattention.a
	$(CC) $(LDFLAGS) -o $@ $^ $(CHECK_LIBS) $(LIB_LIBS)

$(BUILD)/tests/unit/server/%: $(BUILD)/tests/unit/server/%.o $(SERVER_OBJECTS) \
                              $(BUILD)/libattention.a
	$(CC) $(LDFLAGS) -o $@ $^ $(CHECK_LIBS) $(SERVER_LIBS) $(LIB_LIBS)

.SECONDARY:

DEPENDENCIES := $(shell find $(BUILD) -name '*.d' 2>/dev/null)
-include $(DEPENDENCIES)

# ---- fuzz targets, linked with a main that replays stored inputs ----
FUZZ_SOURCES := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_REPLAYS := $(FUZZ_SOURCES:%.c=$(BUILD)/%)

$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay_main.o \
                            $(SERVER_OBJECTS) $(BUILD)/libattention.a
	$(CC) $(LDFLAGS) -o $@ $^ $(SERVER_LIBS) $(LIB_LIBS)

# ---- the same targets with libFuzzer: see the head of tests/fuzz/fuzz.py ----
# Each is fuzzed for FUZZ_SECONDS; FUZZ_FLAGS: --target NAME,NAME... and --keep.
CLANG ?= clang
FUZZ_SECONDS ?= 60
FUZZ_FLAGS ?=
FUZZERS := $(FUZZ_SOURCES:tests/fuzz/fuzz_%.c=$(BUILD)/fuzzers/%)

$(BUILD)/fuzzers/%: $(BUILD)/tests/fuzz/fuzz_%.o $(SERVER_OBJECTS) $(BUILD)/libattention.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(SERVER_LIBS) $(LIB_LIBS)

.PHONY: fuzz fuzzers
fuzzers: $(FUZZERS)

fuzz:
	@PYTHON=$(PYTHON) config/setup.sh fuzz
	@$(MAKE) -s $(JOBS) CC='$(CLANG)' BUILD=build-fuzz SANITIZER=fuzzer-no-link,address,undefined \
	  OPTIMIZE='-O1 -g' fuzzers
	@$(PYTHON) tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS) $(FUZZ_FLAGS)

# ---- the bench, optional: see the heads of tests/bench/main.c and peers/peers.py ----
# A file with a main() of its own is a program, the others are the bench.
BENCH_PROGRAMS := bare_server load_main
BENCH_SOURCES := $(filter-out $(BENCH_PROGRAMS:%=tests/bench/%.c),$(wildcard tests/bench/*.c))
BENCH_OBJECTS := $(BENCH_SOURCES:%.c=$(BUILD)/%.o)
BENCH := $(BUILD)/tests/bench
BENCH_FLAGS ?=

$(BENCH)/%.o: CPPFLAGS += $(BLAS_CFLAGS)

$(BENCH)/bench: $(BENCH_OBJECTS) $(SERVER_OBJECTS) $(BUILD)/libattention.a
	$(CC) $(LDFLAGS) -o $@ $^ $(SERVER_LIBS) $(LIB_LIBS)

$(BENCH)/bare_server: $(BENCH)/bare_server.o
	$(CC) $(LDFLAGS) -o $@ $^ $(SERVER_LIBS)

$(BENCH)/load: $(BENCH)/load_main.o $(BENCH)/load.o $(BENCH)/support.o $(BENCH)/turns.o $(SERVER_OBJECTS) \
               $(BUILD)/libattention.a
	$(CC) $(LDFLAGS) -o $@ $^ $(SERVER_LIBS) $(LIB_LIBS)

# What ctypes loads: the library behind one flat function.
$(BENCH)/peers/flat.so: $(BENCH)/peers/flat.o $(BUILD)/server/engine/workers.o \
                        $(BUILD)/server/engine/buffer_pool.o $(BUILD)/libattention.a
	$(CC) $(LDFLAGS) -shared -o $@ $^ $(LIB_LIBS) -pthread

PEERS_VENV := $(BUILD)/peers-venv
$(PEERS_VENV)/.ready: tests/bench/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/pip install -q -r $<
	touch $@

.PHONY: bench bench-peers bench-compare
bench: $(BUILD)/attentiond $(BENCH)/bench $(BENCH)/bare_server
	@$(BENCH)/bench $(BUILD)/bench.json --daemon $(BUILD)/attentiond \
	  --bare-server $(BENCH)/bare_server $(BENCH_FLAGS)

# BASE_BENCH: the revision whose tests/bench measures BASE, if not BASE's own
BASE ?=
BASE_BENCH ?=
bench-compare: $(BUILD)/attentiond $(BENCH)/bench $(BENCH)/bare_server
	@$(PYTHON) tests/bench/compare.py --base '$(BASE)' --base-bench '$(BASE_BENCH)' \
	  --build $(BUILD) --make '$(MAKE) -s $(JOBS)' $(BENCH_FLAGS)

bench-peers: $(BUILD)/attentiond $(BENCH)/load $(BENCH)/bare_server $(BENCH)/peers/flat.so $(PEERS_VENV)/.ready
	@$(PEERS_VENV)/bin/python tests/bench/peers/peers.py --build $(BUILD) $(BENCH_FLAGS)

# ---- what people call ----
# Recursion comes after the set-up, because pkg-config is asked while make
# reads this file. Without a -j of the caller's, all cores take part.
MAKEFLAGS += --no-print-directory
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
CLANG_FORMAT ?= $(or $(shell command -v clang-format-14),clang-format)
FORMATTED := $(wildcard lib/*.[ch] lib/*/*.[ch] server/*.[ch] server/*/*.[ch] tests/*/*.[ch] tests/*/*/*.[ch] \
               tests/*/*/*/*.[ch])

.PHONY: help setup demo run test test-all programs format format-check install uninstall clean

help:
	@echo 'make demo           set up, build, and watch attention at work on handwritten digits'
	@echo 'make test           set up, build, and run everything that must pass before a change lands'
	@echo 'make test-all       the long ones too: every float as text, random shapes, crashes and faults, leaks'
	@echo 'make                $(BUILD)/attentiond, $(BUILD)/libattention.a and .so'
	@echo 'make run            set up, build, and serve the same digits in the foreground'
	@echo 'make bench          the figures of docs/performance.md, as a table and as $(BUILD)/bench.json'
	@echo 'make bench-compare  BASE=REV: that revision against this build, measured in turn'
	@echo 'make bench-peers    the same questions put to NumPy, PyTorch, ONNX Runtime and FastAPI'
	@echo 'make setup          install what is missing to build and to test (apt)'
	@echo 'make install        DESTDIR= PREFIX=/usr/local: daemon, library, header, man page, unit, documents'
	@echo 'make uninstall      takes the same files away'
	@echo 'make format         clang-format over the sources; format-check only looks'
	@echo 'make clean          removes every build folder'
	@echo
	@echo 'SANITIZER=address|undefined|thread (or address,undefined) with any of the first four'
	@echo 'builds and runs in a folder of its own.'

setup:
	@PYTHON=$(PYTHON) config/setup.sh test

define SET_UP_AND_BUILD
@PYTHON=$(PYTHON) config/setup.sh $(1)
@$(MAKE) -q $(BUILD)/attentiond || echo 'building $(BUILD)/attentiond'
@$(MAKE) -s $(JOBS) $(BUILD)/attentiond
endef

demo:
	$(call SET_UP_AND_BUILD,demo)
	@tests/demo/demo.sh $(BUILD)/attentiond

run:
	$(call SET_UP_AND_BUILD,build)
	@exec $(BUILD)/attentiond --config config/demo.json

# everything that `make test` runs
programs: all $(UNIT_TESTS) $(FUZZ_REPLAYS)

TEST = $(PYTHON) tests/run.py --build $(BUILD) --sanitizer '$(SANITIZER)'

test:
	@PYTHON=$(PYTHON) config/setup.sh test
	@$(TEST) -- $(MAKE) -s $(JOBS)

# the long ones too: every float through its text, many more random shapes, kills,
# faults of the disk, damage, leaks
test-all:
	@PYTHON=$(PYTHON) config/setup.sh test
	@$(TEST) --long -- $(MAKE) -s $(JOBS)

$(BUILD)/tests/exhaustive/%: $(BUILD)/tests/exhaustive/%.o $(SERVER_OBJECTS) \
                             $(BUILD)/libattention.a
	$(CC) $(LDFLAGS) -o $@ $^ $(SERVER_LIBS) $(LIB_LIBS)

# ---- what other tools say ----
# Everything that is C, at -O1: what clang warns of it sees there as well.
.PHONY: everything clang-build coverage
everything: programs $(BENCH)/bench $(BENCH)/load $(BENCH)/bare_server $(BENCH)/peers/flat.so \
            $(BUILD)/tests/exhaustive/number_text

clang-build:
	@$(MAKE) -s $(JOBS) CC='$(CLANG)' BUILD=build-clang SANITIZER= OPTIMIZE=-O1 KERNEL_OPTIMIZE=-O1 \
	  everything

coverage:
	@PYTHON=$(PYTHON) config/setup.sh tools
	@$(MAKE) -s $(JOBS) BUILD=build-coverage SANITIZER= SANITIZE='--coverage -fprofile-update=atomic' \
	  OPTIMIZE='-O1 -g' KERNEL_OPTIMIZE=-O1 all programs
	@$(PYTHON) tests/coverage.py

format:
	$(CLANG_FORMAT) -i $(FORMATTED)

format-check:
	@$(CLANG_FORMAT) --dry-run --Werror $(FORMATTED)

# ---- installation ----
# Every installed file is under PREFIX, so that one DESTDIR/PREFIX holds all
# of it and `uninstall` is the same list again.
BINDIR = $(PREFIX)/bin
LIBDIR = $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/attentiond
UNITDIR = $(PREFIX)/lib/systemd/system
DOCUMENTS = LICENSE README.md CHANGELOG.md SECURITY.md config/attentiond.json \
            config/prometheus.yml config/grafana.json

install: all
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(LIBDIR)/pkgconfig $(INCLUDEDIR) $(MANDIR)/man8 \
	  $(DOCDIR)/docs $(UNITDIR))
	install -m 755 $(BUILD)/attentiond $(DESTDIR)$(BINDIR)/
	install -m 644 $(BUILD)/libattention.a $(DESTDIR)$(LIBDIR)/
	install -m 644 $(BUILD)/libattention.so $(DESTDIR)$(LIBDIR)/libattention.so.$(VERSION)
	ln -sf libattention.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libattention.so.$(SOVERSION)
	ln -sf libattention.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libattention.so
	install -m 644 lib/attention.h $(DESTDIR)$(INCLUDEDIR)/
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	  -e 's|@VERSION@|$(VERSION)|; s|@LIB_LIBS@|$(LIB_LIBS)|' config/libattention.pc.in \
	  >$(DESTDIR)$(LIBDIR)/pkgconfig/libattention.pc
	install -m 644 config/attentiond.8 $(DESTDIR)$(MANDIR)/man8/
	sed 's|/usr/local/bin|$(BINDIR)|' config/attentiond.service \
	  >$(DESTDIR)$(UNITDIR)/attentiond.service
	install -m 644 $(DOCUMENTS) $(DESTDIR)$(DOCDIR)/
	install -m 644 $(wildcard docs/*.md) $(DESTDIR)$(DOCDIR)/docs/
# the dynamic linker's cache, where this is a real installation
	@if [ -z '$(DESTDIR)' ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi

uninstall:
	rm -f $(addprefix $(DESTDIR),$(BINDIR)/attentiond $(LIBDIR)/libattention.a \
	  $(LIBDIR)/libattention.so $(LIBDIR)/libattention.so.$(SOVERSION) \
	  $(LIBDIR)/libattention.so.$(VERSION) $(LIBDIR)/pkgconfig/libattention.pc \
	  $(INCLUDEDIR)/attention.h $(MANDIR)/man8/attentiond.8 $(UNITDIR)/attentiond.service)
	rm -rf $(DESTDIR)$(DOCDIR)

clean:
	rm -rf build build-*
