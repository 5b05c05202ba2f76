FROM swift:6.2-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends libsqlite3-dev zlib1g-dev libbz2-dev liblzma-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Package.swift Package.resolved ./
RUN swift package resolve --force-resolved-versions
COPY Sources Sources
RUN swift build -c release --static-swift-stdlib --product MyService \
 && mkdir /out \
 && cp "$(swift build -c release --static-swift-stdlib --show-bin-path)/MyService" /out/ \
 && cp /usr/libexec/swift/linux/swift-backtrace-static /out/swift-backtrace

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends libsqlite3-0 zlib1g libbz2-1.0 liblzma5 libstdc++6 ca-certificates tzdata \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /var/lib/myservice myservice
COPY --from=build /out/ /usr/local/bin/
USER 10001
WORKDIR /var/lib/myservice
STOPSIGNAL SIGTERM
ENTRYPOINT ["MyService"]
CMD ["worker"]
