//! Commands in any split: the first byte says where the input is cut, and both ways must give the same commands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol_resp::Decoder;

fn commands(mut input: &[u8], step: usize) -> (Vec<Vec<Vec<u8>>>, bool) {
    let (mut decoder, mut found, mut seen) =
        (Decoder::default(), Vec::new(), step.min(input.len()));
    loop {
        match decoder.next_command(&input[..seen]) {
            Ok(Some(used)) => {
                found.push(
                    decoder
                        .args(&input[..seen])
                        .iter()
                        .map(<[u8]>::to_vec)
                        .collect(),
                );
                input = &input[used..];
                seen = (seen - used).max(step.min(input.len()));
            }
            Ok(None) if seen == input.len() => return (found, true),
            Ok(None) => seen = (seen + step).min(input.len()),
            Err(_) => return (found, false),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((step, input)) = data.split_first() else {
        return;
    };
    assert_eq!(
        commands(input, input.len().max(1)),
        commands(input, usize::from(*step).max(1))
    );
});
