# The server with its bundled models, on a CPU. Other models: mount them and set T2L_BASE_MODEL, T2L_ENCODER, T2L_CHECKPOINT.
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install --no-install-recommends -y make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml setup.py README.md LICENSE Makefile ./
COPY deploy ./deploy
COPY hypernet ./hypernet
COPY server ./server
COPY checkpoints ./checkpoints
RUN make .venv/.ready && T2L_CACHE=/app/cache .venv/bin/python -c "from hypernet.bundled_models import base_model_path; base_model_path()"

FROM python:3.11-slim
# g++ compiles the LoRA kernel (server/engine/patches/add_lora.cpp) at the start; vLLM counts NUMA nodes.
RUN apt-get update && apt-get install --no-install-recommends -y g++ libnuma1 && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home t2l
WORKDIR /app
COPY --from=build --chown=t2l /app /app
USER t2l
ENV T2L_HOST=0.0.0.0 T2L_CACHE=/app/cache PATH=/app/.venv/bin:$PATH
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD python -c "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('T2L_PORT', '8000') + '/ready')"
CMD ["t2l", "serve"]
