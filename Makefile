# make demo   train a GAN on handwritten digits, export it, draw with it (some eight minutes on 2 cores)
# make test   the test suite, and what draws once more with NumPy in the place of the C core (minutes)
# make test-slow   exhaustive tests, sanitizers, fuzzing, other processors (long): docs/robustness.md
# make lint   ruff and mypy              make clean       remove the environment and the demo
PYTHON ?= python3
DEMO_KIMG ?= 80
BIN := .venv/bin
BUILD := pyproject.toml setup.py constraints.txt $(wildcard edgegan/core/*.[ch])
# The tests of what the C core does and of what draws with it; training and export see the same bits with either. Those
# that kill commands or fill disks take minutes with NumPy and are in test-slow.
RUNTIME_TESTS := $(foreach n,noise pixels image order model foreign translate cli_sample cli_model cli_translate,tests/test_$(n).py)
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow lint clean

demo: .venv/.train
	@if [ -e demo/run/config.json ]; then $(BIN)/edgegan-train resume demo/run; \
	else mkdir -p demo && $(BIN)/edgegan-train edge --data digits --kimg $(DEMO_KIMG) --out demo/run; fi
	$(BIN)/edgegan-export demo/run -o demo/digits.onnx
	$(BIN)/edgegan sample demo/digits.onnx -n 16 -o demo/samples.png
	@printf '\nLook at  demo/samples.png       16 digits, drawn by onnxruntime from demo/digits.onnx\n'
	@printf '         demo/run/progress.gif  how they came to be\n'
	@printf 'Try next $(BIN)/edgegan sample demo/digits.onnx -n 100 --seed 1 -o demo/more.png\n'

# Each process of the tests computes on one thread: together they keep every processor busy.
test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m "not slow"
	OMP_NUM_THREADS=1 EDGEGAN_PUREPYTHON=1 $(BIN)/pytest -n auto --dist worksteal -m "not slow" $(RUNTIME_TESTS)

test-slow: .venv/.test
	$(BIN)/pytest -m slow
	EDGEGAN_PUREPYTHON=1 $(BIN)/pytest tests/test_cli_fire.py tests/test_cli_output.py

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# mypy knows nothing of the folders that setup.py maps: show it the package as it installs.
	@rm -rf build/tree && mkdir -p build/tree/edgegan && ln -s $(CURDIR)/edgegan/* $(CURDIR)/trainer $(CURDIR)/export build/tree/edgegan/
	cd build/tree && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p edgegan

# Plain files mark what is installed, so that a second `make` starts at once and a changed build installs again.
.venv/.train: $(BUILD) | $(BIN)/pip
	@echo "Installing into .venv (PyTorch is large; this happens once) ..."
	@start=$$(date +%s); $(PIP) -e '.[cpu,train]' && echo "installed in $$(($$(date +%s) - start)) s"
	@touch $@

.venv/.test: $(BUILD) | $(BIN)/pip
	$(PIP) -e '.[test]'
	@touch $@ .venv/.train

$(BIN)/pip:
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv demo build dist *.egg-info edgegan/core/*.so
