# UNTESTED: written without a container engine at hand. Build: docker build -t flowmesh .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin flowmesh

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/flowmesh flowmesh
COPY --from=build /src/target/release/flowmesh /usr/local/bin/flowmesh
USER flowmesh
VOLUME /var/lib/flowmesh
# Inside a container the ports are published, so every interface is used, and a password is needed:
# Kafka clients on this machine are told to use localhost; set FLOWMESH_KAFKA_ADVERTISED=host:port for others.
#   docker run -e FLOWMESH_PASSWORD=... -p 6379:6379 -p 5672:5672 -p 9092:9092 -p 8080:8080 flowmesh
ENV FLOWMESH_DATA_DIR=/var/lib/flowmesh FLOWMESH_RESP_ADDR=:6379 FLOWMESH_AMQP_ADDR=:5672 FLOWMESH_KAFKA_ADDR=:9092 \
    FLOWMESH_HTTP_ADDR=:8080 FLOWMESH_GRPC_ADDR=:50051 FLOWMESH_KAFKA_ADVERTISED=localhost:9092
EXPOSE 6379 5672 9092 8080 50051
STOPSIGNAL SIGTERM
ENTRYPOINT ["flowmesh"]
CMD ["server"]
