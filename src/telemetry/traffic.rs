//! What went over the sockets of each face, as metrics.

use std::sync::Arc;

use super::metrics::{Encoder, Kind, PerFace};
use crate::config::Face;
use crate::net::Traffic;

/// Faces whose sockets the connection loop serves.
const SERVED: [Face; 3] = [Face::Resp, Face::Amqp, Face::Kafka];

/// Writes one family per counter.
pub fn collect(out: &mut Encoder, traffic: &PerFace<Arc<Traffic>>) {
    type Read = fn(&Traffic) -> u64;
    let mut open = out.family("flowmesh_connections", Kind::Gauge, "Connections open now.");
    for face in SERVED {
        open.sample(&[("face", face.name())], traffic.of(face).open.value());
    }
    // TLS is spoken on the admin side, too.
    let counters: [(&str, &str, &[Face], Read); 7] = [
        (
            "flowmesh_tls_handshakes_total",
            "TLS handshakes done.",
            &Face::ALL,
            |t| t.handshakes.value(),
        ),
        (
            "flowmesh_tls_handshakes_failed_total",
            "Connections to a TLS address that ended before their handshake was done.",
            &Face::ALL,
            |t| t.handshakes_failed.value(),
        ),
        (
            "flowmesh_connections_total",
            "Connections accepted.",
            &SERVED,
            |t| t.accepted.value(),
        ),
        (
            "flowmesh_connections_refused_total",
            "Connections closed at once because all of them, or those of their address, were too many or came too fast.",
            &SERVED,
            |t| t.refused.value(),
        ),
        (
            "flowmesh_connections_evicted_total",
            "Connections closed because they did not read, or held most while clients' buffers were full.",
            &SERVED,
            |t| t.evicted.value(),
        ),
        (
            "flowmesh_received_bytes_total",
            "Bytes read from clients.",
            &SERVED,
            |t| t.bytes_read.value(),
        ),
        (
            "flowmesh_sent_bytes_total",
            "Bytes written to clients.",
            &SERVED,
            |t| t.bytes_written.value(),
        ),
    ];
    for (name, help, faces, read) in counters {
        let mut family = out.family(name, Kind::Counter, help);
        for face in faces {
            family.sample(&[("face", face.name())], read(traffic.of(*face)));
        }
    }
}
