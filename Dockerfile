# The environment of the README from the same pins. Not run by the maintainers' tests.
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends make git chromium && rm -rf /var/lib/apt/lists/*
WORKDIR /companion
COPY . .
RUN make env
CMD ["make", "reproduce"]
