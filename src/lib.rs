//! FlowMesh: Redis, RabbitMQ and Kafka clients over one storage engine, in one process.

pub mod net;
