# Asterisk 22 with etc/asterisk/ and the prompts of etc/prompts.toml, as the tests run it: Debian forky has
# the package, the prompts are made on bookworm. Build it from the repository's root:
#   docker build -f docker/asterisk.Dockerfile .
FROM debian:bookworm-slim AS sounds
# The pin is the Debian release: its security updates are wanted.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends espeak-ng sox python3 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY scripts/prompts.py scripts/
COPY etc/prompts.toml etc/
# Recorded files in docker/voices (zh/contactd/…, en/contactd/…, moh/…) replace prompts, one by one.
COPY docker/voices voices
RUN python3 scripts/prompts.py /sounds --override voices

FROM debian:forky-slim
# Fixed numbers, so that other containers can be given the group that owns recordings and records.
# hadolint ignore=DL3008
RUN groupadd --system --gid 560 asterisk \
    && useradd --system --uid 560 --gid asterisk --home-dir /var/lib/asterisk --shell /usr/sbin/nologin asterisk \
    && apt-get update \
    && apt-get install -y --no-install-recommends asterisk \
    && rm -rf /var/lib/apt/lists/* /etc/asterisk /usr/share/asterisk/sounds
COPY --from=sounds /sounds /usr/share/asterisk/sounds
COPY etc/asterisk /etc/asterisk
COPY docker/asterisk.sh /usr/local/bin/asterisk.sh
# The configuration names the module folder of amd64; manager.conf gets its secret at the start.
RUN sed -i "s|^astmoddir => .*|astmoddir => $(dirname /usr/lib/*/asterisk/modules/res_agi.so)|" /etc/asterisk/asterisk.conf \
    && install -d -o asterisk -g asterisk -m 2750 /var/log/asterisk /var/log/asterisk/cel-custom /var/log/asterisk/cdr-csv \
        /var/spool/asterisk /var/spool/asterisk/monitor /var/spool/asterisk/voicemail \
    && install -d -o asterisk -g asterisk /run/asterisk /var/lib/asterisk /var/cache/asterisk \
    && chown -R asterisk:asterisk /etc/asterisk /var/lib/asterisk
USER 560
WORKDIR /var/lib/asterisk
VOLUME ["/var/lib/asterisk", "/var/log/asterisk", "/var/spool/asterisk"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["asterisk", "-rx", "core waitfullybooted"]
CMD ["asterisk.sh"]
