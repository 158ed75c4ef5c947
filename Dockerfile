# Untested: written without a Docker engine at hand. The steps are those of `make setup` on Debian, which are tested.
#
#   docker build -t ffvit .
#   docker run --gpus all --shm-size 8g -v /data/imagenet:/data -it ffvit
FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates git make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ffvit
COPY . .
RUN make setup && rm -rf ~/.cache /var/lib/apt/lists/*
ENV PATH=/ffvit/.venv/bin:$PATH
CMD ["bash"]
