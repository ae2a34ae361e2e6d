# `just` lists the recipes. All of them expect the environment of `pip install -e ".[dev]"`.

_default:
    @just --list --unsorted

# the tests; arguments go to pytest: just test -k imports
test *args:
    python -m pytest {{ args }}

# the tests with the lowest versions of libraries that pyproject.toml allows, in a fresh environment; needs uv
test-lowest *args:
    uv venv --clear --python 3.11 .venv-lowest
    uv pip install --python .venv-lowest --resolution lowest-direct -e ".[test]"
    .venv-lowest/bin/python -m pytest {{ args }}

# style, and that formatting would change nothing
lint:
    ruff check .
    ruff format --check .

# mend what ruff can mend, then format
fmt:
    ruff check --fix .
    ruff format .

# types of the package
types:
    mypy zoo

# the documentation, into docs/_build/html; warnings are errors
docs:
    python -m sphinx -W --keep-going -b html docs docs/_build/html

# draw the README's pictures again: after a change of the registry or of what a command prints
pictures:
    python docs/make_pictures.py list info hybrid-alt-1

# write the JSON Schema of registry files again: after a change of the catalogue's structs or their docstrings
schema:
    python -m zoo.catalogue.schema zoo/catalogue/registry.schema.json examples/zoo-fourier/registry.schema.json

# write the table of all results again: after a change of a record in results/ or of a result in the registry
results:
    python benchmarks/results_table.py

# everything, in a fresh environment, as a newcomer would meet it
ci:
    bash .ci/run

# how long `zoo list` takes beside its imports alone
bench-list:
    python benchmarks/list_startup.py

# every fault at every request to the Hub, and a wrong bit anywhere in every answer: about an hour
faults:
    python -m pytest -m slow tests/test_hub_faults.py

# kill training N times at random moments, resume, and compare with the run that nobody killed
kill-test N="60":
    python tests/kill_harness.py --kills {{ N }}

# the same for training that streams shards
kill-test-shards N="60":
    python tests/kill_harness.py --kills {{ N }} --shards
