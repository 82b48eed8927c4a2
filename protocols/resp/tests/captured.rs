//! Recorded commands of real clients: whole, octet by octet, and back to the same octets.

use protocol_resp::Decoder;

#[path = "../../testdata.rs"]
mod testdata;

/// The commands, and how many octets they took; `step` octets come at a time.
fn decode(octets: &[u8], step: usize) -> (Vec<Vec<Vec<u8>>>, usize) {
    let (mut decoder, mut commands, mut start) = (Decoder::default(), Vec::new(), 0);
    for end in (step.min(octets.len())..=octets.len()).step_by(step) {
        while let Some(used) = decoder
            .next_command(&octets[start..end])
            .expect("a client's octets")
        {
            let args = decoder.args(&octets[start..end]);
            commands.push(args.iter().map(<[u8]>::to_vec).collect());
            start += used;
        }
    }
    (commands, start)
}

#[test]
fn captured_commands_come_back() {
    for (name, octets) in testdata::recordings(env!("CARGO_MANIFEST_DIR")) {
        let (commands, used) = decode(&octets, octets.len());
        assert!(!commands.is_empty(), "{name}");
        assert_eq!(decode(&octets, 1), (commands.clone(), used), "{name}");
        // Commands that were typed in a line are not what an array gives back.
        if !octets.starts_with(b"*") {
            continue;
        }
        let mut back = Vec::new();
        for command in &commands {
            back.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
            for arg in command {
                back.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                back.extend_from_slice(arg);
                back.extend_from_slice(b"\r\n");
            }
        }
        assert_eq!(
            back.escape_ascii().to_string(),
            octets[..used].escape_ascii().to_string(),
            "{name}"
        );
    }
}
