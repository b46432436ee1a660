# The project's commands. Each does its own set-up; `make help` lists them.

# The request travels by environment, unexpanded: a prompt may hold quotes, dollars and anything
# else.
unexport PROMPT OUT N SEED SIZE NEGATIVE ARGS COUNT
export RENDER_PROMPT := $(value PROMPT)
export RENDER_OUT := $(value OUT)
export RENDER_N := $(value N)
export RENDER_SEED := $(value SEED)
export RENDER_SIZE := $(value SIZE)
export RENDER_NEGATIVE := $(value NEGATIVE)
export CHAOS_ARGS := $(value ARGS)
export FUZZ_ARGS := $(value ARGS)
export FUZZ_COUNT := $(value COUNT)

.PHONY: help render up farm farm-stop farm-status test test-versions test-stores test-slow screenshots lint chaos fuzz bench-build bench-cascade bench-sampling bench-gpu check-gpu bench-encoder bench-texts bench-farm bench-pages bench-quotas bench-cleaner setup

help: ## What there is.
	@echo 'make render PROMPT="a red circle above a blue square on a white background"'
	@echo '            [OUT=renders] [N=1] [SEED=1] [SIZE=64|256|1024] [NEGATIVE="..."]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

render: ## Sets up, builds, and renders PROMPT; prints the pictures' paths.
	@tools/render.sh

up: ## Runs the farm on this machine until Ctrl-C, its state in .darkroom/.
	@tools/setup.sh
	@cargo run --locked --quiet -p darkroom-cli -- up

farm: ## Starts a farm of separate processes here, with Redis and Postgres of its own.
	@tools/farm.sh start

farm-stop: ## Drains and stops it; what it was given stays.
	@tools/farm.sh stop

farm-status: ## What of it runs.
	@tools/farm.sh status

test: ## Formatting, lints, docs, licences, and all tests.
	@tools/test.sh

test-versions: ## The backends' suites on Valkey and on other versions of Postgres.
	@tools/test-versions.sh

test-stores: ## The suite of object storage on an emulator of Azure's.
	@tools/test-stores.sh

test-slow: ## The long tests: the full browser tour, and OpenAI's client with slow steps and 50,000 requests.
	@tools/test-browser.sh --slow
	@tools/test-openai.sh

screenshots: ## Makes the README's screenshots anew, with real pictures of the demo cascade.
	@tools/screenshots.sh

lint: ## Formatting, lints, docs, licences and the house's arrows only.
	@tools/lint.sh

chaos: ## Breaks a farm of real processes on purpose; SEED=n repeats a run, ARGS adds flags.
	@tools/chaos.sh

fuzz: ## Tries all readers with mutated inputs, 200,000 each (COUNT); SEED=n, ARGS=flags.
	@tools/fuzz.sh

bench-cascade: ## Measures rendering on this machine, and diffusers in Python beside it.
	@tools/bench-cascade.sh

check-gpu: ## Checks on a GPU what only a GPU can show: traces, pixels, memory; ARGS=flags.
	@tools/check-gpu.sh $(ARGS)

bench-gpu: ## The same on a GPU, as a share of what the card can do; ARGS adds flags.
	@tools/bench-gpu.sh $(ARGS)

bench-sampling: ## Measures what guidance, steps and samplers do to the demo's caption score.
	@tools/bench-sampling.sh

bench-build: ## Measures what `make render` costs to compile, by crate; ARGS=--cold.
	@tools/bench-build.py $(ARGS)

bench-encoder: ## Measures the text encoder on this machine, and transformers in Python beside it.
	@tools/bench-encoder.sh

bench-texts: ## Puts a million distinct prompts through a real encoder; shows its memory.
	@tools/bench-texts.sh

bench-farm: ## Measures the farm itself, and BullMQ and Celery beside it.
	@tools/bench-farm.sh

bench-pages: ## Measures pages of a million-image job on SQLite and Postgres; ARGS adds flags.
	@tools/bench-pages.sh $(ARGS)

bench-quotas: ## Measures GetJob while another tenant sends ten times its rate; ARGS adds flags.
	@tools/bench-quotas.sh $(ARGS)

bench-cleaner: ## Measures the cleaner over days of ended jobs, on both databases; ARGS=flags.
	@tools/bench-cleaner.sh $(ARGS)

setup: ## Checks what must be there and sets libtorch up.
	@tools/setup.sh
