# make demo    install bossa into an environment of its own and run the main job on an embedded data set
# make test    pass the tests, in an environment of its own
# make clean   remove both environments
#
# Needs Python 3.11 or later with venv and pip. Another interpreter: make test PYTHON=python3.12. More of pytest: make test ARGS="-k lm -x"

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
DEMO_ENV ?= .venv
TEST_ENV ?= .venv-test
ARGS ?=

.PHONY: demo test clean

demo: $(DEMO_ENV)/ready
	$(DEMO_ENV)/bin/python examples/demo.py

test: $(TEST_ENV)/ready
	$(TEST_ENV)/bin/python -m pytest $(ARGS)

$(DEMO_ENV)/ready: EXTRA =
$(TEST_ENV)/ready: EXTRA = [dev]
$(DEMO_ENV)/ready $(TEST_ENV)/ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "bossa needs Python 3.11 or later with the venv module; name one: make test PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".$(EXTRA)"
	touch $@

clean:
	rm -rf .venv .venv-test
