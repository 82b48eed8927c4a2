//! What real clients sent, as `fuzz/record.py` has kept it in `protocols/*/testdata`.

use std::path::Path;

/// Name and octets of every recording beside the crate in `manifest_dir`, in order.
pub(crate) fn recordings(manifest_dir: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(manifest_dir).join("testdata");
    let mut all: Vec<_> = std::fs::read_dir(&directory)
        .expect("testdata is there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a text");
            let digits: Vec<u8> = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .flat_map(|line| line.bytes())
                .map(|digit| char::from(digit).to_digit(16).expect("a hex digit") as u8)
                .collect();
            let octets = digits
                .chunks_exact(2)
                .map(|pair| pair[0] << 4 | pair[1])
                .collect();
            (
                path.file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned(),
                octets,
            )
        })
        .collect();
    all.sort();
    assert!(!all.is_empty(), "no recordings in {}", directory.display());
    all
}
