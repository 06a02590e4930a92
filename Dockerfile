# contactd, installed by the same script as on a real machine (docs/operations.md, section 2).
FROM debian:bookworm-slim AS build
# The pin is the Debian release: its security updates are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv npm \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN scripts/install.sh /opt/contactd

FROM debian:bookworm-slim
# Asterisk's files belong to group 560 (docker/asterisk.Dockerfile).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 560 asterisk \
    && useradd --uid 570 --groups asterisk --home-dir /var/lib/contactd --shell /usr/sbin/nologin contactd \
    && install -d -o contactd -g contactd -m 0750 /var/lib/contactd
COPY --from=build /opt/contactd /opt/contactd
COPY etc/contactd.toml etc/desk.toml /etc/contactd/
COPY etc/calendars /etc/contactd/calendars/
ENV PATH=/opt/contactd/bin:$PATH PYTHONUNBUFFERED=1
USER 570
WORKDIR /var/lib/contactd
VOLUME /var/lib/contactd
EXPOSE 8080 8025
# Not /readyz: where unhealthy containers are restarted, a database that is away must not be the reason.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
ENTRYPOINT ["contactd"]
CMD ["serve", "-c", "/etc/contactd/contactd.toml"]
