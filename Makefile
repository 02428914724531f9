# `make` lists the targets. Each environment is a folder here, made on first use and again when settings.ini changes.
PYTHON ?= python3
VENV ?= .venv
VENV_DEV ?= .venv-dev
VENV_PLAY ?= .venv-play
PORT ?= 8000
WORKERS ?= 2
# extras of the package that the commands are installed with: `make demo` trains, measures and draws
EXTRAS ?= train,measure,figures
# of PyTorch in chapters: the last digits of a network's sums depend on it
THREADS ?= 1

RUN = $(VENV)/bin/python
DEV = PATH="$$(cd "$(VENV_DEV)/bin" && pwd):$$PATH"
TEST = $(DEV) MPLBACKEND=Agg TQDM_DISABLE=1 HF_HUB_OFFLINE=1

.DELETE_ON_ERROR:
.PHONY: help venv venv-dev demo play test mutants fuzz prepare run-nb compare site docs visit paper clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile

venv: $(VENV)/.installed ## the environment that runs the commands
venv-dev: $(VENV_DEV)/.installed ## the environment with the development tools

$(VENV)/.installed: settings.ini setup.py
	@echo "Installing the package and what it needs (PyTorch and others) into $(VENV); this may take some minutes."
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --upgrade pip
	$(VENV)/bin/pip install -q '.[$(EXTRAS)]'
	@rm -rf build
	@touch $@

$(VENV_DEV)/.installed: settings.ini setup.py
	@echo "Installing the package with its development tools into $(VENV_DEV); this may take some minutes."
	$(PYTHON) -m venv $(VENV_DEV)
	$(VENV_DEV)/bin/pip install -q --upgrade pip
	$(VENV_DEV)/bin/pip install -q -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## train on digits, measure accuracy against the guidance scale, sample MNIST
	$(RUN) train.py --dataset digits --out out/demo --overwrite
	$(RUN) evaluate.py --model out/demo --scales 0 0.5 1 1.5 2 3 --num 300 --out out/demo/scales.csv --overwrite
	$(RUN) sample.py --model mnist --guidance-scale 2 --num 40 --out out/demo-mnist --overwrite
	@echo
	@echo "Accuracy against the guidance scale, a picture:  out/demo/scales.png"
	@echo "Guided MNIST digits, the shipped model:          out/demo-mnist/grid.png"

play: $(VENV_PLAY)/.installed ## serve the live pages on this machine, without Quarto: make play [PORT=8000]
	$(VENV_PLAY)/bin/python tools/serve.py --port $(PORT)

$(VENV_PLAY)/.installed:
	$(PYTHON) -m venv $(VENV_PLAY)
	$(VENV_PLAY)/bin/pip install -q pypandoc-binary
	@touch $@

test: $(VENV_DEV)/.installed ## everything that CI checks: notebooks clean and exported, their tests, pytest, ruff
	$(TEST) python tools/check_sync.py
	$(TEST) python tools/readme.py --check
	$(TEST) python tools/api.py --check
	$(TEST) python tools/index.py --check
	$(TEST) OMP_NUM_THREADS=1 nbdev_test --n_workers $(WORKERS) --do_print --timing
	$(TEST) OMP_NUM_THREADS=1 pytest -q -n $(WORKERS) --dist loadscope
	$(TEST) ruff check cfg_course comfy tests tools setup.py train.py sample.py evaluate.py
	$(TEST) pyrefly check

mutants: $(VENV_DEV)/.installed ## put small faults into the package, one at a time, and see who notices: an hour or two
	$(TEST) python tools/mutants.py --workers $(WORKERS)

fuzz: $(VENV_DEV)/.installed ## try 1,500 odd command lines and 5,000 damaged files: each may cost one line, and nothing else
	$(TEST) OMP_NUM_THREADS=1 nice python tools/fuzz.py --fresh 300 --workers $(WORKERS) --out nbs/results/fuzz.csv

prepare: $(VENV_DEV)/.installed ## after editing notebooks: export the package, clean the notebooks, check both
	$(DEV) nbdev_export
	$(DEV) nbdev_clean
	$(DEV) python tools/index.py
	$(DEV) python tools/readme.py
	$(DEV) python tools/api.py
	$(DEV) python tools/compare.py
	$(DEV) python tools/teach.py
	$(DEV) python tools/contributing.py
	$(DEV) python tools/downloads.py
	$(DEV) python tools/check_sync.py

run-nb: $(VENV_DEV)/.installed ## execute notebooks in place: make run-nb NB=nbs/00_core.ipynb [FLAGS=slow]
	@test -n "$(NB)" || { echo 'which notebook? make run-nb NB="nbs/00_core.ipynb ..." [FLAGS=slow]' >&2; exit 2; }
	$(DEV) OMP_NUM_THREADS=$(THREADS) python tools/run_nb.py $(NB) --flags "$(FLAGS)"
	$(DEV) nbdev_clean

compare: $(VENV_DEV)/.installed ## execute notebooks and compare with the stored outputs: make compare [NB=...] [FLAGS=slow]
	$(TEST) OMP_NUM_THREADS=$(THREADS) python tools/compare_nb.py $(NB) --flags "$(FLAGS)"

site: $(VENV_DEV)/.installed ## build the website in _docs (needs the Quarto command)
	@command -v quarto >/dev/null || { echo 'no quarto here; get it from https://quarto.org/docs/get-started, then: make site' >&2; exit 2; }
	@rm -rf _proc
	$(DEV) OMP_NUM_THREADS=1 python tools/pages.py --n_workers $(WORKERS)
	$(DEV) quarto render _proc --no-execute --no-cache >_proc/site.log 2>&1 || { cat _proc/site.log >&2; exit 1; }
	@! grep -E 'WARN|ERROR' _proc/site.log || { echo 'Quarto warned: mend the above where it comes from' >&2; exit 1; }
	@rm -rf _docs && mv _proc/_docs _docs && echo "the site is in _docs: $$(ls _docs/*.html | wc -l) pages, no warning"

docs: site

visit: $(VENV_DEV)/.installed ## open every page of _docs in a headless Chromium: make visit [SHOTS=folder]
	$(DEV) python tools/visit.py $(if $(SHOTS),--shots $(SHOTS))

paper: $(VENV_DEV)/.installed ## the short paper, paper/paper.pdf (needs LaTeX: one line names the Debian packages)
	$(DEV) MPLBACKEND=Agg python tools/paper.py --pdf

clean: ## remove caches and built pages; environments, data and runs stay
	rm -rf _docs _proc build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name .venv-dev -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
