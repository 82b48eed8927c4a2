//! What an AMQP client says first.

use protocol_amqp::{Method, Table};

/// The protocol header, a login, and channel 1.
pub(crate) fn amqp_login() -> Vec<u8> {
    let start_ok = Method::ConnectionStartOk {
        client_properties: Table::default(),
        mechanism: "PLAIN".into(),
        response: "\0guest\0guest".into(),
        locale: "en_US".into(),
    };
    let tune_ok = Method::ConnectionTuneOk {
        channel_max: 10,
        frame_max: 131_072,
        heartbeat: 0,
    };
    let open = Method::ConnectionOpen {
        virtual_host: "/".into(),
        capabilities: "".into(),
        insist: false,
    };
    let channel = Method::ChannelOpen {
        out_of_band: "".into(),
    };
    let mut said = b"AMQP\0\0\x09\x01".to_vec();
    for (id, method) in [(0, start_ok), (0, tune_ok), (0, open), (1, channel)] {
        protocol_amqp::method(&mut said, id, &method);
    }
    said
}
