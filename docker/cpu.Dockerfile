# Without CUDA: training on CPU ranks, export. Tests that ask git for the files need a clone: .git is not copied.
#   docker build -f docker/cpu.Dockerfile -t halvit-mm:cpu .
#   docker run --shm-size 2g -it halvit-mm:cpu make demo
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /halvit-mm
COPY . .
RUN requirements/install.sh && rm -rf ~/.cache
ENV PATH=/halvit-mm/.venv/bin:$PATH
CMD ["bash"]
