//! amqp wire codec.
