# Latchkey: the two commands are `make demo` and `make test`; `make help` lists the rest.

PART     ?= all
FUZZTIME ?= 3s

.PHONY: help build demo test test-abuse bench fmt tools deps golden clean

help:
	@echo 'make build            bin/latchkeyd, bin/latchkey-agent, bin/latchkey, bin/pam_latchkey.so'
	@echo 'make demo             the main job on this machine, in a folder and namespace of its own'
	@echo 'make test             every check; PART=lint|generated|unit|race|native|cross|fuzz|e2e|browser|demo runs one part,'
	@echo '                      FUZZTIME=60s fuzzes longer'
	@echo 'make test-abuse       the long form of the attacks and faults of docs/abuse.md, with a report (some hours)'
	@echo 'make bench            measurements beside other programs, as Markdown; PART=pam: sign-ins through PAM (as root),'
	@echo '                      PART=load: one server under load and with thousands of machines; PART=push: ten thousand'
	@echo '                      wait for a phone (in load too); PART=console: every page with 100 000 users and 10 million'
	@echo '                      events (35 GB of room)'
	@echo 'make fmt              format the Go code'
	@echo 'make golden           write the lists of linked packages anew (then read the diff)'
	@echo 'make clean            remove what was built'

build:
	@scripts/deps build
	@scripts/build

demo:
	@scripts/deps demo
	@scripts/build
	@scripts/demo

test:
	@scripts/deps test $(PART)
	@scripts/tools gofumpt staticcheck templ
	@scripts/go build -o .cache/check ./scripts/check
	@.cache/check -part '$(PART)' -fuzztime '$(FUZZTIME)'

test-abuse:
	@scripts/deps test
	@scripts/tools gofumpt staticcheck
	@scripts/go build -o .cache/check ./scripts/check
	@.cache/check -part abuse

bench:
	@scripts/deps bench >&2
	@scripts/build >&2
	@scripts/build --test >&2
	@scripts/bench '$(PART)'

fmt:
	@scripts/tools gofumpt
	@git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 .cache/tools/gofumpt -w

tools:
	@scripts/tools gofumpt staticcheck templ sqlc

golden:
	@scripts/go test ./internal/housetest -run 'Golden|Licence' -update

clean:
	rm -rf bin artifacts .cache/bin-test
